package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"tenement/internal/runtime/runtimetest"
)

// writeConfig makes a configuration with the notes example and a tenant that echoes.
func writeConfig(t *testing.T, path, more string) {
	t.Helper()
	var words []string
	for _, word := range runtimetest.TenantCommand() {
		words = append(words, "'"+word+"'")
	}
	text := fmt.Sprintf(`
[service.notes]
command = "%s/bin/notes"
health = "/health"

[service.echo]
command = %s
health = "/health"
%s
`, root, strconv.Quote(strings.Join(words, " ")), more)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// upgrade has a new daemon take over.
func (d *daemon) upgrade() {
	d.t.Helper()
	var upgraded struct{ PID int }
	if err := json.Unmarshal([]byte(d.command("upgrade", "--json")), &upgraded); err != nil {
		d.t.Fatal(err)
	}
	if upgraded.PID == d.serving {
		d.t.Fatalf("the same daemon, %d", d.serving)
	}
	d.serving = upgraded.PID
}

// TestUpgradesUnderLoad: ten times in a row, and nobody notices.
func TestUpgradesUnderLoad(t *testing.T) {
	t.Parallel()
	const tenants, perSecond, upgrades = 20, 200, 10
	if err := build(); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "tenement.toml")
	writeConfig(t, config, "drain_timeout = 120") // of the socket, while ten upgrades take their time
	d := startConfig(t, config, t.TempDir())
	hosts := d.spawnMany(tenants)
	d.command("spawn", "echo:alice")
	pids := d.pids()
	socket := d.webSocket("alice.echo.localhost")
	socket.echo("before")
	l := d.startLoad(hosts, perSecond, true)
	for n := range upgrades {
		d.upgrade()
		socket.echo(fmt.Sprint("after upgrade ", n))
		l.waitFor(perSecond / 4)
	}
	l.stop()
	t.Logf("%d requests", l.sent)
	for _, f := range l.failures {
		t.Errorf("failed: %v", f.err)
	}
	if after := d.pids(); !maps.Equal(pids, after) {
		t.Errorf("processes %v, before %v", after, pids)
	}
	l.wantKept(d)
	socket.echo("at the end")
}

// TestFailedUpgrade: whatever is wrong with the new program or with the configuration,
// the old daemon serves on, with the same tenants.
func TestFailedUpgrade(t *testing.T) {
	t.Parallel()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "tenement.toml")
	writeConfig(t, config, "")
	ten := filepath.Join(dir, "ten")
	good := filepath.Join(root, "bin", "ten")
	if err := os.Link(good, ten); err != nil {
		t.Fatal(err)
	}
	d := startAt(t, ten, config, t.TempDir(), "127.0.0.1:0")
	d.ten = good // for the commands
	d.command("spawn", "notes:alice")
	tenant := d.pid("notes:alice")
	for _, c := range []struct{ name, program, config, says string }{
		{"no program", "\x00", "", "exec format error"},
		{"ends at once", "#!/bin/sh\nexit 7\n", "", "exit status 7"},
		{"ends when it is its turn", "#!/bin/sh\necho '{\"ready\":true}' >&3\nread go <&3\nexit 8\n", "", "exit status 8"},
		{"bad configuration", "", "unknown = 1\nidle_timeout = 'x'\n", "2 mistakes"},
	} {
		if c.program != "" {
			replace(t, ten, c.program)
		}
		writeConfig(t, config, c.config)
		out, err := d.tryCommand("upgrade")
		if err == nil || !strings.Contains(out, c.says) || !strings.Contains(out, "the old one serves on") {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
		if pid := d.pid("notes:alice"); pid != tenant {
			t.Errorf("%s: the tenant was restarted", c.name)
		}
		d.post("alice.notes.localhost", "/notes", "after: "+c.name)
		if c.program != "" {
			if err := errors.Join(os.Remove(ten), os.Link(good, ten)); err != nil {
				t.Fatal(err)
			}
		}
	}
	writeConfig(t, config, "")
	d.upgrade()
	if pid := d.pid("notes:alice"); pid != tenant {
		t.Error("at last: the tenant was restarted")
	}
	d.get(http.StatusOK, "alice.notes.localhost", "/notes")
}

// replace puts another program in the place of the one at path, as an installation does.
func replace(t *testing.T, path, program string) {
	t.Helper()
	fresh := path + ".new"
	err := os.WriteFile(fresh, []byte(program), 0o700)
	if err := errors.Join(err, os.Rename(fresh, path)); err != nil {
		t.Fatal(err)
	}
}

// webSocket is a connection to a tenant that echoes.
type webSocket struct {
	t    *testing.T
	conn *websocket.Conn
}

func (d *daemon) webSocket(host string) webSocket {
	d.t.Helper()
	conn, _, err := websocket.Dial(d.t.Context(), d.base+"/ws", &websocket.DialOptions{Host: host})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.CloseNow() })
	return webSocket{d.t, conn}
}

func (s webSocket) echo(text string) {
	s.t.Helper()
	if got, err := s.tryEcho(text); got != text || err != nil {
		s.t.Fatalf("%q came back as %q, %v", text, got, err)
	}
}

func (s webSocket) tryEcho(text string) (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), httpTimeout)
	defer cancel()
	if err := s.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		return "", err
	}
	_, got, err := s.conn.Read(ctx)
	return string(got), err
}
