package supervisor

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"tenement"
	"tenement/internal/runtime/runtimetest"
)

func TestIdleInstanceSleepsAndCostsNothing(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		pass(5*time.Minute - time.Second)
		w.wantState(alice, tenement.Ready)
		pass(2 * time.Second)
		w.wantState(alice, tenement.Asleep)
		if w.owners() != 0 || w.fake.LiveTotal() != 0 {
			t.Errorf("%d owners, %d processes", w.owners(), w.fake.LiveTotal())
		}
		w.wake(alice)
		w.wantStarts(alice, 2)
	})
}

func TestTrafficHoldsOffSleep(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		for range 10 {
			pass(4 * time.Minute)
			w.acquire(alice).Release()
		}
		w.wantStarts(alice, 1)
		pass(5*time.Minute + time.Millisecond)
		w.wantState(alice, tenement.Asleep)
	})
}

func TestOpenLeaseIsActivityUntilItEnds(t *testing.T) {
	simulate(t, func(w *world) {
		stream := w.acquire(alice)
		pass(15 * time.Minute)
		w.wantState(alice, tenement.Ready)
		stream.Release()
		pass(5*time.Minute - time.Second)
		w.wantState(alice, tenement.Ready)
		pass(2 * time.Second)
		w.wantState(alice, tenement.Asleep)
	})
}

func TestIdleTimeoutZeroNeverSleeps(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		pass(48 * time.Hour)
		w.wantState(alice, tenement.Ready)
	}, withService(func(s *tenement.Service) { s.Timeouts.Idle = 0 }))
}

func TestPinnedStartsByItselfAndNeverSleeps(t *testing.T) {
	simulate(t, func(w *world) {
		pass(time.Second)
		w.wantState(alice, tenement.Ready)
		w.wantState(bob, tenement.Asleep)
		pass(time.Hour)
		w.wantState(alice, tenement.Ready)
		w.wantStarts(alice, 1)
	}, withConfig(func(c *Config) { c.Plan.Pinned = []tenement.InstanceID{alice} }))
}

func TestRequestDuringStopWaitsAndWakes(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		stopped := async(func() error { return w.Stop(w.t.Context(), alice) })
		pass(time.Second)
		w.wantState(alice, tenement.Stopping)
		w.acquire(alice).Release()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		w.wantStarts(alice, 2)
	}, always(runtimetest.Behaviour{TermTime: 3 * time.Second}))
}

func TestRequestCallsBackWhatGoesToSleep(t *testing.T) {
	// The request reaches the owner between the decision to sleep and SIGTERM.
	simulate(t, func(w *world) {
		p := w.wake(alice)
		i := w.owner(alice)
		verdict := make(chan bool, 1)
		err := i.send(w.t.Context(), func() {
			if !i.own.life.gate.closeIfIdle() {
				t.Error("not idle")
			}
			i.own.goal = tenement.GoalIdle
			i.step(tenement.Sleep)
			wt := &waiter{answer: make(chan answer, 1), asker: tenement.AskerOf(w.t.Context())}
			i.join(wt)
			a := <-wt.answer
			verdict <- a.err == nil
			if a.life != nil {
				a.life.Release()
			}
		})
		if err != nil || !<-verdict {
			t.Fatalf("not served: %v", err)
		}
		w.wantState(alice, tenement.Ready)
		pass(time.Minute)
		if p.Terms != 0 {
			t.Error("it was told to end all the same")
		}
		w.wantStarts(alice, 1)
	})
}

func TestStopDrainsFirst(t *testing.T) {
	simulate(t, func(w *world) {
		lease := w.acquire(alice)
		stopped := async(func() error { return w.Stop(w.t.Context(), alice) })
		pass(9 * time.Second)
		w.wantState(alice, tenement.Draining)
		lease.Release()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		w.wantState(alice, tenement.Asleep)
	})
}

func TestDrainIsBounded(t *testing.T) {
	simulate(t, func(w *world) {
		lease := w.acquire(alice)
		begin := time.Now()
		if err := w.Stop(w.t.Context(), alice); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("took %s, want drain_timeout", took)
		}
		lease.Release()
	})
}

