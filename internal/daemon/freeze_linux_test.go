package daemon_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"tenement"
	"tenement/internal/cgroup"
	"tenement/internal/config"
	"tenement/internal/runtime/runtimetest"
)

const frozenSoon = "freeze_timeout = '200ms'\nstartup_timeout = 60\n"

// ticks is how far alice's program has counted.
func (s *site) ticks() int {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "api", "alice", "ticks"))
	if err != nil {
		s.t.Fatal(err)
	}
	return runtimetest.Number(s.t, string(text))
}

// standsStill waits until alice counts no more.
func (s *site) standsStill() {
	s.t.Helper()
	s.until("api:alice", tenement.Frozen)
	last, same := 0, 0
	runtimetest.Eventually(s.t, "it counts no more", func() bool {
		n := s.ticks()
		if same++; n != last {
			last, same = n, 0
		}
		return same == 50 // times in a row, 2 ms apart, of what counts in one
	})
}

// TestFrozen: it stands still and keeps its memory, whichever daemon has it.
func TestFrozen(t *testing.T) {
	t.Parallel()
	kinds := map[tenement.Isolation]bool{tenement.IsolationProcess: true, config.DefaultIsolation(): true, tenement.IsolationSandbox: true}
	for isolation := range kinds {
		t.Run(string(isolation), func(t *testing.T) {
			t.Parallel()
			if isolation == tenement.IsolationSandbox {
				requireSandbox(t)
			}
			dir, text := shortDir(t), settings+service("api", frozenSoon+"health = '/health'\nisolation = '"+string(isolation)+"'")
			s := buildWith(t, dir, text, true)
			s.spawn("api:alice")
			s.get("http://alice.api.localhost/tick")
			pid := s.instance("api:alice").PID
			s.standsStill()
			s.goesOn(pid)
			s.standsStill()
			s.stop()
			s = buildIn(t, dir, text)
			s.standsStill()
			s.goesOn(pid)
			s.standsStill()
			if err := s.api.Stop(t.Context(), id(t, "api:alice")); err != nil {
				t.Fatal(err)
			}
			gone(t, pid)
			if _, err := os.Stat(filepath.Join(dir, "api", "alice", "terminated")); err != nil {
				t.Errorf("the program did not see SIGTERM: %v", err)
			}
		})
	}
}

// goesOn wants alice to answer as the process that she was.
func (s *site) goesOn(pid int) {
	s.t.Helper()
	before := s.ticks()
	if got := s.get("http://alice.api.localhost/"); got != "api:alice" {
		s.t.Errorf("answered %q", got)
	}
	if i := s.instance("api:alice"); i.PID != pid || i.Restarts != 0 {
		s.t.Errorf("process %d, was %d; %d restarts", i.PID, pid, i.Restarts)
	}
	runtimetest.Eventually(s.t, "it counts on", func() bool { return s.ticks() > before })
}

// TestOpenConnectionsHoldOffTheFreeze: a WebSocket that nobody says a word on, and a
// download that goes on.
func TestOpenConnectionsHoldOffTheFreeze(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", frozenSoon))
	s.spawn("api:alice", "api:bob")
	quiet, _, err := websocket.Dial(timeout(t, 20*time.Second), "ws://alice.api.localhost/ws", &websocket.DialOptions{HTTPClient: s.http})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = quiet.CloseNow() }()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://bob.api.localhost/sse?every=50ms", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := s.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	lines := bufio.NewScanner(answer.Body)
	for begin := time.Now(); time.Since(begin) < time.Second; { // which is many times freeze_timeout
		if !lines.Scan() {
			t.Fatalf("the download ended: %v", lines.Err())
		}
		for _, name := range []string{"api:alice", "api:bob"} {
			if i := s.instance(name); i.State != tenement.Ready || i.Leases != 1 {
				t.Fatalf("%s is %s with %d leases", name, i.State, i.Leases)
			}
		}
	}
	if err := quiet.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	leave()
	s.until("api:alice", tenement.Frozen)
	s.until("api:bob", tenement.Frozen)
}

// BenchmarkThaw asks in turn an instance that is frozen, the same one as it is ready now, and
// another one that has rested as long without being frozen. Which of the first and the last
// is asked first, and finds the machine at rest, takes turns as well. It reports the three in
// milliseconds.
func BenchmarkThaw(b *testing.B) {
	for _, isolation := range []tenement.Isolation{tenement.IsolationProcess, tenement.IsolationNamespace} {
		b.Run(string(isolation), func(b *testing.B) {
			recipe := fmt.Sprintf("command = %q\nisolation = %q\n", buildTenant(b), isolation)
			s := build(b, settings+"\n[service.api]\n"+recipe+"freeze_timeout = '20ms'\n[service.warm]\n"+recipe)
			s.spawn("api:alice", "warm:alice")
			const url, warmURL = "http://alice.api.localhost/", "http://alice.warm.localhost/"
			s.get(url)
			s.get(warmURL)
			group, err := cgroup.Of(s.instance("api:alice").PID)
			if err != nil {
				b.Fatal(err)
			}
			var thaw, rested, ready []time.Duration
			for n := 0; b.Loop(); n++ {
				runtimetest.Eventually(b, "it stands still", func() bool {
					text, err := os.ReadFile(filepath.Join(group, "cgroup.events"))
					return err == nil && strings.Contains(string(text), "frozen 1")
				})
				if n%2 == 0 {
					rested = append(rested, timeOf(b, s.http, warmURL))
				}
				thaw = append(thaw, timeOf(b, s.http, url))
				ready = append(ready, timeOf(b, s.http, url))
				if n%2 == 1 {
					rested = append(rested, timeOf(b, s.http, warmURL))
				}
			}
			for name, all := range map[string][]time.Duration{"thaw": thaw, "rested": rested, "ready": ready} {
				b.ReportMetric(milliseconds(median(all)), name+"-ms")
				b.ReportMetric(milliseconds(percentile(all, 99)), name+"-p99-ms")
			}
		})
	}
}
