package escape

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/cgroup"
	"tenement/internal/runtime/runtimetest"
)

// Who is who. Mallory's program is hostile; the others are tenants like her.
var (
	mallory   = tenement.InstanceID{Service: "shop", Name: "mallory"}
	alice     = tenement.InstanceID{Service: "shop", Name: "alice"} // of the same service
	bob       = tenement.InstanceID{Service: "bank", Name: "bob"}
	scratch   = tenement.InstanceID{Service: "scratch", Name: "mallory"} // whose files are removed at every sleep
	filler    = tenement.InstanceID{Service: "filler", Name: "mallory"}  // with a quota
	hoarder   = tenement.InstanceID{Service: "hoarder", Name: "mallory"} // with few descriptors
	bomber    = tenement.InstanceID{Service: "bomber", Name: "mallory"}  // with limits that only a cgroup keeps
	throwaway = tenement.InstanceID{Service: "shop", Name: "throwaway"}  // hers, to be deleted
)

const configuration = `
[settings]
domain = "localhost"
max_restarts = 100

[service.shop]
command = "%[1]s %[2]s {data_dir}/{id}/state.db"
isolation = "%[3]s"
%[5]s
health = "/me"
stop_timeout = 1
env = { GORACE = "atexit_sleep_ms=0" } # of the race detector, at each end

[service.bank]
command = "%[1]s %[2]s"
isolation = "%[3]s"
%[5]s
health = "/me"
stop_timeout = 1
env = { GORACE = "atexit_sleep_ms=0", PASSWORD = "%[4]s" }

[service.scratch]
command = "%[1]s %[2]s"
isolation = "%[3]s"
%[5]s
health = "/me"
stop_timeout = 1
env = { GORACE = "atexit_sleep_ms=0" } # of the race detector, at each end
storage_persist = false

[service.filler]
command = "%[1]s %[2]s"
isolation = "%[3]s"
%[5]s
health = "/me"
stop_timeout = 1
env = { GORACE = "atexit_sleep_ms=0" } # of the race detector, at each end
storage_quota_mb = 2

[service.hoarder]
command = "%[1]s %[2]s"
isolation = "%[3]s"
%[5]s
health = "/me"
stop_timeout = 1
env = { GORACE = "atexit_sleep_ms=0" } # of the race detector, at each end
open_files_limit = 64

[service.bomber]
command = "%[1]s %[2]s"
isolation = "%[3]s"
%[5]s
health = "/me"
stop_timeout = 1
env = { GORACE = "atexit_sleep_ms=0" } # of the race detector, at each end
pids_limit = 64
memory_limit_mb = 64
`

// world is a daemon and its tenants at one level of isolation, and what else is on the
// machine: services of the host, the metadata address, an operator's terminal.
type world struct {
	t        *testing.T
	level    tenement.Isolation
	dataDir  string // below no place that tenants have to themselves, as on a real machine
	process  *os.Process
	said     *transcript
	base     string // http://127.0.0.1:PORT
	client   *http.Client
	api      *api.Client
	terminal *os.File          // the other end of the daemon's
	user     *runtimetest.User // whose daemon it is; nil for root's

	environment, descriptor, password, state string // secrets of the daemon
}

// Addresses of the machine that are not loopback ones.
const (
	machineAddress  = "203.0.113.1"
	metadataAddress = "169.254.169.254"
	hostPort        = 7777
)

var build = sync.OnceValues(func() (string, error) {
	program := filepath.Join(programs, "ten")
	cmd := exec.Command("go", "build", "-o", program, "tenement/cmd/ten")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return program, nil
})

// newWorld starts a daemon at a level, or skips the test where the machine has none.
func newWorld(t *testing.T, level tenement.Isolation) *world {
	t.Helper()
	ten, err := build()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, level: level, dataDir: "/srv/" + strings.ReplaceAll(string(level), ", no ", "-without-"), said: &transcript{},
		client:      &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second},
		environment: newSecret("environment"), descriptor: newSecret("descriptor"), password: newSecret("password"), state: newSecret("state"),
	}
	if level == withoutRoot {
		w.user = runtimetest.NewUser(t)
		ten = w.user.Install(t, ten)
	}
	w.launch(ten)
	target := api.Target{Socket: w.files(w.dataDir, ".tenement", "ten.sock")}
	if w.user != nil { // to whose daemon we are a stranger
		target.Token = w.newToken(ten)
	}
	if w.api, err = api.NewClient(target); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.api.CloseIdleConnections)
	must(t, os.WriteFile(w.files(w.dataDir, ".tenement", "secret"), []byte(w.state), 0o600))
	for _, id := range []tenement.InstanceID{alice, bob, mallory} {
		if _, err := w.api.Spawn(t.Context(), id, api.SpawnOptions{Wake: true}); err != nil {
			t.Fatalf("%s: %v\n%s", id, err, tenement.HintOf(err))
		}
	}
	return w
}

