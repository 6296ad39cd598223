package supervisor

import (
	"slices"
	"testing"
	"time"

	"tenement"
	"tenement/internal/runtime/runtimetest"
)

// changed is w's plan with another recipe for its one service.
func (w *world) changed(change func(*tenement.Service)) Plan {
	service := *w.service
	change(&service)
	return Plan{Services: map[string]*tenement.Service{"api": &service}}
}

func (w *world) reconfigure(p Plan) {
	w.t.Helper()
	if err := w.Reconfigure(w.t.Context(), p); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) wantOutdated(want ...tenement.InstanceID) {
	w.t.Helper()
	if got := w.Outdated(); !slices.Equal(got, want) {
		w.t.Errorf("outdated are %v, want %v", got, want)
	}
}

func TestChangedServiceIsForTheNextStart(t *testing.T) {
	simulate(t, func(w *world) {
		first := w.wake(alice)
		w.reconfigure(w.changed(func(s *tenement.Service) { s.Timeouts.Idle = time.Hour }))
		w.wantOutdated(alice)
		if w.wake(alice) != first {
			t.Error("it was restarted")
		}
		pass(5*time.Minute + time.Second)
		w.wantState(alice, tenement.Asleep)
		w.wantOutdated()
		w.wake(alice)
		pass(59 * time.Minute)
		w.wantState(alice, tenement.Ready)
	})
}

func TestSamePlanOutdatesNothing(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		w.reconfigure(w.changed(func(*tenement.Service) {}))
		w.wantOutdated()
	})
}

func TestRemovedServiceIsPutToSleep(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		w.reconfigure(Plan{})
		pass(time.Second)
		w.wantState(alice, tenement.Asleep)
		w.refused(alice, tenement.CodeNotFound)
		w.reconfigure(w.changed(func(*tenement.Service) {}))
		w.wake(alice)
	})
}

func TestPinsFollowThePlan(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(bob)
		pinned := w.changed(func(*tenement.Service) {})
		pinned.Pinned = []tenement.InstanceID{alice, bob}
		w.reconfigure(pinned)
		pass(time.Hour)
		w.wantState(alice, tenement.Ready)
		w.wantState(bob, tenement.Ready)
		w.reconfigure(w.changed(func(*tenement.Service) {}))
		pass(time.Second)
		w.wantState(alice, tenement.Asleep)
		w.wantState(bob, tenement.Asleep)
	})
}

func TestOutdatedAreRestartedOneAtATime(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		w.wake(bob)
		w.reconfigure(w.changed(func(s *tenement.Service) { s.Timeouts.Idle = time.Hour }))
		done := async(func() error { _, err := w.RestartOutdated(w.t.Context()); return err })
		pass(time.Second)
		w.wantState(alice, tenement.Starting)
		w.wantState(bob, tenement.Ready)
		w.wantStarts(bob, 1)
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.wantStarts(alice, 2)
		w.wantStarts(bob, 2)
		w.wantOutdated()
	}, slowRestart(tenement.InstanceID{}))
}

// slowRestart makes every second start take a while, and that of broken fail.
func slowRestart(broken tenement.InstanceID) option {
	return withScript(func(id tenement.InstanceID, n int) runtimetest.Behaviour {
		switch {
		case n == 1:
			return runtimetest.Behaviour{}
		case id == broken:
			return runtimetest.Behaviour{Boot: time.Hour}
		}
		return runtimetest.Behaviour{Boot: 5 * time.Second}
	})
}

func TestRestartsEndAtTheFirstFailure(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		w.wake(bob)
		w.reconfigure(w.changed(func(s *tenement.Service) { s.Timeouts.Idle = time.Hour }))
		restarted, err := w.RestartOutdated(w.t.Context())
		if tenement.CodeOf(err) != tenement.CodeUnavailable || len(restarted) != 0 {
			t.Errorf("restarted %v, error %v", restarted, err)
		}
		w.wantStarts(bob, 1)
		w.wantState(bob, tenement.Ready)
	}, slowRestart(alice))
}
