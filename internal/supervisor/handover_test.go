package supervisor

import (
	"context"
	"errors"
	"testing"
	"time"

	"tenement"
)

// TestStopPassesOver: it is not carried out, and who asked for it is told so.
func TestStopPassesOver(t *testing.T) {
	simulate(t, func(w *world) {
		held := w.acquire(alice)
		stopping := async(func() error { return w.Stop(w.t.Context(), alice) })
		pass(time.Second)
		w.wantState(alice, tenement.Draining)
		next := w.handOver()
		if err := <-stopping; !errors.Is(err, ErrMoved) {
			t.Errorf("who stops it was told %v", err)
		}
		next.wantState(alice, tenement.Ready)
		next.wantStarts(alice, 1)
		held.Release()
		next.shutDown()
	})
}

// TestHeldOwner: who has found an owner and not spoken to it yet is told so, too.
func TestHeldOwner(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		i, err := w.summon(alice)
		if err != nil {
			t.Fatal(err)
		}
		next := w.handOver()
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		if err := i.send(ctx, func() {}); !errors.Is(err, ErrMoved) {
			t.Errorf("error %v", err)
		}
		i.dismiss()
		next.shutDown()
	})
}

// TestEndAfterHandOver: the old supervisor sees nothing out that the new one has.
func TestEndAfterHandOver(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		next := w.handOver()
		p := next.fake.Live(alice)[0]
		p.End(tenement.Exit{Status: 1, Known: true})
		pass(2 * time.Second)
		if detached, released := p.Detached.Load(), p.Released.Load(); detached != 1 || released != 1 {
			t.Errorf("detached %d times, released %d times", detached, released)
		}
		next.wake(alice)
		next.wantStarts(alice, 2)
		next.shutDown()
	})
}

// TestHeldByTheOld: what somebody holds at the old supervisor is in use at the new one,
// until drain_timeout if the old one is to end, or else for as long as it is held.
func TestHeldByTheOld(t *testing.T) {
	idle := withService(func(s *tenement.Service) { s.Timeouts.Idle = time.Second })
	for name, wait := range map[string]func(*Supervisor, context.Context, Hold){
		"drain": (*Supervisor).Drain, "keep": (*Supervisor).KeepHeld,
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				held := w.acquire(alice)
				w.wake(bob)
				next := w.handOver()
				done := async(func() error {
					wait(w.Supervisor, w.t.Context(), func(_ context.Context, id tenement.InstanceID, pid int) (tenement.Lease, error) {
						return next.Hold(id, pid)
					})
					return nil
				})
				pass(8 * time.Second)
				next.wantState(alice, tenement.Ready)
				next.wantState(bob, tenement.Asleep)
				pass(4 * time.Second)
				kept := tenement.Asleep
				if name == "keep" {
					kept = tenement.Ready
				}
				next.wantState(alice, kept)
				held.Release()
				if err := <-done; err != nil {
					t.Error(err)
				}
				pass(2 * time.Second)
				next.wantState(alice, tenement.Asleep)
				next.shutDown()
			}, idle)
		})
	}
}

// TestHeldUntilItsEnd: nobody waits for those who hold what has ended.
func TestHeldUntilItsEnd(t *testing.T) {
	simulate(t, func(w *world) {
		held := w.acquire(alice)
		next := w.handOver()
		next.fake.Live(alice)[0].End(tenement.Exit{Status: 1, Known: true})
		w.KeepHeld(w.t.Context(), func(context.Context, tenement.InstanceID, int) (tenement.Lease, error) {
			return nil, errors.New("gone")
		})
		held.Release()
		next.shutDown()
	})
}

// TestRestartedByAnother: two who restart what is outdated restart it once.
func TestRestartedByAnother(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		w.wake(bob)
		w.reconfigure(w.changed(func(s *tenement.Service) { s.Timeouts.Idle = time.Hour }))
		restart := func() error { _, err := w.RestartOutdated(w.t.Context()); return err }
		first := async(restart)
		pass(time.Second) // alice is starting; bob's turn is next
		second := async(restart)
		for _, done := range []<-chan error{first, second} {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		w.wantStarts(bob, 2)
	}, slowRestart(tenement.InstanceID{}))
}
