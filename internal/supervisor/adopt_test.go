package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"tenement"
	tenruntime "tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
	"tenement/internal/store"
)

// left has a daemon find a process of alice's, as one before it recorded it and was
// then killed.
func left(b runtimetest.Behaviour, change func(w *world, r *store.Process)) option {
	return func(w *world, c *Config) {
		ctx := w.t.Context()
		w.fake.Script = func(tenement.InstanceID, int) runtimetest.Behaviour { return b }
		p, err := w.fake.Start(ctx, tenruntime.Spec{Instance: alice})
		if err != nil {
			w.t.Fatal(err)
		}
		record := store.Process{Ref: p.Ref(), State: tenement.Ready, StartedAt: time.Now(), ActiveAt: time.Now()}
		if _, err := c.Store.Register(ctx, alice, time.Now()); err != nil {
			w.t.Fatal(err)
		}
		if change != nil {
			change(w, &record)
		}
		if err := c.Store.PutProcess(ctx, alice, record); err != nil {
			w.t.Fatal(err)
		}
	}
}

// dead ends the process that is left, before anybody looks for it.
func dead(w *world) {
	p := w.fake.Live(alice)[0]
	p.End(tenement.Exit{Status: 1, Known: true})
	if err := p.Release(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

func TestAdoptedProcessServesOn(t *testing.T) {
	var swept []tenement.Ref
	simulate(t, func(w *world) {
		st, _ := w.Observe(alice)
		if p := w.wake(alice); p.Ref().PID != st.PID || st.PID == 0 {
			t.Errorf("pid %d, before a request %d", p.Ref().PID, st.PID)
		}
		w.wantStarts(alice, 1)
		if len(swept) != 1 || swept[0].PID != st.PID {
			t.Errorf("to be spared by the sweep: %v", swept)
		}
		w.wantState(bob, tenement.Asleep)
	}, left(runtimetest.Behaviour{}, nil), withConfig(func(c *Config) {
		c.Sweep = func(_ context.Context, adopted []tenement.Ref) { swept = adopted }
	}))
}

// TestAllAreKnownAtOnce: nobody is told, by a daemon that serves, that what it has
// adopted sleeps.
func TestAllAreKnownAtOnce(t *testing.T) {
	const many = 100
	simulate(t, func(w *world) {
		if n := len(w.Awake()); n != many {
			t.Errorf("%d processes are known, %d were adopted", n, many)
		}
	}, withoutRegistration(), func(w *world, c *Config) {
		for n := range many {
			id := tenement.InstanceID{Service: "api", Name: fmt.Sprint("c", n)}
			p, err := w.fake.Start(w.t.Context(), tenruntime.Spec{Instance: id})
			if err == nil {
				_, err = c.Store.Register(w.t.Context(), id, time.Now())
			}
			if err == nil {
				err = c.Store.PutProcess(w.t.Context(), id, store.Process{Ref: p.Ref(), State: tenement.Ready, StartedAt: time.Now(), ActiveAt: time.Now()})
			}
			if err != nil {
				w.t.Fatal(err)
			}
		}
	})
}

func TestPinnedProcessIsAdopted(t *testing.T) {
	simulate(t, func(w *world) {
		w.wantState(alice, tenement.Ready)
		pass(time.Hour)
		w.wantState(alice, tenement.Ready)
		w.wantStarts(alice, 1)
	}, left(runtimetest.Behaviour{}, nil), withConfig(func(c *Config) { c.Plan.Pinned = []tenement.InstanceID{alice} }))
}

func TestIdleClockGoesOn(t *testing.T) {
	simulate(t, func(w *world) {
		w.wantState(alice, tenement.Ready)
		pass(59 * time.Second)
		w.wantState(alice, tenement.Ready)
		pass(2*time.Second + activityPace)
		w.wantState(alice, tenement.Asleep)
	}, left(runtimetest.Behaviour{}, func(_ *world, r *store.Process) { r.ActiveAt = time.Now().Add(-4 * time.Minute) }))
}

func TestActivityIsWrittenDown(t *testing.T) {
	simulate(t, func(w *world) {
		activeAt := func() time.Time {
			records, err := w.Store.Processes(w.t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return records[alice].ActiveAt
		}
		w.wake(alice)
		pass(time.Minute)
		if idle := time.Since(activeAt()); idle < 55*time.Second {
			t.Errorf("idle for %v, want a minute", idle)
		}
		lease := w.acquire(alice)
		pass(time.Minute)
		if idle := time.Since(activeAt()); idle > activityPace {
			t.Errorf("idle for %v while somebody holds a lease", idle)
		}
		lease.Release()
	})
}

func TestStartGoesOn(t *testing.T) {
	simulate(t, func(w *world) {
		w.wantState(alice, tenement.Starting)
		pass(5*time.Second + slowProbe)
		w.wantState(alice, tenement.Ready)
		w.wantStarts(alice, 1)
	}, left(runtimetest.Behaviour{Boot: 5 * time.Second}, func(_ *world, r *store.Process) { r.State = tenement.Starting }))
}

func TestStartTimeGoesOn(t *testing.T) {
	simulate(t, func(w *world) {
		pass(3 * time.Second)
		w.wantState(alice, tenement.Asleep)
		if st, err := w.Store.Instance(w.t.Context(), alice); err != nil || len(st.Failure.Crashes) != 1 {
			t.Errorf("failure %+v, %v", st.Failure, err)
		}
	}, left(runtimetest.Behaviour{Boot: time.Hour}, func(_ *world, r *store.Process) {
		r.State, r.StartedAt = tenement.Starting, time.Now().Add(-8*time.Second)
	}))
}

func TestStopGoesOn(t *testing.T) {
	simulate(t, func(w *world) {
		pass(time.Second)
		w.wantState(alice, tenement.Asleep)
		w.wantNoFailure(alice)
	}, left(runtimetest.Behaviour{}, func(_ *world, r *store.Process) { r.State = tenement.Stopping }))
}

func TestSuspendedProcessIsEnded(t *testing.T) {
	simulate(t, func(w *world) {
		pass(time.Second)
		w.wantState(alice, tenement.Suspended)
		if n := w.fake.LiveTotal(); n != 0 {
			t.Errorf("%d processes", n)
		}
	}, left(runtimetest.Behaviour{}, nil), func(w *world, c *Config) {
		if err := c.Store.SetSuspended(w.t.Context(), alice, true); err != nil {
			w.t.Fatal(err)
		}
	})
}

func TestProcessOfWhatWasDeletedIsEnded(t *testing.T) {
	simulate(t, func(w *world) {
		pass(time.Second)
		w.wantState(alice, tenement.Asleep) // simulate has registered it anew
		w.wantStarts(alice, 1)
		if n := w.fake.LiveTotal(); n != 0 {
			t.Errorf("%d processes", n)
		}
	}, left(runtimetest.Behaviour{}, nil), func(w *world, c *Config) {
		if err := c.Store.Delete(w.t.Context(), alice); err != nil {
			w.t.Fatal(err)
		}
	})
}

func TestProcessOfARemovedServiceIsEnded(t *testing.T) {
	for name, b := range map[string]runtimetest.Behaviour{"in good order": {}, "by force": {TermTime: -1}} {
		t.Run(name, func(t *testing.T) {
			var p *runtimetest.FakeProcess
			simulate(t, func(w *world) {
				pass(orphanStop + time.Second)
				if n := w.fake.LiveTotal(); n != 0 || p.Terms != 1 {
					t.Errorf("%d processes are left, SIGTERM was sent %d times", n, p.Terms)
				}
				if records, err := w.Store.Processes(w.t.Context()); err != nil || len(records) != 0 {
					t.Errorf("on record: %v, %v", records, err)
				}
			}, left(b, func(w *world, _ *store.Process) { p = w.fake.Live(alice)[0] }), withoutRegistration(), withConfig(func(c *Config) { c.Plan.Services = nil }))
		})
	}
}

func TestUnseenEndIsACrash(t *testing.T) {
	simulate(t, func(w *world) {
		pass(bootTime)
		w.wantState(alice, tenement.Ready)
		w.wantStarts(alice, 2)
		if st, _ := w.Observe(alice); st.Restarts != 1 {
			t.Errorf("%d restarts", st.Restarts)
		}
	}, left(runtimetest.Behaviour{}, func(w *world, _ *store.Process) { dead(w) }))
}

func TestUnseenEndOfAStart(t *testing.T) {
	simulate(t, func(w *world) {
		w.wantState(alice, tenement.Asleep)
		w.wantStarts(alice, 1)
		row, err := w.Store.Instance(w.t.Context(), alice)
		if err != nil || len(row.Failure.Crashes) != 1 {
			t.Errorf("failure %+v, %v", row.Failure, err)
		}
	}, left(runtimetest.Behaviour{}, func(w *world, r *store.Process) {
		r.State = tenement.Starting
		dead(w)
	}))
}

func TestRestartOfTheMachineIsNoCrash(t *testing.T) {
	simulate(t, func(w *world) {
		w.wantState(alice, tenement.Asleep)
		w.wantStarts(alice, 1)
		w.wantNoFailure(alice)
	}, left(runtimetest.Behaviour{}, func(w *world, r *store.Process) {
		r.Ref.BootID = "another"
		dead(w)
	}))
}

func (w *world) wantNoFailure(id tenement.InstanceID) {
	w.t.Helper()
	if row, err := w.Store.Instance(w.t.Context(), id); err != nil || len(row.Failure.Crashes) > 0 {
		w.t.Errorf("failure %+v, %v", row.Failure, err)
	}
}

func TestHealthAccountGoesOn(t *testing.T) {
	sick := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	simulate(t, func(w *world) {
		pass(time.Second) // the third failure in a row ends it
		w.wantStarts(alice, 2)
	}, left(runtimetest.Behaviour{Handler: sick}, func(_ *world, r *store.Process) { r.HealthFailures = unhealthyAfter - 1 }),
		withService(func(s *tenement.Service) { s.Health.Path = "/health" }))
}

func TestFailedChecksAreWrittenDown(t *testing.T) {
	var sick atomic.Bool
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	simulate(t, func(w *world) {
		failures := func() int {
			records, err := w.Store.Processes(w.t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return records[alice].HealthFailures
		}
		w.wake(alice)
		sick.Store(true)
		pass(time.Second)
		w.acquire(alice).Release()
		pass(10 * time.Second)
		if n := failures(); n != 1 {
			t.Errorf("%d failures on record, want 1", n)
		}
		sick.Store(false)
		pass(10 * time.Second)
		if n := failures(); n != 0 {
			t.Errorf("%d failures on record after a good check", n)
		}
	}, always(runtimetest.Behaviour{Handler: handler}),
		withService(func(s *tenement.Service) { s.Health.Path = "/health" }))
}

// TestHandOver: everything passes to the next supervisor, and who waits is told so.
func TestHandOver(t *testing.T) {
	simulate(t, func(w *world) {
		held := w.acquire(alice)
		pid := w.fake.Live(alice)[0].Ref().PID
		starting := async(func() error { _, err := w.Acquire(w.t.Context(), bob); return err })
		pass(time.Second)
		next := w.handOver()
		if err := <-starting; !errors.Is(err, ErrMoved) {
			t.Errorf("who waited was told %v", err)
		}
		if _, err := w.Acquire(w.t.Context(), alice); !errors.Is(err, ErrMoved) {
			t.Errorf("who asks the first one is told %v", err)
		}
		if p := next.wake(alice); p.Ref().PID != pid {
			t.Errorf("pid %d, was %d", p.Ref().PID, pid)
		}
		response, err := held.Transport().RoundTrip(request(w.t))
		if err != nil || response.Body.Close() != nil {
			t.Errorf("a lease of the first one: %v", err)
		}
		held.Release()
		lease := next.acquire(bob)
		next.wantStarts(bob, 1)
		lease.Release()
		next.shutDown()
	}, withScript(func(id tenement.InstanceID, _ int) runtimetest.Behaviour {
		if id == bob {
			return runtimetest.Behaviour{Boot: 5 * time.Second}
		}
		return runtimetest.Behaviour{}
	}))
}

func request(t *testing.T) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://alice/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
