package supervisor

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tenement"
	"tenement/internal/runtime/runtimetest"
)

// TestRandomTriggers sends requests, operators and crashes at instances whose
// processes misbehave at random, and wants the invariants to hold at every step and
// nothing to be left at the end. A failing seed is in the test's name: run it alone
// to see it again.
func TestRandomTriggers(t *testing.T) {
	for seed := range uint64(8) {
		t.Run("seed "+string(rune('a'+seed)), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			var mu sync.Mutex // Script is called by the owners
			script := func(tenement.InstanceID, int) runtimetest.Behaviour {
				mu.Lock()
				defer mu.Unlock()
				return randomBehaviour(random)
			}
			available := func() (tenement.Bytes, error) {
				mu.Lock()
				defer mu.Unlock()
				return tenement.Bytes(random.IntN(4)), nil
			}
			actions := rand.New(rand.NewPCG(seed, 2))
			simulate(t, func(w *world) {
				var group sync.WaitGroup
				for range 200 {
					w.act(actions, &group)
					time.Sleep(time.Duration(actions.Int64N(int64(2 * time.Second)))) // virtual
					synctest.Wait()
					w.invariants()
				}
				group.Wait()
			}, withScript(script), withService(func(s *tenement.Service) {
				s.Timeouts.Freeze = time.Second
				s.Timeouts.Idle = 3 * time.Second
				s.Timeouts.Drain = time.Second
				s.Timeouts.Stop = 2 * time.Second
				s.Timeouts.Startup = 2 * time.Second
				s.Timeouts.Wake = 5 * time.Second
			}), withConfig(func(c *Config) {
				c.Plan.MaxAwake = int(seed % 3) // 0 = no bound, and two instances need two places
				c.Plan.MemoryReserve = tenement.Bytes(seed % 2)
				c.Memory.Available = available
			}))
		})
	}
}

func randomBehaviour(r *rand.Rand) runtimetest.Behaviour {
	b := runtimetest.Behaviour{Boot: time.Duration(r.Int64N(int64(time.Second)))}
	switch r.IntN(12) {
	case 0:
		b.StartError = &tenement.Error{Code: tenement.CodeUnavailable, Op: "start"}
	case 1:
		b.Boot = time.Hour
	case 2:
		b.ExitAfter = time.Duration(1 + r.Int64N(int64(5*time.Second)))
		b.ExitStatus = r.IntN(2)
	case 3:
		b.TermTime = -1
	case 4:
		b.Release = time.Duration(r.Int64N(int64(3 * time.Second)))
	case 5:
		b.FreezeTime, b.Stubborn = time.Duration(r.Int64N(int64(3*time.Second))), r.IntN(2) == 0
	case 6:
		b.ThawTime = time.Duration(r.Int64N(int64(time.Second)))
	case 7:
		b.FreezeError = errors.New("does not freeze")
	case 8:
		b.ThawError = errors.New("does not thaw")
	}
	return b
}

// act does one thing to alice or bob without waiting for its outcome.
func (w *world) act(r *rand.Rand, group *sync.WaitGroup) {
	id := []tenement.InstanceID{alice, bob}[r.IntN(2)]
	patience := time.Duration(r.Int64N(int64(8 * time.Second)))
	hold := time.Duration(r.Int64N(int64(4 * time.Second)))
	what := r.IntN(16)
	group.Go(func() {
		ctx, cancel := context.WithTimeout(w.t.Context(), patience)
		defer cancel()
		switch what {
		case 0:
			_ = w.Stop(ctx, id)
		case 1:
			_ = w.Restart(ctx, id)
		case 2:
			_ = w.Suspend(ctx, id)
		case 3, 4:
			_ = w.Resume(ctx, id)
		case 5:
			_ = w.Delete(ctx, id, hold > time.Second)
		case 6, 7:
			_, _ = w.Register(ctx, id)
		case 8:
			for _, p := range w.fake.Live(id) {
				p.End(crash)
			}
		case 9:
			w.evict("chance")
		default:
			w.visit(ctx, id, hold)
		}
	})
}

// visit is a request that takes hold, or as long as its process lives.
func (w *world) visit(ctx context.Context, id tenement.InstanceID, hold time.Duration) {
	lease, err := w.Acquire(ctx, id)
	if err != nil {
		return
	}
	defer lease.Release()
	select {
	case <-time.After(hold):
	case <-lease.Gone():
	}
}
