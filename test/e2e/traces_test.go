package e2e

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"tenement/internal/runtime/runtimetest"
)

// TestTracesThroughUpgrade: what was begun before an upgrade is in a trace when the old daemon
// has served it out, and what came after it in the new one's.
func TestTracesThroughUpgrade(t *testing.T) {
	t.Parallel()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var received []byte
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if received = append(received, body...); err != nil {
			t.Error(err)
		}
	}))
	defer collector.Close()
	config := filepath.Join(t.TempDir(), "tenement.toml")
	writeConfig(t, config, "[settings.tracing]\nendpoint = '"+collector.URL+"'\nsample = 0\n")
	d := startConfig(t, config, t.TempDir())
	d.command("spawn", "echo:alice")

	const before, after = "0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736"
	parent := func(trace string) string { return "00-" + trace + "-b7ad6b7169203331-01" }
	has := func(trace string) bool {
		id, err := hex.DecodeString(trace)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		return bytes.Contains(received, id)
	}
	conn, _, err := websocket.Dial(t.Context(), d.base+"/ws", &websocket.DialOptions{
		Host: "alice.echo.localhost", HTTPHeader: http.Header{"Traceparent": {parent(before)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	socket := webSocket{t, conn}
	socket.echo("before")
	lingering := d.lingering()
	d.upgrade()
	d.get(http.StatusOK, "alice.echo.localhost", "/health", "Traceparent", parent(after))
	runtimetest.Eventually(t, "the new daemon has sent its own", func() bool { return has(after) })
	if _, err := lingering.Read(make([]byte, 1)); err != io.EOF { //nolint:errorlint // nothing wraps it
		t.Fatal(err)
	}
	socket.echo("after") // which is all that the old daemon is still there for
	if has(before) {
		t.Error("a request has ended before its connection")
	}
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	runtimetest.Eventually(t, "the old daemon has sent its last", func() bool { return has(before) })
}
