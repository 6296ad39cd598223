package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFollowedLogs: `ten logs -f` goes on across a sleep, a killed daemon and an upgrade,
// and shows each line once.
func TestFollowedLogs(t *testing.T) {
	t.Parallel()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "tenement.toml")
	writeConfig(t, config, "")
	d := startConfig(t, config, t.TempDir())
	d.command("spawn", "echo:alice")
	d.command("spawn", "echo:bob")
	lines, ended := d.follow("echo:alice")
	printed := 0
	wantNext := func(when string) {
		t.Helper()
		printed++
		text := fmt.Sprintf("line %d, %s", printed, when)
		d.get(http.StatusOK, "bob.echo.localhost", "/print?out=not+this+one")
		d.get(http.StatusOK, "alice.echo.localhost", fmt.Sprintf("/print?out=line+%d,+%s", printed, when))
		select {
		case got := <-lines:
			if got != text {
				t.Fatalf("%s: got %q, want %q", when, got, text)
			}
		case <-time.After(httpTimeout):
			t.Fatalf("%s: no line", when)
		}
	}
	wantNext("awake")
	d.command("stop", "echo:alice")
	wantNext("afterwards")
	d.kill()
	d = d.again()
	wantNext("killed")
	d.upgrade()
	wantNext("upgraded")
	ended()
	if out := d.command("logs", "echo:alice", "--search", `"line 3"`, "--since", "1h", "--level", "stdout"); out == "" {
		t.Error("a search finds nothing")
	}
	if out := d.command("logs", "echo:alice", "--since", time.Now().Add(time.Hour).Format(time.RFC3339)); out != "" {
		t.Errorf("of the future: %s", out)
	}
}

// follow runs `ten logs -f` and gives what it prints of the lines that
// were asked for. Ended
// ends it with Ctrl-C, and wants it to obey.
func (d *daemon) follow(id string) (lines <-chan string, ended func()) {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), d.ten, "logs", id, "-f", "--json", "--config", d.config, "--data-dir", d.dataDir)
	output := &transcript{t: d.t}
	cmd.Stderr = output
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(output.close)
	texts := make(chan string, 100)
	go func() {
		defer close(texts)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			var line struct{ Level, Text string }
			if err := json.Unmarshal(s.Bytes(), &line); err != nil {
				texts <- err.Error()
			} else if line.Level == "stdout" && !strings.HasPrefix(line.Text, "listening") {
				texts <- line.Text
			}
		}
	}()
	return texts, func() {
		d.t.Helper()
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			d.t.Fatal(err)
		}
		for extra := range texts {
			d.t.Errorf("one more line: %q", extra)
		}
		if err := cmd.Wait(); err != nil {
			d.t.Errorf("it ended with %v", err)
		}
	}
}
