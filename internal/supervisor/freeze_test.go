package supervisor

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tenement"
	"tenement/internal/runtime/runtimetest"
	"tenement/internal/store"
)

// freezing has instances frozen after a minute, put to sleep after five.
func freezing() option {
	return withService(func(s *tenement.Service) { s.Timeouts.Freeze = time.Minute })
}

// frozen makes id ready and lets the time pass until it is frozen, or as good as that.
func (w *world) frozen(id tenement.InstanceID) *runtimetest.FakeProcess {
	w.t.Helper()
	p := w.wake(id)
	pass(time.Minute)
	w.wantState(id, tenement.Frozen)
	return p
}

// wantFrozen is about the process itself.
func (w *world) wantFrozen(p *runtimetest.FakeProcess, want bool) {
	w.t.Helper()
	if got := p.Frozen(); got != want {
		w.t.Errorf("the process is frozen: %t", got)
	}
}

func TestIdleInstanceIsFrozenThenSleeps(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.wake(alice)
		pass(time.Minute - time.Second)
		w.wantState(alice, tenement.Ready)
		pass(time.Second)
		w.wantState(alice, tenement.Frozen)
		w.wantFrozen(p, true)
		begin := time.Now()
		w.acquire(alice).Release()
		if took := time.Since(begin); took != 0 {
			t.Errorf("the request waited %s", took)
		}
		w.wantState(alice, tenement.Ready)
		w.wantFrozen(p, false)
		pass(5*time.Minute - time.Second)
		w.wantState(alice, tenement.Frozen)
		pass(time.Second)
		w.wantState(alice, tenement.Asleep)
		if exit := p.Exit(); p.Terms != 1 || exit.Failed() {
			t.Errorf("%d SIGTERM, %s", p.Terms, exit)
		}
		if w.owners() != 0 {
			t.Error("it has an owner")
		}
		w.wantStarts(alice, 1)
	}, freezing())
}

// TestReadyStartsNothing: a frozen process goes on, one that is not there stays so.
func TestReadyStartsNothing(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.frozen(alice)
		lease, ok := w.Ready(w.t.Context(), alice)
		if !ok {
			w.t.Fatal("no lease on what was frozen")
		}
		w.wantFrozen(p, false)
		w.wantState(alice, tenement.Ready)
		lease.Release()
		pass(6 * time.Minute)
		if _, ok := w.Ready(w.t.Context(), alice); ok {
			w.t.Error("a lease on what sleeps")
		}
		w.wantState(alice, tenement.Asleep)
		w.wantStarts(alice, 1)
	}, freezing())
}

func TestLeaseHoldsOffTheFreeze(t *testing.T) {
	simulate(t, func(w *world) {
		stream := w.acquire(alice)
		pass(3 * time.Minute)
		w.wantState(alice, tenement.Ready)
		stream.Release()
		pass(59 * time.Second)
		w.wantState(alice, tenement.Ready)
		pass(time.Second)
		w.wantState(alice, tenement.Frozen)
	}, freezing())
}

func TestWithoutIdleTimeoutItStaysFrozen(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.wake(alice)
		pass(30 * time.Second)
		w.acquire(alice).Release() // the timer is early
		pass(48 * time.Hour)
		w.wantState(alice, tenement.Frozen)
		w.acquire(alice).Release()
		w.wantFrozen(p, false)
		w.wantStarts(alice, 1)
	}, freezing(), withService(func(s *tenement.Service) { s.Timeouts.Idle = 0 }))
}

func TestPinnedIsNotFrozen(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.frozen(bob)
		plan := w.changed(func(*tenement.Service) {})
		plan.Pinned = []tenement.InstanceID{alice, bob}
		w.reconfigure(plan)
		pass(time.Hour)
		w.wantState(alice, tenement.Ready)
		w.wantState(bob, tenement.Ready)
		w.wantFrozen(p, false)
		w.wantStarts(bob, 1)
	}, freezing(), withConfig(func(c *Config) { c.Plan.Pinned = []tenement.InstanceID{alice} }))
}

// TestRequestCallsOffAFreeze that takes its time: the request has none to lose.
func TestRequestCallsOffAFreeze(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.frozen(alice)
		w.wantFrozen(p, false)
		begin := time.Now()
		w.acquire(alice).Release()
		if took := time.Since(begin); took != 0 {
			t.Errorf("the request waited %s", took)
		}
		w.wantState(alice, tenement.Ready)
		pass(time.Minute)
		w.wantState(alice, tenement.Frozen) // tried again
		if text := w.logged(alice); strings.Contains(text, "cannot be frozen") {
			t.Errorf("its log says %q", text)
		}
	}, freezing(), always(runtimetest.Behaviour{FreezeTime: -1}))
}

