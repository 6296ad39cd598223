package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/config"
	"tenement/internal/runtime/runtimetest"
)

// succeeding is a daemon whose predecessor ends when the connection is closed.
func succeeding(t *testing.T) (_ *daemon, old net.Conn, front *os.File, done <-chan error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ten") //nolint:usetesting // t.TempDir's paths are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Mkdir(StateDir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	d := &daemon{upgraded: make(chan struct{}), Options: Options{
		Config: &config.Config{DataDir: dir}, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	l, err := d.listenUnix(t.Context(), relayPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	d.relay = l
	ours, theirs := net.Pipe()
	front, err = os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() {
		result <- d.succeed(t.Context(), &predecessor{control: ours, decoder: json.NewDecoder(ours), front: front})
	}()
	var m message
	if err := json.NewDecoder(theirs).Decode(&m); err != nil || !m.Serving {
		t.Fatal(m, err)
	}
	return d, theirs, front, result
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestEndOfThePredecessor: nobody needs the relay any more.
func TestEndOfThePredecessor(t *testing.T) {
	t.Parallel()
	d, old, front, done := succeeding(t)
	_ = old.Close()
	if err := runtimetest.Within(t, "end", done); err != nil || exists(relayPath(d.Config.DataDir)) || d.relay != nil {
		t.Errorf("error %v, relay %v", err, d.relay)
	}
	if _, err := front.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("what it passed on is still open: %v", err)
	}
}

// TestEndOfThePredecessorDuringAnUpgrade: the path may be the next daemon's by then.
func TestEndOfThePredecessorDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	d, old, _, done := succeeding(t)
	d.changing.Lock()
	_ = old.Close()
	select {
	case err := <-done:
		t.Fatal("it did not wait for the upgrade", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(d.upgraded)
	d.changing.Unlock()
	if err := runtimetest.Within(t, "end", done); err != nil || !exists(relayPath(d.Config.DataDir)) {
		t.Errorf("error %v, or the socket is gone", err)
	}
}

// TestNothingChangesAnUpgradedDaemon: whoever asks it would be told that it has worked.
func TestNothingChangesAnUpgradedDaemon(t *testing.T) {
	t.Parallel()
	d := &daemon{upgraded: make(chan struct{})}
	close(d.upgraded)
	if _, _, err := d.reload(t.Context()); tenement.CodeOf(err) != tenement.CodeConflict {
		t.Errorf("reload: %v", err)
	}
	if _, err := d.upgrade(t.Context()); tenement.CodeOf(err) != tenement.CodeConflict {
		t.Errorf("upgrade: %v", err)
	}
}

// TestClosedSocketsLeaveTheirPaths: another daemon may have them by then.
func TestClosedSocketsLeaveTheirPaths(t *testing.T) {
	t.Parallel()
	d, _, _, _ := succeeding(t)
	path := relayPath(d.Config.DataDir)
	if err := os.WriteFile(path+"~", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.relay.Close(); err != nil {
		t.Fatal(err)
	}
	if !exists(path) || !exists(path+"~") {
		t.Error("a path is gone")
	}
}

// TestOtherDataDirectoryIsRefused: all customers would be left behind.
func TestOtherDataDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	p := &predecessor{handover: handover{DataDir: "/a"}}
	if err := p.accept("/a"); err != nil {
		t.Error(err)
	}
	if err := p.accept("/b"); tenement.CodeOf(err) != tenement.CodeConflict {
		t.Errorf("error %v", err)
	}
}

// TestUpgradeGivesUpWithTheDaemon: a successor that says nothing is not waited for.
func TestUpgradeGivesUpWithTheDaemon(t *testing.T) {
	t.Parallel()
	ours, theirs, err := controlPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = ours.Close(), unix.Close(theirs) })
	told, tell := context.WithCancel(t.Context())
	result := make(chan error, 1)
	s := &successor{control: ours, decoder: json.NewDecoder(ours)}
	go func() {
		_, err := s.await(told, time.Hour, func(m message) bool { return m.Ready })
		result <- err
	}()
	tell()
	if err := runtimetest.Within(t, "end of the wait", result); !errors.Is(err, errToldToEnd) {
		t.Errorf("error %v", err)
	}
}
