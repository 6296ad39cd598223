package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenement"
	"tenement/internal/logs"
	tenruntime "tenement/internal/runtime"
)

// withQuota lets each instance store a mebibyte.
func withQuota() option {
	return withService(func(s *tenement.Service) { s.Limits.Storage = 1 << 20 })
}

// stores leaves a file with an instance, by which its quota is used up or not.
func (w *world) stores(id tenement.InstanceID, name string, size int) string {
	w.t.Helper()
	path := filepath.Join(w.dir, id.Service, id.Name, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *world) remove(path string) {
	w.t.Helper()
	if err := os.RemoveAll(path); err != nil {
		w.t.Fatal(err)
	}
}

// TestFullInstanceIsPutToSleepAndRefused, until there is room: that is noticed by the
// next request, and it has cost no crash.
func TestFullInstanceIsPutToSleepAndRefused(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		w.stores(alice, "app.db", 512<<10)
		pass(time.Minute)
		w.wantState(alice, tenement.Ready)
		file := w.stores(alice, "big", 1<<20)
		pass(storagePace)
		w.wantState(alice, tenement.Asleep)
		for range 2 {
			refused := w.refusal(alice)
			if refused.Code != tenement.CodeStorageFull || refused.RetryAfter != storagePause ||
				!strings.Contains(refused.Hint, "storage_quota_mb in [service.api]") || !strings.Contains(refused.Error(), "1.0 MiB in 1000 files") {
				t.Errorf("refused with %+v", refused)
			}
		}
		w.wantState(alice, tenement.Backoff)
		w.wake(bob) // is nobody's fault
		w.remove(file)
		pass(storagePause)
		w.wake(alice)
		w.wantStarts(alice, 2)
		if st, _ := w.Observe(alice); st.Restarts != 0 || st.Reason != "" {
			t.Errorf("%+v", st)
		}
		if text := w.logged(alice); strings.Count(text, "put to sleep until there is room") != 1 {
			t.Errorf("its log says %q", text)
		}
	}, withQuota())
}

// logged is what an instance's own log says.
func (w *world) logged(id tenement.InstanceID) string {
	w.t.Helper()
	lines, err := w.Logs.Query(w.t.Context(), logs.Query{Instance: id, Limit: 100})
	if err != nil {
		w.t.Fatal(err)
	}
	var text strings.Builder
	for _, l := range lines {
		text.WriteString(l.Text + "\n")
	}
	return text.String()
}

// TestTooManyFilesAreFullToo, however small they are.
func TestTooManyFilesAreFullToo(t *testing.T) {
	simulate(t, func(w *world) {
		for n := range 1024 {
			w.stores(alice, fmt.Sprint(n), 0)
		}
		w.refused(alice, tenement.CodeStorageFull)
		w.wantStarts(alice, 0)
	}, withService(func(s *tenement.Service) { s.Limits.Storage = 16 << 20 }))
}

// TestRequestsUnderWayMayFinish when the instance is put to sleep; new ones are told.
func TestRequestsUnderWayMayFinish(t *testing.T) {
	simulate(t, func(w *world) {
		lease := w.acquire(alice)
		w.stores(alice, "big", 2<<20)
		pass(storagePace)
		w.wantState(alice, tenement.Draining)
		w.refused(alice, tenement.CodeStorageFull)
		select {
		case <-lease.Gone():
			t.Error("the request under way was cut off")
		default:
		}
		lease.Release()
		pass(time.Second)
		w.wantState(alice, tenement.Asleep)
	}, withQuota())
}

// TestFullWhileStarting: whoever waits for a program that fills its directory before it
// is ready is told so.
func TestFullWhileStarting(t *testing.T) {
	simulate(t, func(w *world) {
		answer := async(func() error { _, err := w.Acquire(w.t.Context(), alice); return err })
		pass(time.Second)
		w.stores(alice, "big", 2<<20)
		if err := <-answer; tenement.CodeOf(err) != tenement.CodeStorageFull {
			t.Errorf("answered with %v", err)
		}
		w.wantStarts(alice, 1)
	}, withQuota(), booting(time.Minute), withService(func(s *tenement.Service) {
		s.Timeouts.Startup, s.Timeouts.Wake = 2*time.Minute, 2*time.Minute
	}))
}

// TestPinnedInstanceComesBackByItself once there is room.
func TestPinnedInstanceComesBackByItself(t *testing.T) {
	simulate(t, func(w *world) {
		pass(bootTime)
		w.wantState(alice, tenement.Ready)
		w.fake.Live(alice)[0].End(crash)
		pass(bootTime)
		file := w.stores(alice, "big", 2<<20)
		w.fake.Live(alice)[0].End(crash)
		pass(time.Minute)
		w.wantState(alice, tenement.Backoff)
		w.remove(file)
		pass(storagePause + bootTime)
		w.wantState(alice, tenement.Ready)
	}, withQuota(), withConfig(func(c *Config) { c.Plan.Pinned = []tenement.InstanceID{alice} }))
}