// TestRequestRacesTheFreeze: all get a lease, on what runs, and the process stays.
func TestRequestRacesTheFreeze(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		var group sync.WaitGroup
		for n := range 100 {
			group.Go(func() {
				for range 50 {
					time.Sleep(time.Minute + time.Duration(n/10)*time.Millisecond) // virtual: at the instant of the freeze, or within it
					lease := w.acquire(alice)
					if w.fake.Live(alice)[0].Frozen() {
						t.Error("a lease on what is frozen")
					}
					lease.Release()
				}
			})
		}
		group.Wait()
		w.wantStarts(alice, 1)
	}, freezing(), always(runtimetest.Behaviour{FreezeTime: 3 * time.Millisecond, ThawTime: 2 * time.Millisecond}))
}

// TestRequestWaitsOutAFreeze that cannot be called off.
func TestRequestWaitsOutAFreeze(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.frozen(alice)
		begin := time.Now()
		w.acquire(alice).Release()
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("the request waited %s", took)
		}
		w.wantFrozen(p, false)
	}, freezing(), always(runtimetest.Behaviour{FreezeTime: 2 * time.Second, ThawTime: time.Second, Stubborn: true}))
}

func TestClientThatGivesUpDoesNotHoldTheThawUp(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.frozen(alice)
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		if _, err := w.Acquire(ctx, alice); tenement.CodeOf(err) != tenement.CodeTimeout {
			t.Errorf("error %v", err)
		}
		pass(time.Second)
		w.wantFrozen(p, false)
		pass(59 * time.Second)
		w.wantState(alice, tenement.Ready)
		pass(time.Second)
		w.wantState(alice, tenement.Frozen)
	}, freezing(), always(runtimetest.Behaviour{ThawTime: 2 * time.Second}))
}

// TestEndOfWhatIsFrozen: it goes on to hear SIGTERM, however it is that it stands or is
// about to.
func TestEndOfWhatIsFrozen(t *testing.T) {
	ends := map[string]func(*world) error{
		"stop":     func(w *world) error { return w.Stop(w.t.Context(), alice) },
		"suspend":  func(w *world) error { return w.Suspend(w.t.Context(), alice) },
		"restart":  func(w *world) error { return w.Restart(w.t.Context(), alice) },
		"delete":   func(w *world) error { return w.Delete(w.t.Context(), alice, true) },
		"shutdown": func(w *world) error { w.cancel(); err := <-w.done; w.done <- nil; return err },
		"outdated": func(w *world) error {
			w.reconfigure(w.changed(func(s *tenement.Service) { s.Timeouts.Idle = time.Hour }))
			restarted, err := w.RestartOutdated(w.t.Context())
			if len(restarted) != 1 {
				w.t.Errorf("restarted %v", restarted)
			}
			return err
		},
		"removed": func(w *world) error { w.reconfigure(Plan{}); pass(time.Second); return nil },
	}
	behaviours := map[string]runtimetest.Behaviour{
		"at once": {}, "slowly": {FreezeTime: 2 * time.Second, ThawTime: time.Second}, "never": {FreezeTime: -1},
		"in any case": {FreezeTime: time.Second, Stubborn: true},
	}
	for name, end := range ends {
		for freezes, behaviour := range behaviours {
			t.Run(name+" what freezes "+freezes, func(t *testing.T) {
				simulate(t, func(w *world) {
					p := w.frozen(alice)
					begin := time.Now()
					if err := end(w); err != nil {
						t.Fatal(err)
					}
					if took := time.Since(begin); took > 2*time.Second {
						t.Errorf("took %s", took)
					}
					if p.Terms != 1 || p.Exit().Failed() {
						t.Errorf("%d SIGTERM, %s", p.Terms, p.Exit())
					}
				}, freezing(), always(behaviour))
			})
		}
	}
}

func TestWhatIsFrozenAndIgnoresTermIsKilled(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.frozen(alice)
		begin := time.Now()
		if err := w.Stop(w.t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 10*time.Second || p.Exit().Signal != "killed" {
			t.Errorf("%s after %s, want it killed after stop_timeout", p.Exit(), took)
		}
	}, freezing(), always(runtimetest.Behaviour{TermTime: -1}))
}