func TestWhatIgnoresTermIsKilled(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.wake(alice)
		begin := time.Now()
		if err := w.Stop(w.t.Context(), alice); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 10*time.Second || p.Terms != 1 {
			t.Errorf("took %s with %d SIGTERM, want stop_timeout and 1", took, p.Terms)
		}
		if p.Exit().Signal != "killed" {
			t.Errorf("exit %s", p.Exit())
		}
	}, always(runtimetest.Behaviour{TermTime: -1}))
}

func TestRestOfTheTreeHasWhatIsLeftOfStopTimeout(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		begin := time.Now()
		if err := w.Stop(w.t.Context(), alice); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("took %s", took)
		}
	}, always(runtimetest.Behaviour{TermTime: 2 * time.Second, Release: time.Hour}))
}

func TestSuspendAndResume(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		if err := w.Suspend(w.t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		w.wantState(alice, tenement.Suspended)
		w.refused(alice, tenement.CodeSuspended)
		if err := w.Restart(w.t.Context(), alice); tenement.CodeOf(err) != tenement.CodeSuspended {
			t.Errorf("restart: %v", err)
		}
		if err := w.Suspend(w.t.Context(), alice); err != nil {
			t.Errorf("again: %v", err)
		}
		if err := w.Resume(w.t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		w.wantState(alice, tenement.Asleep)
		w.wake(alice)
		w.wantStarts(alice, 2)
	})
}

func TestSuspendReleasesThoseWhoWait(t *testing.T) {
	simulate(t, func(w *world) {
		waiting := async(func() error { return w.Start(w.t.Context(), alice) })
		pass(time.Second)
		suspended := async(func() error { return w.Suspend(w.t.Context(), alice) })
		begin := time.Now()
		if err := <-waiting; tenement.CodeOf(err) != tenement.CodeSuspended || time.Since(begin) != 0 {
			t.Errorf("error %v after %s, want it at once", err, time.Since(begin))
		}
		if err := <-suspended; err != nil {
			t.Error(err)
		}
		w.wantState(alice, tenement.Suspended)
	}, always(runtimetest.Behaviour{Boot: 5 * time.Second, TermTime: 3 * time.Second}))
}

func TestRestart(t *testing.T) {
	simulate(t, func(w *world) {
		first := w.wake(alice)
		if err := w.Restart(w.t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		w.wantStarts(alice, 2)
		if first.Terms != 1 {
			t.Errorf("%d SIGTERM", first.Terms)
		}
		if err := w.Restart(w.t.Context(), bob); err != nil {
			t.Fatal(err)
		}
		w.wantState(bob, tenement.Ready)
	}, always(runtimetest.Behaviour{TermTime: time.Second}))
}

func TestDelete(t *testing.T) {
	for _, purge := range []bool{false, true} {
		t.Run(map[bool]string{false: "keeps data", true: "purges"}[purge], func(t *testing.T) {
			simulate(t, func(w *world) {
				w.wake(alice)
				file := filepath.Join(w.dir, "api", "alice", "app.db")
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := w.Delete(w.t.Context(), alice, purge); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(file); (err != nil) != purge {
					t.Errorf("after delete: %v", err)
				}
				w.refused(alice, tenement.CodeNotFound)
				if err := w.Delete(w.t.Context(), alice, purge); tenement.CodeOf(err) != tenement.CodeNotFound {
					t.Errorf("again: %v", err)
				}
				w.register(alice)
				w.wake(alice)
			})
		})
	}
}

func TestStorageThatIsNotKept(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		file := filepath.Join(w.dir, "api", "alice", "app.db")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		pass(6 * time.Minute)
		if _, err := os.Stat(file); err == nil {
			t.Error("the file outlives the sleep")
		}
		w.wake(alice)
	}, withService(func(s *tenement.Service) { s.Persist = false }))
}

func TestShutdownStopsAllAtOnce(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		w.wake(bob)
		begin := time.Now()
		w.cancel()
		if err := <-w.done; err != nil {
			t.Error(err)
		}
		w.done <- nil
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("took %s, want that of one", took)
		}
		w.refused(alice, tenement.CodeUnavailable)
	}, always(runtimetest.Behaviour{TermTime: 3 * time.Second}))
}