// TestFullAfterCrashSleeps: nobody goes on measuring what nobody asks for.
func TestFullAfterCrashSleeps(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		w.stores(alice, "big", 2<<20)
		w.fake.Live(alice)[0].End(crash)
		w.wantState(alice, tenement.Backoff)
		pass(storagePause)
		w.wantState(alice, tenement.Asleep)
		if w.owners() != 0 {
			t.Errorf("%d owners", w.owners())
		}
	}, withQuota())
}

// TestRaisedQuotaIsNoticed by the next request after a reload.
func TestRaisedQuotaIsNoticed(t *testing.T) {
	simulate(t, func(w *world) {
		w.stores(alice, "big", 2<<20)
		w.refused(alice, tenement.CodeStorageFull)
		raised := *w.service
		raised.Limits.Storage = 8 << 20
		if err := w.Reconfigure(w.t.Context(), Plan{Services: map[string]*tenement.Service{"api": &raised}}); err != nil {
			t.Fatal(err)
		}
		pass(storagePause)
		w.wake(alice)
	}, withQuota())
}

// TestAdoptedInstanceIsMeasured by the daemon that has it.
func TestAdoptedInstanceIsMeasured(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		next := w.handOver()
		next.stores(alice, "big", 2<<20)
		pass(storagePace)
		next.wantState(alice, tenement.Asleep)
		next.refused(alice, tenement.CodeStorageFull)
		next.shutDown()
	}, withQuota())
}

// TestHiddenFilesAreFullToo: what cannot be looked at counts as too much.
func TestHiddenFilesAreFullToo(t *testing.T) {
	simulate(t, func(w *world) {
		w.stores(alice, strings.Repeat("d/", 300)+"file", 1)
		refused := w.refusal(alice)
		if refused.Code != tenement.CodeStorageFull || !strings.Contains(refused.Error(), "one within the other") {
			t.Errorf("refused with %+v", refused)
		}
	}, withQuota())
}

// TestIsolatedInstanceHasAUser of its own, which it keeps.
func TestIsolatedInstanceHasAUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files to another user: run the tests of internal/supervisor as root")
	}
	var specs []tenruntime.Spec
	simulate(t, func(w *world) {
		w.wake(alice)
		w.wake(bob)
		if err := w.Stop(w.t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		w.wake(alice)
		if len(specs) != 3 {
			t.Fatalf("%d starts", len(specs))
		}
		for n, want := range []int{3_000_000, 3_000_001, 3_000_000} {
			spec := specs[n]
			info, err := os.Stat(spec.DataDir)
			if err != nil {
				t.Fatal(err)
			}
			if owner, _ := info.Sys().(*syscall.Stat_t); spec.UID != want || int(owner.Uid) != want {
				t.Errorf("%s runs as %d, and its directory belongs to %d, want %d", spec.Instance, spec.UID, owner.Uid, want)
			}
		}
	}, withService(func(s *tenement.Service) { s.Isolation = tenement.IsolationNamespace }),
		withConfig(func(c *Config) {
			c.Plan.FirstUID = 3_000_000
			c.Runtimes[tenement.IsolationNamespace] = noting{c.Runtimes[tenement.IsolationProcess], &specs}
		}))
}

func TestNothingChangesHandsForWhatCannotStart(t *testing.T) {
	missing := &tenement.Error{Code: tenement.CodeUnavailable, Op: "isolate", Err: errors.New("there are no namespaces")}
	simulate(t, func(w *world) {
		_, err := w.Acquire(w.t.Context(), alice)
		if !errors.Is(err, missing) {
			t.Fatalf("the error is %v", err)
		}
		record, err := w.Store.Instance(w.t.Context(), alice)
		if err != nil {
			t.Fatal(err)
		}
		if record.UID != 0 {
			t.Errorf("it was given the uid %d", record.UID)
		}
		if _, err := os.Stat(filepath.Join(w.dir, alice.Service, alice.Name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it was given a directory: %v", err)
		}
	}, withService(func(s *tenement.Service) { s.Isolation = tenement.IsolationNamespace }),
		withConfig(func(c *Config) {
			c.Runtimes[tenement.IsolationNamespace] = tenruntime.Unavailable{Err: missing}
		}))
}

// noting is a runtime that notes what it was to start, one after the other.
type noting struct {
	tenruntime.Runtime
	specs *[]tenruntime.Spec
}

func (n noting) Start(ctx context.Context, s tenruntime.Spec) (tenruntime.Process, error) {
	*n.specs = append(*n.specs, s)
	return n.Runtime.Start(ctx, s)
}