// TestFreezeThatFails leaves an instance that serves and sleeps in its time.
func TestFreezeThatFails(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.wake(alice)
		for range 3 {
			pass(time.Minute + time.Second)
			w.wantState(alice, tenement.Ready)
			w.acquire(alice).Release()
		}
		if text := w.logged(alice); strings.Count(text, "it cannot be frozen, and goes on: no freezer") != 1 {
			t.Errorf("its log says %q", text)
		}
		pass(5*time.Minute - time.Second)
		w.wantState(alice, tenement.Ready)
		pass(time.Second)
		w.wantState(alice, tenement.Asleep)
		w.wantStarts(alice, 1)
		if n := p.Freezes.Load(); n != 1 {
			t.Errorf("tried %d times", n)
		}
	}, freezing(), always(runtimetest.Behaviour{FreezeError: errors.New("no freezer")}))
}

// TestThawThatFails: who waits is served by the next process.
func TestThawThatFails(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.frozen(alice)
		w.refused(alice, tenement.CodeUnavailable)
		synctest.Wait()
		if p.Exit().Signal != "killed" {
			t.Errorf("exit %s", p.Exit())
		}
		w.acquire(alice).Release()
		w.wantStarts(alice, 2)
		if text := w.logged(alice); !strings.Contains(text, "it was frozen and does not go on: stuck") {
			t.Errorf("its log says %q", text)
		}
	}, freezing(), withScript(func(_ tenement.InstanceID, n int) runtimetest.Behaviour {
		if n == 1 {
			return runtimetest.Behaviour{ThawError: errors.New("stuck")}
		}
		return runtimetest.Behaviour{}
	}))
}

func TestEndWhileFrozenIsSeen(t *testing.T) {
	for name, behaviour := range map[string]runtimetest.Behaviour{"frozen": {}, "freezing": {FreezeTime: time.Hour}} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.frozen(alice).End(tenement.Exit{Status: -1, Signal: "killed", OOM: true, Known: true})
				pass(time.Second)
				w.wantState(alice, tenement.Ready)
				w.wantStarts(alice, 2)
				if st, _ := w.Observe(alice); st.Restarts != 1 || st.OOMKills != 1 {
					t.Errorf("%+v", st)
				}
				if text := w.logged(alice); strings.Contains(text, "cannot be frozen") {
					t.Errorf("its log says %q", text)
				}
			}, freezing(), always(behaviour))
		})
	}
}

func TestEndWhileThawingIsSeen(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.frozen(alice)
		served := async(func() error { return w.Start(w.t.Context(), alice) })
		pass(time.Second)
		p.End(crash)
		if err := <-served; err != nil {
			t.Error(err)
		}
		w.wantStarts(alice, 2)
	}, freezing(), always(runtimetest.Behaviour{ThawTime: time.Hour}))
}

// TestChecksPauseWhileFrozen, and one that is under way is not cut in two.
func TestChecksPauseWhileFrozen(t *testing.T) {
	var checks atomic.Int64
	slow := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if checks.Add(1) > 1 { // the first one is that of the start
			time.Sleep(2 * time.Second) // virtual
		}
	})
	simulate(t, func(w *world) {
		w.wake(alice)
		pass(61*time.Second + 500*time.Millisecond) // a check has begun at 60 s
		w.wantState(alice, tenement.Ready)          // though 61 s are over
		pass(2 * time.Second)
		w.wantState(alice, tenement.Frozen)
		before := checks.Load()
		pass(time.Minute)
		if n := checks.Load() - before; n != 0 {
			t.Errorf("%d checks of what is frozen", n)
		}
		if health, err := w.Check(w.t.Context(), alice); health != tenement.HealthUnknown || err != nil {
			t.Errorf("asked for its health: %s, %v", health, err)
		}
		lease := w.acquire(alice)
		if n := checks.Load() - before; n != 0 {
			t.Error("it is checked before it serves")
		}
		pass(13 * time.Second)
		if st, _ := w.Observe(alice); checks.Load() != before+1 || st.Health != tenement.HealthHealthy {
			t.Errorf("%d checks since, %s", checks.Load()-before, st.Health)
		}
		lease.Release()
	}, always(runtimetest.Behaviour{Handler: slow}), withService(withHealth),
		withService(func(s *tenement.Service) { s.Timeouts.Freeze = 61 * time.Second }))
}

