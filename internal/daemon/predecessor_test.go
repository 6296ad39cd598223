package daemon

import (
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"tenement"
	"tenement/internal/config"
	"tenement/internal/runtime/runtimetest"
)

// succeeding is a daemon whose predecessor ends when the connection is closed.
func succeeding(t *testing.T) (_ *daemon, ends net.Conn, done <-chan error) {
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
	front, err := os.Open(os.DevNull)
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
	return d, theirs, result
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestEndOfThePredecessor: nobody needs the relay any more.
func TestEndOfThePredecessor(t *testing.T) {
	t.Parallel()
	d, old, done := succeeding(t)
	_ = old.Close()
	if err := runtimetest.Within(t, "end", done); err != nil || exists(relayPath(d.Config.DataDir)) || d.relay != nil {
		t.Errorf("error %v, relay %v", err, d.relay)
	}
}

// TestEndOfThePredecessorDuringAnUpgrade: the path may be the next daemon's by then.
func TestEndOfThePredecessorDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	d, old, done := succeeding(t)
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