// files is a path of the daemon's file system.
func (w *world) files(path ...string) string {
	return filepath.Join(slices.Concat([]string{"/proc", strconv.Itoa(w.process.Pid), "root"}, path)...)
}

// data is a path in an instance's data directory, as tenants name it.
func (w *world) data(id tenement.InstanceID, name string) string {
	return filepath.Join(w.dataDir, id.Service, id.Name, name)
}

// launch starts the daemon as a careless operator might: from a terminal, with a
// descriptor open, and with secrets in its environment and its configuration.
func (w *world) launch(ten string) {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	isolation, egress := w.level, ""
	if w.user != nil {
		isolation, egress, self = tenement.IsolationNamespace, `egress = "deny"`, w.user.Install(w.t, self)
	}
	text := fmt.Sprintf(configuration, self, hostileArg, isolation, w.password, egress)
	left := filepath.Join(w.t.TempDir(), "left-open")
	must(w.t, os.WriteFile(left, []byte(w.descriptor), 0o600))
	file, err := os.Open(left)
	if err != nil {
		w.t.Fatal(err)
	}
	defer file.Close()
	theirs := w.openTerminal()
	defer theirs.Close()
	script := `mount -t tmpfs escape /srv && mkdir /srv/etc && printf %s "$CONFIGURATION" > /srv/etc/tenement.toml && unset CONFIGURATION`
	serve := []string{ten, "serve", "--config", "/srv/etc/tenement.toml", "--data-dir", w.dataDir, "--listen", "127.0.0.1:0"}
	cmd := exec.Command("sh", append([]string{"-ec", script + `
exec "$@"`, "sh"}, serve...)...)
	if w.user != nil {
		cmd = w.user.CommandAfter(script+" && chown -R nobody /srv", serve...)
		cmd.Dir = "/"
	}
	cmd.Env = append(os.Environ(), "CONFIGURATION="+text, "DAEMON_SECRET="+w.environment)
	cmd.Stdin, cmd.Stderr, cmd.ExtraFiles = theirs, w.said, []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	must(w.t, cmd.Start())
	w.process = cmd.Process
	w.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		if err := cmd.Wait(); err != nil {
			w.t.Errorf("the daemon: %v", err)
		}
		if w.t.Failed() {
			w.t.Logf("the daemon has said:\n%s", w.said)
		}
	})
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			w.base = strings.Fields(rest)[0]
			go func() { _, _ = io.Copy(w.said, stdout) }()
			return
		}
	}
	w.t.Fatalf("the daemon ended before it served:\n%s", w.said)
}

// newToken is an admin's, from the user who has the daemon.
func (w *world) newToken(ten string) string {
	w.t.Helper()
	out, err := exec.Command("nsenter", "--mount=/proc/"+strconv.Itoa(w.process.Pid)+"/ns/mnt", "setpriv", "--reuid=nobody", "--regid=65534", "--clear-groups",
		ten, "token-gen", "--config", "/srv/etc/tenement.toml", "--data-dir", w.dataDir).Output()
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// openTerminal makes a pseudo-terminal (pts(4)), and gives the daemon's end.
func (w *world) openTerminal() *os.File {
	w.t.Helper()
	var err error
	w.terminal, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.terminal.Close() })
	fd := int(w.terminal.Fd())
	must(w.t, unix.SetNonblock(fd, true)) // Fd has undone it
	must(w.t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		w.t.Fatal(err)
	}
	theirs, err := os.OpenFile("/dev/pts/"+strconv.Itoa(int(n)), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return theirs
}