// TestIdleConnectionsAreClosed: none is used again after the pause.
func TestIdleConnectionsAreClosed(t *testing.T) {
	var dialled atomic.Int64
	simulate(t, func(w *world) {
		for range 2 {
			for range 2 {
				lease := w.acquire(alice)
				response, err := lease.Transport().RoundTrip(request(w.t))
				if err == nil {
					_, err = io.Copy(io.Discard, response.Body)
				}
				if err != nil {
					t.Fatal(err)
				}
				lease.Release()
				pass(time.Second)
			}
			pass(time.Minute)
			w.wantState(alice, tenement.Frozen)
		}
		if n := dialled.Load(); n != 2 {
			t.Errorf("%d connections, want one before the pause and one after", n)
		}
	}, freezing(), withConfig(func(c *Config) {
		c.Transport = func(dial func(context.Context) (net.Conn, error)) tenement.Transport {
			return testTransport(func(ctx context.Context) (net.Conn, error) {
				dialled.Add(1)
				return dial(ctx)
			})
		}
	}))
}

func TestNothingIsMeasuredWhileFrozen(t *testing.T) {
	simulate(t, func(w *world) {
		w.frozen(alice)
		file := w.stores(alice, "big", 2<<20)
		pass(time.Minute)
		w.wantState(alice, tenement.Frozen)
		w.acquire(alice).Release()
		pass(storagePace)
		w.wantState(alice, tenement.Asleep)
		w.remove(file)
	}, freezing(), withQuota())
}

// TestHandOverOfWhatIsFrozen: it stays so, with the same process, until somebody asks.
func TestHandOverOfWhatIsFrozen(t *testing.T) {
	for name, behaviour := range map[string]runtimetest.Behaviour{
		"frozen": {}, "frozen in any case": {FreezeTime: time.Second, Stubborn: true}, "never frozen": {FreezeTime: -1},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				p := w.frozen(alice)
				next := w.handOver()
				if behaviour.FreezeTime >= 0 {
					next.wantState(alice, tenement.Frozen)
				}
				if next.wake(alice) != p {
					t.Error("another process")
				}
				next.wantFrozen(p, false)
				pass(2 * time.Minute)
				next.wantState(alice, tenement.Frozen)
				pass(4 * time.Minute)
				next.wantState(alice, tenement.Asleep)
				next.shutDown()
			}, freezing(), always(behaviour))
		})
	}
}

// leftFrozen is left, of a process that the daemon before has frozen.
func leftFrozen(change func(w *world, r *store.Process)) option {
	return left(runtimetest.Behaviour{}, func(w *world, r *store.Process) {
		if err := w.fake.Live(alice)[0].Freeze(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		if change != nil {
			change(w, r)
		}
	})
}

func TestWhatIsFrozenIsAdopted(t *testing.T) {
	simulate(t, func(w *world) {
		w.wantState(alice, tenement.Frozen)
		pass(time.Minute)
		w.wantState(alice, tenement.Frozen)
		p := w.wake(alice)
		w.wantFrozen(p, false)
		w.wantStarts(alice, 1)
	}, leftFrozen(nil), freezing(), withService(withHealth))
}

func TestAdoptedPinnedIsThawed(t *testing.T) {
	simulate(t, func(w *world) {
		w.wantState(alice, tenement.Ready)
		w.wantFrozen(w.fake.Live(alice)[0], false)
		w.wantStarts(alice, 1)
	}, leftFrozen(nil), freezing(), withConfig(func(c *Config) { c.Plan.Pinned = []tenement.InstanceID{alice} }))
}

// TestAdoptedFrozenIsEnded in good order, where it is to have no process.
func TestAdoptedFrozenIsEnded(t *testing.T) {
	for name, o := range map[string]option{
		"told to end": leftFrozen(func(_ *world, r *store.Process) { r.State = tenement.Stopping }),
		"no service": func(w *world, c *Config) {
			leftFrozen(nil)(w, c)
			c.Plan.Services = nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			var p *runtimetest.FakeProcess
			simulate(t, func(w *world) {
				pass(time.Second)
				if n := w.fake.LiveTotal(); n != 0 || p.Exit().Failed() || p.Terms != 1 {
					t.Errorf("%d processes, %s, %d SIGTERM", n, p.Exit(), p.Terms)
				}
			}, o, freezing(), withoutRegistration(), func(w *world, _ *Config) { p = w.fake.Live(alice)[0] })
		})
	}
}
