package supervisor

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tenement"
	"tenement/internal/runtime/runtimetest"
)

func booting(d time.Duration) option { return always(runtimetest.Behaviour{Boot: d}) }

func TestWakeStormStartsOneProcess(t *testing.T) {
	simulate(t, func(w *world) {
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() { w.acquire(alice).Release() })
		}
		group.Wait()
		w.wantStarts(alice, 1)
		w.wantState(alice, tenement.Ready)
	}, booting(3*time.Second))
}

func TestClientThatGivesUpStopsNothing(t *testing.T) {
	simulate(t, func(w *world) {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		if _, err := w.Acquire(ctx, alice); tenement.CodeOf(err) != tenement.CodeTimeout {
			t.Errorf("error %v", err)
		}
		w.wantState(alice, tenement.Starting)
		w.acquire(alice).Release()
		w.wantStarts(alice, 1)
		pass(5*time.Minute + time.Second) // no lease was left to the one who went away
		w.wantState(alice, tenement.Asleep)
	}, booting(3*time.Second))
}

func TestFailedStartReportsToAllAndLeavesNothing(t *testing.T) {
	simulate(t, func(w *world) {
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() { w.refused(alice, tenement.CodeUnavailable) })
		}
		group.Wait()
		pass(0)
		if w.owners() != 0 || w.fake.LiveTotal() != 0 {
			t.Errorf("%d owners, %d processes are left", w.owners(), w.fake.LiveTotal())
		}
		w.acquire(alice).Release()
	}, withConfig(func(c *Config) { c.MaxStarting = 1 }), withScript(func(_ tenement.InstanceID, n int) runtimetest.Behaviour {
		if n == 1 {
			return runtimetest.Behaviour{ExitAfter: time.Second, Boot: time.Minute, ExitStatus: 1}
		}
		return runtimetest.Behaviour{}
	}))
}

func TestStartErrorIsReportedWithItsHint(t *testing.T) {
	missing := &tenement.Error{Code: tenement.CodeUnavailable, Op: "start", Err: errors.New("no such file"), Hint: "install it"}
	simulate(t, func(w *world) {
		err := w.refusal(alice)
		if err.Code != tenement.CodeUnavailable || tenement.HintOf(err) != "install it" {
			t.Errorf("hint %q", tenement.HintOf(err))
		}
	}, always(runtimetest.Behaviour{StartError: missing}))
}

func TestStartupTimeout(t *testing.T) {
	simulate(t, func(w *world) {
		begin := time.Now()
		w.refused(alice, tenement.CodeUnavailable)
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("reported after %s", took)
		}
		pass(time.Minute)
		w.wantState(alice, tenement.Asleep)
		if n := w.fake.LiveTotal(); n != 0 {
			t.Errorf("%d processes are left", n)
		}
	}, booting(15*time.Second))
}

func TestSlowBootWithinStartupTimeout(t *testing.T) {
	simulate(t, func(w *world) {
		w.acquire(alice).Release()
		w.wantStarts(alice, 1)
	}, booting(15*time.Second), withService(func(s *tenement.Service) { s.Timeouts.Startup = 30 * time.Second }))
}

func TestWakeTimeoutEndsTheWaitNotTheStart(t *testing.T) {
	simulate(t, func(w *world) {
		w.refused(alice, tenement.CodeTimeout)
		w.wantState(alice, tenement.Starting)
		pass(time.Second + slowProbe)
		w.wantState(alice, tenement.Ready)
		w.wantStarts(alice, 1)
	}, booting(3*time.Second), withService(func(s *tenement.Service) { s.Timeouts.Wake = 2 * time.Second }))
}

func TestUnknownLeavesNoMemory(t *testing.T) {
	simulate(t, func(w *world) {
		for range 1000 {
			w.refused(tenement.InstanceID{Service: "api", Name: "nobody"}, tenement.CodeNotFound)
			w.refused(tenement.InstanceID{Service: "none", Name: "alice"}, tenement.CodeNotFound)
		}
		pass(0)
		if n := w.owners(); n != 0 {
			t.Errorf("%d owners", n)
		}
	})
}