// onTerminal is what was written to the daemon's terminal, or typed there and echoed.
func (w *world) onTerminal() string {
	buf := make([]byte, 4096)
	n, err := unix.Read(int(w.terminal.Fd()), buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// get asks a tenant through the front; an error is the status 0.
func (w *world) get(id tenement.InstanceID, path string, header ...string) (status int, body string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.base+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Host = host(id)
	for pair := range slices.Chunk(header, 2) {
		req.Header.Add(pair[0], pair[1])
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

func host(id tenement.InstanceID) string { return id.Name + "." + id.Service + ".localhost" }

// do has a tenant take a step and gives what it got by it. That it failed is no fault of
// the test; it is logged.
func (w *world) do(id tenement.InstanceID, step string, args ...string) string {
	w.t.Helper()
	query := url.Values{}
	for pair := range slices.Chunk(args, 2) {
		query.Add(pair[0], pair[1])
	}
	status, text := w.get(id, "/do/"+step+"?"+query.Encode())
	var result taken
	if err := json.Unmarshal([]byte(text), &result); status != http.StatusOK || err != nil {
		w.t.Fatalf("%s did not answer what it did: %d %s", id, status, text)
	}
	if result.Error == errUnknownStep.Error() {
		w.t.Fatalf("%s: %s", step, result.Error)
	}
	w.t.Logf("%s %s %q: %.200q, %s", id.Name, step, args, result.Got, result.Error)
	return result.Got
}

// who asks a tenant about itself.
func (w *world) who(id tenement.InstanceID) me {
	w.t.Helper()
	var m me
	status, text := w.get(id, "/me")
	if err := json.Unmarshal([]byte(text), &m); err != nil || status != http.StatusOK {
		w.t.Fatalf("%s: %d %s", id, status, text)
	}
	own := m.PID
	if state, err := w.api.Instance(w.t.Context(), id); err != nil {
		w.t.Fatal(err)
	} else {
		m.Seen, m.PID = state.PID, state.PID
		if w.user != nil { // and its tenants are in a pid namespace
			m.Seen = own
		}
	}
	return m
}

// port is that of an instance's process, where it is one of the machine's.
func (w *world) port(id tenement.InstanceID) int {
	w.t.Helper()
	state, err := w.api.Instance(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return state.Port
}

func (w *world) wake(id tenement.InstanceID) {
	w.t.Helper()
	if _, err := w.api.Spawn(w.t.Context(), id, api.SpawnOptions{Wake: true}); err != nil {
		w.t.Fatalf("%s: %v", id, err)
	}
}

func (w *world) stop(id tenement.InstanceID) {
	w.t.Helper()
	must(w.t, w.api.Stop(w.t.Context(), id))
}

// read is a file of the daemon's file system, for the test to verify.
func (w *world) read(path string) string {
	w.t.Helper()
	text, err := os.ReadFile(w.files(path))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// members are all processes of an instance, whatever they say of themselves.
func (w *world) members(id tenement.InstanceID) []int {
	w.t.Helper()
	var pids []int
	dir, err := cgroup.Of(w.who(id).PID)
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		w.t.Fatal(err)
	}
	for word := range strings.FieldsSeq(string(text)) {
		pid, _ := strconv.Atoi(word)
		pids = append(pids, pid)
	}
	return pids
}

// serveHost is what else is on the machine: services that trust whoever reaches them.
func serveHost(t *testing.T) (secret string) {
	t.Helper()
	secret = newSecret("host")
	must(t, errors.Join(addAddress(machineAddress), addAddress(metadataAddress)))
	for _, at := range [][2]string{
		{"tcp", fmt.Sprintf("127.0.0.1:%d", hostPort)}, {"tcp", fmt.Sprintf("[::1]:%d", hostPort)},
		{"tcp", fmt.Sprintf("%s:%d", machineAddress, hostPort)}, {"tcp", metadataAddress + ":80"}, {"unix", hostSocket},
	} {
		l, err := net.Listen(at[0], at[1])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, secret)
				_ = conn.Close()
			}
		}()
	}
	return secret
}

// addAddress gives one to the loopback interface, which is the test's own.
func addAddress(address string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.AddrReplace(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(address).To4(), Mask: net.CIDRMask(32, 32)}})
}

// transcript is what the daemon has said.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually reports whether ok came to hold within a moment: long enough for whatever is
// on its way to arrive.
func eventually(ok func() bool) bool {
	for deadline := time.Now().Add(500 * time.Millisecond); ; <-time.After(5 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

var alive = runtimetest.Alive
