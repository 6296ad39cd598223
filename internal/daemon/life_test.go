package daemon_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"tenement"
	"tenement/internal/runtime/runtimetest"
)

func TestEachCustomerHasAProcessAndADirectory(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", `health = "/health"`)+`
[service.api.env]
DATA_DIR = "{data_dir}/{id}"
`)
	s.spawn("api:alice", "api:bob")
	if got := s.get("http://alice.api.localhost/"); got != "api:alice" {
		t.Errorf("alice's host is answered by %s", got)
	}
	if got := s.get("http://BOB.api.localhost.:80/"); got != "api:bob" {
		t.Errorf("bob's host is answered by %s", got)
	}
	if s.pid("alice.api.localhost") == s.pid("bob.api.localhost") {
		t.Error("they share a process")
	}
	var env []string
	if err := json.Unmarshal([]byte(s.get("http://alice.api.localhost/env")), &env); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(s.dir, "api", "alice")
	if !slices.Contains(env, "DATA_DIR="+dir) {
		t.Errorf("environment %v", env)
	}
	for _, path := range []string{dir, filepath.Dir(dir), filepath.Join(s.dir, ".tenement")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", path, info, err)
		}
	}
}

func TestIdleProcessStopsAndTheNextRequestWakesIt(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", `idle_timeout = "300ms"`))
	s.spawn("api:alice")
	first := s.pid("alice.api.localhost")
	s.write(filepath.Join(s.dir, "api", "alice", "note"), "kept", 0o600)
	gone(t, first)
	s.until("api:alice", tenement.Asleep)
	if second := s.pid("alice.api.localhost"); second == first {
		t.Error("the same process")
	}
	if text, err := os.ReadFile(filepath.Join(s.dir, "api", "alice", "note")); string(text) != "kept" {
		t.Errorf("data %q, %v", text, err)
	}
}

func TestFiftyFirstRequestsStartOneProcess(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", `health = "/health"`, "-boot=200ms"))
	s.spawn("api:alice")
	pids := make([]int, 50)
	var group sync.WaitGroup
	for n := range pids {
		group.Go(func() { pids[n] = s.pid("alice.api.localhost") })
	}
	group.Wait()
	if slices.Min(pids) != slices.Max(pids) {
		t.Errorf("processes %v", pids)
	}
}

func TestDisconnectDuringColdStartHarmsNobody(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", "", "-boot=500ms"))
	s.spawn("api:alice")
	if _, _, err := s.ask(timeout(t, 50*time.Millisecond), "http://alice.api.localhost/"); err == nil {
		t.Fatal("answered before it was up")
	}
	s.get("http://alice.api.localhost/")
	if n := s.instance("api:alice").Restarts; n != 0 {
		t.Errorf("%d restarts", n)
	}
}

func TestMissingProgramIsA503UntilItIsThere(t *testing.T) {
	t.Parallel()
	s := build(t, settings+"\n[service.api]\ncommand = './app'\nisolation = 'process'\n")
	s.spawn("api:alice")
	body := s.wants("http://alice.api.localhost/", http.StatusServiceUnavailable)
	if strings.Contains(body, s.dir) || strings.Contains(body, "./app") {
		t.Errorf("the answer shows paths or commands: %s", body)
	}
	if i := s.instance("api:alice"); !strings.Contains(i.Reason, "no such file") {
		t.Errorf("the operator is told %q", i.Reason)
	}
	script := "#!/bin/sh\nexec '" + strings.Join(runtimetest.TenantCommand(), "' '") + "'\n"
	s.write(filepath.Join(s.dir, "app"), script, 0o700)
	if got := s.get("http://alice.api.localhost/"); got != "api:alice" {
		t.Errorf("answered %q", got)
	}
}

func TestRequestAfterKillIsServed(t *testing.T) {
	t.Parallel()
	s := build(t, "[settings]\nlisten = '127.0.0.1:0'\n"+service("api", `health = "/health"`)) // default back-off
	s.spawn("api:alice")
	for range 2 {
		pid := s.pid("alice.api.localhost")
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if next := s.pid("alice.api.localhost"); next == pid {
			t.Errorf("the dead process %d answered", pid)
		}
	}
}

// TestNoGetFailsWhileTenantsAreKilled: reads go on, whatever is killed under them, as
// long as the restart budget lasts.
func TestNoGetFailsWhileTenantsAreKilled(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", `health = "/health"`))
	const readers = 4
	var group sync.WaitGroup
	for _, name := range []string{"alice", "bob", "carol"} {
		s.spawn("api:" + name)
		url := "http://" + name + ".api.localhost/"
		done := make(chan struct{})
		var answered [readers]atomic.Int64
		for n := range readers {
			group.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					if status, body, err := s.ask(t.Context(), url); err != nil || status != http.StatusOK {
						t.Errorf("GET %s: %d %s %v", url, status, body, err)
						return
					}
					answered[n].Add(1)
				}
			})
		}
		group.Go(func() {
			defer close(done)
			for range 3 { // max_restarts
				var before [readers]int64
				for n := range answered {
					before[n] = answered[n].Load()
				}
				// Two answers each: no request that a kill may hit was hit before.
				runtimetest.Eventually(t, "answers to all readers", func() bool {
					for n := range answered {
						if answered[n].Load() < before[n]+2 {
							return t.Failed()
						}
					}
					return true
				})
				if pid := s.instance("api:" + name).PID; pid > 0 {
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
}

func TestWebSocketThroughAColdWake(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", `idle_timeout = "200ms"`, "-boot=100ms"))
	s.spawn("api:alice")
	c, _, err := websocket.Dial(timeout(t, 20*time.Second), "ws://alice.api.localhost/ws", &websocket.DialOptions{HTTPClient: s.http})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseNow() }()
	for _, message := range []string{"hello", strings.Repeat("x", 30_000)} {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, echo, err := c.Read(t.Context()); err != nil || string(echo) != message {
			t.Fatalf("echo of %d bytes: %d, %v", len(message), len(echo), err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	s.until("api:alice", tenement.Asleep)
}

func TestStreamKeepsItAwakeUntilItCloses(t *testing.T) {
	t.Parallel()
	const idle = 300 * time.Millisecond
	s := build(t, settings+service("api", fmt.Sprintf("idle_timeout = %q", idle)))
	s.spawn("api:alice")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://alice.api.localhost/sse?every=100ms", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := s.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	begin, events := time.Now(), 0
	for lines := bufio.NewScanner(answer.Body); time.Since(begin) < 3*idle; {
		if !lines.Scan() {
			t.Fatalf("the stream ended after %s: %v", time.Since(begin), lines.Err())
		}
		events += strings.Count(lines.Text(), "data:")
	}
	if st := s.instance("api:alice"); st.State != tenement.Ready || st.Leases != 1 || events < 3 {
		t.Errorf("%s with %d leases after %d events", st.State, st.Leases, events)
	}
	cancel()
	s.until("api:alice", tenement.Asleep)
}

func TestSlowBoot(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 15 s: run without -short")
	}
	s := build(t, settings+service("api", "startup_timeout = 30", "-boot=15s"))
	s.spawn("api:alice")
	if got := s.get("http://alice.api.localhost/"); got != "api:alice" {
		t.Errorf("answered %q", got)
	}
}

func TestWithoutHealthItKeepsItsPid(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", "")+service("probed", `health = "/health"`))
	s.spawn("api:alice", "probed:alice")
	pid := s.pid("alice.api.localhost")
	s.get("http://alice.probed.localhost/")
	for range 20 { // 20 intervals: the tenant beside it has had as many checks
		if err := s.untilChecked(); err != nil {
			t.Fatal(err)
		}
	}
	if i := s.instance("api:alice"); s.pid("alice.api.localhost") != pid || i.Health != tenement.HealthUnchecked || i.Restarts != 0 {
		t.Errorf("pid was %d, now %+v", pid, i)
	}
}

// untilChecked lets one health check interval pass.
func (s *site) untilChecked() error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 100*time.Millisecond)
	defer cancel()
	<-ctx.Done()
	return s.t.Context().Err()
}

func TestTermBeforeKillAndNoGrandchildLeft(t *testing.T) {
	t.Parallel()
	var words []string
	for _, word := range runtimetest.TenantCommand() {
		words = append(words, `"`+word+`"`)
	}
	s := build(t, settings+fmt.Sprintf("\n[service.api]\ncommand = %q\n", "sh -c '"+strings.Join(words, " ")+"; exit 0'")+"isolation = 'process'\n"+
		service("deaf", "stop_timeout = 0.2", "-ignore-term"))
	s.spawn("api:alice", "deaf:alice")
	app, shell := s.pid("alice.api.localhost"), s.instance("api:alice").PID
	if app == shell {
		t.Fatal("the shell is not there: the test shows nothing")
	}
	child := runtimetest.Number(t, s.get("http://alice.deaf.localhost/child"))
	deaf := s.pid("alice.deaf.localhost")
	for _, name := range []string{"api:alice", "deaf:alice"} {
		if err := s.api.Stop(t.Context(), id(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range []int{app, shell, child, deaf} {
		if runtimetest.Alive(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
	if _, err := os.Stat(filepath.Join(s.dir, "api", "alice", "terminated")); err != nil {
		t.Errorf("the app below a shell did not see SIGTERM: %v", err)
	}
}

func TestHangingTenantDelaysNoOther(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("hung", "request_timeout = '1s'\nhealth = '/health'\nstartup_timeout = '2s'", "-hang")+
		service("stubborn", "stop_timeout = '2s'", "-ignore-term")+
		service("api", "idle_timeout = '300ms'\nhealth = '/health'"))
	s.spawn("hung:a", "stubborn:a", "api:alice")
	s.get("http://a.stubborn.localhost/")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var busy sync.WaitGroup
	defer busy.Wait()
	busy.Go(func() { _, _, _ = s.ask(ctx, "http://a.hung.localhost/") })
	busy.Go(func() { _ = s.api.Stop(ctx, id(t, "stubborn:a")) })
	s.until("hung:a", tenement.Starting)
	s.until("stubborn:a", tenement.Stopping)
	// While both are stuck, alice is woken, asked, checked and put to sleep.
	s.get("http://alice.api.localhost/")
	s.until("api:alice", tenement.Asleep)
	s.get("http://alice.api.localhost/")
	if hung, stubborn := s.instance("hung:a").State, s.instance("stubborn:a").State; hung != tenement.Starting && stubborn != tenement.Stopping {
		t.Logf("they were %s and %s by then: the machine was slow", hung, stubborn)
	}
	cancel()
}

func TestEndOfTheDaemonEndsAllTenants(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	s.spawn("api:alice", "api:bob")
	pids := []int{s.pid("alice.api.localhost"), s.pid("bob.api.localhost")}
	s.stop()
	for _, pid := range pids {
		if runtimetest.Alive(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
}
