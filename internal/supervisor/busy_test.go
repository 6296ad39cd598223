package supervisor

import (
	"testing"
	"testing/synctest"
	"time"

	"tenement"
	"tenement/internal/runtime/runtimetest"
)

// busyFor has alice say that she works for so long.
func (w *world) busyFor(d time.Duration) {
	w.t.Helper()
	if err := w.SetBusy(w.t.Context(), alice, time.Now().Add(d)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) wantBusy(want time.Duration) {
	w.t.Helper()
	st, _ := w.Observe(alice)
	if got := time.Until(st.BusyUntil); want > 0 && got != want || want == 0 && !st.BusyUntil.IsZero() || st.Leases != 0 {
		w.t.Errorf("busy for %v, with %d leases; want %v and none", got, st.Leases, want)
	}
}

// TestBusyHoldsOffSleep, and the time without traffic begins when it ends.
func TestBusyHoldsOffSleep(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		pass(4 * time.Minute)
		w.busyFor(30 * time.Minute)
		w.wantBusy(30 * time.Minute)
		pass(30*time.Minute - time.Second)
		w.wantState(alice, tenement.Ready)
		pass(5 * time.Minute) // since a second: it is over
		w.wantState(alice, tenement.Ready)
		w.wantBusy(0)
		pass(2 * time.Second)
		w.wantState(alice, tenement.Asleep)
	})
}

func TestBusyIsSaidAnew(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		w.busyFor(time.Hour)
		w.busyFor(10 * time.Minute)
		pass(9 * time.Minute)
		w.busyFor(20 * time.Minute)
		pass(19 * time.Minute)
		w.wantState(alice, tenement.Ready)
		w.busyFor(0)
		w.wantBusy(0)
		pass(5*time.Minute - time.Second)
		w.wantState(alice, tenement.Ready)
		pass(time.Second)
		w.wantState(alice, tenement.Asleep)
	})
}

func TestBusyHoldsOffFreezing(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.wake(alice)
		w.busyFor(time.Minute)
		pass(time.Minute - time.Millisecond)
		if p.Frozen() {
			t.Error("it is frozen")
		}
		pass(11 * time.Second)
		w.wantState(alice, tenement.Frozen)
		w.busyFor(time.Minute) // as if it had said so in the instant before
		w.wantState(alice, tenement.Ready)
		if p.Frozen() {
			t.Error("it is frozen though busy")
		}
	}, withService(func(s *tenement.Service) { s.Timeouts.Freeze = 10 * time.Second }))
}

// TestBusyEndsWithItsProcess: nobody waits for it, and the next process starts without.
func TestBusyEndsWithItsProcess(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		w.busyFor(time.Hour)
		begun := time.Now()
		if err := w.Stop(w.t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took >= 10*time.Second {
			t.Errorf("the stop took %v, as if a request were under way", took)
		}
		w.wake(alice)
		w.wantBusy(0)
		w.busyFor(time.Hour)
		w.fake.Live(alice)[0].End(tenement.Exit{Status: 1, Known: true})
		synctest.Wait()
		w.wake(alice)
		w.wantBusy(0)
		pass(5*time.Minute + time.Second)
		w.wantState(alice, tenement.Asleep)
	})
}

func TestBusyWhileItStarts(t *testing.T) {
	simulate(t, func(w *world) {
		lease := async(func() tenement.Lease { return w.acquire(alice) })
		pass(time.Second)
		w.busyFor(time.Hour)
		pass(2 * time.Second)
		(<-lease).Release()
		pass(50 * time.Minute)
		w.wantState(alice, tenement.Ready)
	}, always(runtimetest.Behaviour{Boot: 2 * time.Second}))
}

func TestBusyIsRefused(t *testing.T) {
	simulate(t, func(w *world) {
		refused := func(until time.Duration, want tenement.Code) {
			t.Helper()
			if err := w.SetBusy(w.t.Context(), alice, time.Now().Add(until)); tenement.CodeOf(err) != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
		refused(time.Minute, tenement.CodeConflict) // asleep
		w.wake(alice)
		refused(MaxBusy+time.Second, tenement.CodeInvalid)
	})
}

// TestBusyIsNotEvicted: it is in use, and what is in use makes no room for others.
func TestBusyIsNotEvicted(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		w.busyFor(time.Minute)
		w.refused(bob, tenement.CodeFull)
		pass(time.Minute)
		w.wake(bob)
	}, withConfig(func(c *Config) { c.Plan.MaxAwake = 1 }))
}

// TestBusyIsHandedOver: the next daemon holds it off as long, and this one waits for nothing.
func TestBusyIsHandedOver(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		w.busyFor(time.Hour)
		pass(10 * time.Minute)
		next := w.handOver()
		if n := w.moved[alice].gate.count(); n != 0 {
			t.Errorf("%d leases are waited for", n)
		}
		next.wantBusy(50 * time.Minute)
		pass(50 * time.Minute)
		next.wantState(alice, tenement.Ready)
		pass(5 * time.Minute)
		next.wantState(alice, tenement.Asleep)
		next.shutDown()
	})
}
