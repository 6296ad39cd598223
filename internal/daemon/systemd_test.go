package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenement"
	"tenement/internal/config"
	"tenement/internal/daemon"
	"tenement/internal/runtime/runtimetest"
)

// serviceDir, in the environment, makes this test binary the daemon of that
// directory, as a service manager starts it.
const serviceDir = "TENEMENT_TEST_SERVICE_DIR"

// manager stands in for systemd: it holds the front's socket, which outlives the
// daemons, and hears what they say.
type manager struct {
	t      *testing.T
	dir    string
	front  *net.TCPListener
	notify *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, dir: shortDir(t)}
	text := strings.Replace(settings, "127.0.0.1:0", "127.0.0.1:1", 1) + service("api", `health = "/health"`+"\ncreate = 'on-request'")
	if err := os.WriteFile(filepath.Join(m.dir, "tenement.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.front = front.(*net.TCPListener)
	t.Cleanup(func() { _ = front.Close() })
	if m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(m.dir, "notify"), Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.notify.Close() })
	return m
}

// unit is one run of the daemon below a manager.
type unit struct {
	process *os.Process
	ended   chan error
	log     *runtimetest.Buffer
}

// start runs the test that calls it once more, as the daemon; a shell in between
// knows its pid in time for LISTEN_PID.
func (m *manager) start(names string, sockets ...*os.File) *unit {
	m.t.Helper()
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"`, os.Args[0], "-test.run", "^"+m.t.Name()+"$")
	cmd.Env = append(os.Environ(),
		serviceDir+"="+m.dir, "NOTIFY_SOCKET="+m.notify.LocalAddr().String(), "WATCHDOG_USEC=100000",
		fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_FDNAMES="+names)
	cmd.ExtraFiles = sockets
	u := &unit{log: new(runtimetest.Buffer), ended: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = u.log, u.log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	u.process = cmd.Process
	go func() { u.ended <- cmd.Wait() }()
	m.t.Cleanup(func() {
		_ = u.process.Kill()
		if m.t.Failed() {
			m.t.Logf("the daemon's output:\n%s", u.log.String())
		}
	})
	return u
}

func (m *manager) file() *os.File {
	m.t.Helper()
	f, err := m.front.File()
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = f.Close() })
	return f
}

// hears waits for a message that has the assignment, and gives the whole of it.
func (m *manager) hears(assignment string) string {
	m.t.Helper()
	buffer := make([]byte, 4096)
	_ = m.notify.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		n, err := m.notify.Read(buffer)
		if err != nil {
			m.t.Fatalf("no message with %s: %v", assignment, err)
		}
		for line := range strings.Lines(string(buffer[:n])) {
			if strings.TrimSpace(line) == assignment {
				return string(buffer[:n])
			}
		}
	}
}

// beTheDaemon is what the re-executed test does; false when it is the test itself.
func beTheDaemon(t *testing.T) bool {
	t.Helper()
	dir, ok := os.LookupEnv(serviceDir)
	if !ok {
		return false
	}
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	c, err := config.Load(filepath.Join(dir, "tenement.toml"), config.Overrides{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	err = daemon.Run(ctx, daemon.Options{Config: c, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Stdout: os.Stdout})
	if err != nil {
		t.Fatalf("%v; hint: %s", err, tenement.HintOf(err))
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if value, ok := os.LookupEnv(name); ok {
			t.Errorf("%s=%s is left for children to inherit", name, value)
		}
	}
	return true
}

// TestSocketOutlivesTheDaemon: what connects while no daemon runs is answered by the
// next one, and a tenant gets neither the socket nor word of it.
func TestSocketOutlivesTheDaemon(t *testing.T) {
	if beTheDaemon(t) {
		return
	}
	t.Parallel()
	m := newManager(t)
	s := &site{t: t, address: m.front.Addr().String()}
	s.http = &http.Client{Transport: s.transport()}
	for range 2 {
		waiting := make(chan error, 1)
		go func() { // before there is a daemon
			_, _, err := s.ask(context.WithoutCancel(t.Context()), "http://alice.api.localhost/health")
			waiting <- err
		}()
		u := m.start(daemon.FrontName, m.file())
		if err := runtimetest.Within(t, "answer to who waited", waiting); err != nil {
			t.Fatal(err)
		}
		m.hears("READY=1")
		if !strings.Contains(u.log.String(), "not on the configured address") {
			t.Error("the log does not say that the configured address is not used")
		}
		m.leavesNoTrace(s)
		if err := u.process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		m.hears("STOPPING=1")
		s.http.CloseIdleConnections()
		if err := runtimetest.Within(t, "end of the daemon", u.ended); err != nil {
			t.Fatal(err)
		}
	}
}

// inode names the front's socket as /proc does. [os.File.Fd] would make it block, for
// the daemon too.
func (m *manager) inode() (name string) {
	m.t.Helper()
	raw, err := m.front.SyscallConn()
	if err != nil {
		m.t.Fatal(err)
	}
	if e := raw.Control(func(fd uintptr) { name, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)) }); e != nil || err != nil {
		m.t.Fatal(e, err)
	}
	return name
}

// leavesNoTrace looks at what a tenant was given.
func (m *manager) leavesNoTrace(s *site) {
	m.t.Helper()
	environment := s.get("http://alice.api.localhost/env")
	for _, name := range []string{"LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_"} {
		if strings.Contains(environment, name) {
			m.t.Errorf("a tenant sees %s* in %s", name, environment)
		}
	}
	open := fmt.Sprintf("/proc/%d/fd", s.pid("alice.api.localhost"))
	entries, err := os.ReadDir(open)
	if errors.Is(err, os.ErrNotExist) {
		return // no /proc on this platform
	}
	if err != nil {
		m.t.Fatal(err)
	}
	front := m.inode()
	for _, entry := range entries {
		if target, _ := os.Readlink(filepath.Join(open, entry.Name())); target == front {
			m.t.Errorf("a tenant holds the front's socket as descriptor %s", entry.Name())
		}
	}
}

// TestWatchdogHearsTheDaemon: it says that it is ready and then, again and again, that
// it lives.
func TestWatchdogHearsTheDaemon(t *testing.T) {
	if beTheDaemon(t) {
		return
	}
	t.Parallel()
	m := newManager(t)
	m.start(daemon.FrontName, m.file())
	if said := m.hears("READY=1"); !strings.Contains(said, "STATUS=Listening on "+m.front.Addr().String()) {
		t.Errorf("it says %q", said)
	}
	for range 3 {
		m.hears("WATCHDOG=1")
	}
}

// TestUnknownSocketsAreRefused: nobody would answer on them.
func TestUnknownSocketsAreRefused(t *testing.T) {
	if beTheDaemon(t) {
		return
	}
	t.Parallel()
	m := newManager(t)
	plain, err := os.Open(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Close() })
	tests := []struct {
		names   string
		sockets []*os.File
		want    string
	}{
		{"tenement.socket", []*os.File{m.file()}, "tenement.socket"},
		{"http:http", []*os.File{m.file(), m.file()}, `no use for the one called "http"`},
		{"http", []*os.File{plain}, "socket"},
	}
	for _, test := range tests {
		u := m.start(test.names, test.sockets...)
		if err := runtimetest.Within(t, "end of a daemon that cannot start", u.ended); err == nil {
			t.Errorf("%s: it started", test.names)
		}
		if out := u.log.String(); !strings.Contains(out, test.want) || !strings.Contains(out, "FileDescriptorName=http") {
			t.Errorf("%s: it says %s", test.names, out)
		}
	}
}