func TestCreateOnRequest(t *testing.T) {
	carol := tenement.InstanceID{Service: "api", Name: "carol"}
	simulate(t, func(w *world) {
		w.acquire(carol).Release()
		if _, err := w.Store.Instance(w.t.Context(), carol); err != nil {
			t.Error(err)
		}
	}, withService(func(s *tenement.Service) { s.Create = tenement.CreateOnRequest }))
}

func TestAdmissionBoundsStarts(t *testing.T) {
	simulate(t, func(w *world) {
		var group sync.WaitGroup
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			id := tenement.InstanceID{Service: "api", Name: name}
			w.register(id)
			group.Go(func() { w.acquire(id).Release() })
		}
		group.Wait()
		if peak := w.fake.PeakStarting(); peak != 2 {
			t.Errorf("%d were starting at once, want 2", peak)
		}
	}, booting(300*time.Millisecond), withConfig(func(c *Config) { c.MaxStarting = 2 }))
}

func TestHangingStartDoesNotKeepOthersFromStarting(t *testing.T) {
	simulate(t, func(w *world) {
		hung := async(func() error { return w.Start(w.t.Context(), alice) })
		pass(time.Millisecond)
		begin := time.Now()
		w.acquire(bob).Release()
		if took := time.Since(begin); took > slotTime {
			t.Errorf("bob waited %s for alice, who hangs", took)
		}
		if err := <-hung; tenement.CodeOf(err) != tenement.CodeUnavailable {
			t.Errorf("alice: %v", err)
		}
	}, withConfig(func(c *Config) { c.MaxStarting = 1 }), withScript(func(id tenement.InstanceID, _ int) runtimetest.Behaviour {
		if id == alice {
			return runtimetest.Behaviour{Boot: time.Hour}
		}
		return runtimetest.Behaviour{}
	}))
}

func TestWaitingIsBounded(t *testing.T) {
	simulate(t, func(w *world) {
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() { w.acquire(alice).Release() })
		}
		pass(time.Second)
		w.refused(alice, tenement.CodeFull)
		group.Wait()
		w.acquire(alice).Release()
	}, booting(3*time.Second), withConfig(func(c *Config) { c.MaxWaiting = 3 }))
}

func TestAbandonedWaitersAreForgotten(t *testing.T) {
	simulate(t, func(w *world) {
		for range 200 {
			ctx, cancel := context.WithTimeout(w.t.Context(), time.Millisecond)
			if _, err := w.Acquire(ctx, alice); err == nil {
				t.Error("ready too early")
			}
			cancel()
		}
		i := w.owner(alice)
		length := make(chan int, 1)
		if err := i.send(w.t.Context(), func() { length <- len(i.own.waiters) }); err != nil {
			t.Fatal(err)
		}
		if n := <-length; n > 4 {
			t.Errorf("%d waiters are kept for 1 who waits", n)
		}
	}, booting(5*time.Second))
}

func TestAcquireOfReadyAllocatesNothing(t *testing.T) {
	w := newWorld(t, t.TempDir())
	defer w.shutDown()
	w.register(alice)
	w.acquire(alice).Release()
	allocs := testing.AllocsPerRun(100, func() {
		lease, err := w.Acquire(w.t.Context(), alice)
		if err != nil {
			t.Error(err)
			return
		}
		lease.Release()
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// offers counts the connections that a pool was offered.
type offers struct {
	tenement.Transport
	n *atomic.Int32
}

func (o offers) Offer(conn net.Conn) { o.n.Add(1); _ = conn.Close() }

// TestProbesConnectionServesWhoWaits: and nobody else, for a program that serves one
// connection at a time would wait for us.
func TestProbesConnectionServesWhoWaits(t *testing.T) {
	var n atomic.Int32
	simulate(t, func(w *world) {
		if err := w.Start(w.t.Context(), bob); err != nil {
			w.t.Fatal(err)
		}
		w.wantState(bob, tenement.Ready)
		if n.Load() != 0 {
			w.t.Error("a connection was kept that nobody waits for")
		}
		w.acquire(alice).Release()
		if n.Load() != 1 {
			w.t.Errorf("%d connections were kept for the request", n.Load())
		}
	}, booting(time.Second), withConfig(func(c *Config) {
		c.Transport = func(dial func(context.Context) (net.Conn, error)) tenement.Transport {
			return offers{testTransport(dial), &n}
		}
	}))
}
