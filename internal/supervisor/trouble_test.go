package supervisor

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tenement"
)

// troubles is what an observer was told that an operator may have to see to.
type troubles struct {
	mu   sync.Mutex
	list []string
}

func (o *troubles) option() option {
	return withConfig(func(c *Config) {
		c.Observer.Troubled = func(id tenement.InstanceID, what tenement.AlertKind, text string) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.list = append(o.list, id.Name+" "+string(what)+": "+text)
		}
	})
}

// wants the first of what was told to begin like these, and to be all.
func (o *troubles) wants(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) != len(want) {
		t.Fatalf("told %q, want %q", o.list, want)
	}
	for i, w := range want {
		if !strings.HasPrefix(o.list[i], w) {
			t.Errorf("told %q, want %q", o.list[i], w)
		}
	}
}

// TestTroubleOfCrashes: the second crash within the window is a loop, once, and the last
// that the budget allows is the failure.
func TestTroubleOfCrashes(t *testing.T) {
	o := &troubles{}
	simulate(t, func(w *world) {
		crash := func() {
			t.Helper()
			w.wake(alice).End(tenement.Exit{Status: 3, Known: true})
			pass(0)
		}
		crash()
		o.wants(t)
		pass(6 * time.Minute)
		w.wake(alice)
		crash() // the first one is forgotten
		o.wants(t)
		crash()
		loop := "alice crash_loop: exit status 3; crash 2 within 5m0s"
		o.wants(t, loop)
		crash()
		o.wants(t, loop)
		crash()
		o.wants(t, loop, "alice failed: exit status 3; crash 4 within 5m0s")
		pass(10 * time.Minute)
		crash()
		crash()
		o.wants(t, loop, "alice failed: ", loop)
	}, o.option(), withService(func(s *tenement.Service) { s.Timeouts.Idle = 0 }))
}

// TestTroubleOfOne: whose budget is a single restart fails, and is in no loop before.
func TestTroubleOfOne(t *testing.T) {
	o := &troubles{}
	simulate(t, func(w *world) {
		for range 2 {
			w.wake(alice).End(tenement.Exit{Status: 3, Known: true})
			pass(0)
		}
		o.wants(t, "alice failed: exit status 3; crash 2 within 5m0s")
	}, o.option(), withService(func(s *tenement.Service) { s.Restart.Max = 1 }))
}

func TestTroubleOfMemory(t *testing.T) {
	o := &troubles{}
	simulate(t, func(w *world) {
		w.wake(alice).End(tenement.Exit{Status: -1, Signal: "killed", Known: true, OOM: true})
		pass(time.Minute)
		o.wants(t, "alice oom: out of memory: ended by the kernel (memory_limit_mb = 64)")
	}, o.option(), withService(func(s *tenement.Service) { s.Limits.Memory = 64 << 20 }))
}

func TestTroubleOfStorage(t *testing.T) {
	o := &troubles{}
	simulate(t, func(w *world) {
		w.wake(alice)
		w.stores(alice, "big", 1<<20)
		pass(storagePace)
		const full = "alice quota: it has stored 1.0 MiB"
		o.wants(t, full)
		_ = w.refusal(alice)
		o.wants(t, full, full)
	}, o.option(), withQuota())
}
