package e2e

import (
	"bufio"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"tenement/internal/runtime/runtimetest"
)

// TestStreamsThroughUpgrade: what flows goes on to its end, in both versions of HTTP, and
// who follows the logs misses nothing.
func TestStreamsThroughUpgrade(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	d := startText(t, echoing("echo", ""))
	d.command("spawn", "echo:alice")
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	clients := map[string]*http.Client{"HTTP/1.1": d.client, "HTTP/2.0": {Transport: &http.Transport{Protocols: &h2c}, Timeout: httpTimeout}}
	streams := map[string]*http.Response{}
	ask := func(version, path string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "alice.echo.localhost"
		resp, err := clients[version].Do(req)
		if err != nil {
			t.Fatalf("%s: %v", version, err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		if resp.Proto != version || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %s", version, resp.Proto, resp.Status)
		}
		return resp
	}
	for version := range clients {
		streams[version] = ask(version, "/sse?n=60&every=50ms")
	}
	lines := d.followLogs("echo:alice")
	d.get(http.StatusOK, "alice.echo.localhost", "/print?out=before")
	wantLine(t, lines, "before")
	old := d.serving
	d.upgrade()
	for version := range clients {
		text := "after over " + strings.ReplaceAll(version, "/", "")
		_ = ask(version, "/print?out="+url.QueryEscape(text)).Body.Close()
		wantLine(t, lines, text)
	}
	for version, stream := range streams {
		text, err := io.ReadAll(stream.Body)
		if n := strings.Count(string(text), "data:"); n != 60 || err != nil {
			t.Errorf("%s: %d events, %v", version, n, err)
		}
	}
	waitGone(t, old)
	for version := range clients {
		_ = ask(version, "/").Body.Close()
	}
}

// followLogs gives the lines that `ten logs -f` prints.
func (d *daemon) followLogs(id string) <-chan string {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), d.ten, "logs", "-f", id, "--config", d.config, "--data-dir", d.dataDir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		d.t.Fatal(err)
	}
	lines := make(chan string, 100)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
		_ = cmd.Wait() // killed by the end of the test
	}()
	return lines
}

func wantLine(t *testing.T, lines <-chan string, text string) {
	t.Helper()
	for !strings.Contains(runtimetest.Within(t, "line "+text, lines), text) {
	}
}
