package daemon_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/daemon"
	"tenement/internal/runtime/runtimetest"
)

// heard is the lines that a follower was given.
type heard struct {
	mu    sync.Mutex
	lines []api.LogLine
}

func (h *heard) add(l api.LogLine) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, l)
	return nil
}

// texts are those that begin with "said".
func (h *heard) texts() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []string
	for _, l := range h.lines {
		if strings.HasPrefix(l.Text, "said") {
			list = append(list, l.Text)
		}
	}
	return list
}

// TestLogsOutliveTheDaemon follows an instance across its sleep and two daemons: every
// line comes once, in order, and is found again in both.
func TestLogsOutliveTheDaemon(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	text := settings + service("api", "")
	s := buildIn(t, dir, text)
	s.spawn("api:alice", "api:bob")
	ctx, cancel := context.WithCancel(t.Context())
	client, err := api.NewClient(api.Target{Socket: daemon.SocketPath(dir)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	var all heard
	away := make(chan error, 10)
	done := make(chan error, 1)
	go func() {
		done <- client.FollowLogs(ctx, api.LogOptions{Instance: id(t, "api:alice"), Limit: 10}, func(err error) { away <- err }, all.add)
	}()
	said := 0
	say := func() {
		t.Helper()
		s.get("http://alice.api.localhost/print?" + url.Values{"out": {fmt.Sprint("said ", said)}, "err": {"loudly"}}.Encode())
		s.get("http://bob.api.localhost/print?out=said+by+bob&err=x")
		said++
		runtimetest.Eventually(t, "the follower hears it", func() bool { return len(all.texts()) == said })
	}
	say()
	say()
	if err := s.api.Stop(t.Context(), id(t, "api:alice")); err != nil {
		t.Fatal(err)
	}
	say() // wakes it
	s.stop()
	if err := runtimetest.Within(t, "the follower sees that the daemon is away", away); tenement.CodeOf(err) != tenement.CodeUnreachable {
		t.Error(err)
	}
	s = buildIn(t, dir, text)
	say()
	cancel()
	if err := runtimetest.Within(t, "end of the follower", done); tenement.CodeOf(err) != tenement.CodeCanceled {
		t.Error(err)
	}
	if want := []string{"said 0", "said 1", "said 2", "said 3"}; !slices.Equal(all.texts(), want) {
		t.Errorf("heard %q, want %q", all.texts(), want)
	}
	lines, err := s.api.Logs(t.Context(), api.LogOptions{Instance: id(t, "api:alice"), Search: "SAID", Level: "stdout"})
	if err != nil {
		t.Fatal(err)
	}
	found := heard{lines: lines}
	if !slices.Equal(found.texts(), all.texts()) || len(lines) != said {
		t.Errorf("found %q", found.texts())
	}
	if lines, err = s.api.Logs(t.Context(), api.LogOptions{Instance: id(t, "api:alice"), Search: "loudly", Level: "stdout"}); err != nil || len(lines) > 0 {
		t.Errorf("%v %v", lines, err)
	}
}

// TestFollowerDoesNotHoldUpTheStop: neither over the socket nor through the front.
func TestFollowerDoesNotHoldUpTheStop(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/")
	made, err := s.api.CreateToken(t.Context(), api.TokenOptions{Scope: tenement.TenantScope("alice")})
	if err != nil {
		t.Fatal(err)
	}
	front, err := api.NewClient(api.Target{Server: "http://" + strings.Replace(s.address, "127.0.0.1", "localhost", 1), Token: made.Secret})
	if err != nil {
		t.Fatal(err)
	}
	defer front.CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, c := range []*api.Client{s.api, front} {
		heard := make(chan error, 100)
		away := make(chan error, 10)
		go func() {
			err := c.FollowLogs(ctx, api.LogOptions{Limit: 1}, func(err error) { away <- err }, func(api.LogLine) error { heard <- nil; return nil })
			heard <- err
		}()
		if err := runtimetest.Within(t, "the first line", heard); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := runtimetest.Within(t, "the end of the connection", away); err == nil {
				t.Error("the daemon is still there")
			}
		}()
	}
	s.stop()
}

// TestDamagedLogsDoNotKeepTheDaemonFromStarting.
func TestDamagedLogsDoNotKeepTheDaemonFromStarting(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	if err := os.Mkdir(daemon.StateDir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(daemon.StateDir(dir), "logs.db")
	if err := os.WriteFile(file, []byte(strings.Repeat("nonsense", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := buildIn(t, dir, settings+service("api", ""))
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/print?out=hello&err=x")
	runtimetest.Eventually(t, "what it prints is there", func() bool {
		lines, err := s.api.Logs(t.Context(), api.LogOptions{Search: "hello"})
		return err == nil && len(lines) == 1
	})
	if aside, err := filepath.Glob(file + ".corrupt-*"); err != nil || len(aside) != 1 {
		t.Errorf("%v %v", aside, err)
	}
}

// TestDeletedInstanceHasNoLogs, and one of the same name afterwards none of its.
func TestDeletedInstanceHasNoLogs(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/print?out=secret&err=x")
	if err := s.api.Delete(t.Context(), id(t, "api:alice"), false); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if lines, err := s.api.Logs(t.Context(), api.LogOptions{Search: "secret"}); err != nil || len(lines) > 0 {
			t.Errorf("%v %v", lines, err)
		}
		s.spawn("api:alice")
		s.get("http://alice.api.localhost/")
	}
}
