// Package e2e runs the real binary as its users do: the examples, the commands of the
// documents, and the accidents that a daemon must survive.
package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tenement/internal/runtime/runtimetest"
)

// The bounds are for a machine that is busy with everything else; nothing waits
// for them when all is well.
const (
	startTimeout = 60 * time.Second // until the daemon says where it listens
	stopTimeout  = 60 * time.Second // from SIGTERM to its end
	httpTimeout  = 60 * time.Second // one request, a cold start included
)

// startLine precedes the daemon's address on its standard output.
const startLine = "listening on "

// root is where the programs lie for all tests of one run, laid out as in the
// repository: <root>/bin/ten, <root>/bin/notes and <root>/examples, so that the
// examples' configurations hold as they are shipped. TestMain sets it.
var root string

func TestMain(m *testing.M) {
	runtimetest.TenantMain()
	runtimetest.OwnNetwork()
	dir, err := os.MkdirTemp("", "tenement-e2e-")
	if err != nil {
		panic(err)
	}
	root = dir
	status := m.Run()
	_ = os.RemoveAll(dir) // left-overs in the temporary directory are no failure
	os.Exit(status)
}

// build fills root, once, for the first test that needs it.
var build = sync.OnceValue(func() error {
	err := errors.Join(buildProgram("ten", "tenement/cmd/ten"), buildProgram("notes", "tenement/examples/notes"))
	if err != nil {
		return err
	}
	return os.CopyFS(filepath.Join(root, "examples"), os.DirFS("../../examples"))
})

// buildProgram makes <root>/bin/<name>.
func buildProgram(name, pkg string, flags ...string) error {
	args := append([]string{"build", "-o", filepath.Join(root, "bin", name)}, flags...)
	cmd := exec.Command("go", append(args, pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return nil
}

// require skips the test when program is missing, or fails it when
// TENEMENT_REQUIRE, a comma-separated list, names the program.
func require(t *testing.T, program, install string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	message := program + " is missing: " + install
	if slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), program) {
		t.Fatal(message)
	}
	t.Skip(message)
}

func requirePython(t *testing.T) {
	t.Helper()
	require(t, "python3", "install Python 3.9 or newer (Debian: apt-get install python3)")
}

func requireNode(t *testing.T) {
	t.Helper()
	require(t, "node", "install Node.js 18 or newer (Debian: apt-get install nodejs)")
}

// daemon is a running `ten serve` of one example.
type daemon struct {
	t       *testing.T
	ten     string // the binary
	program string // the path of the one that an upgrade starts, if it may be replaced
	config  string
	dataDir string
	mounts  string                         // where its file system begins for the test
	as      func(args ...string) *exec.Cmd // what its user runs; nil if that is the test's own
	base    string                         // http://127.0.0.1:PORT
	client  *http.Client
	process *os.Process
	serving int  // the process that serves: after an upgrade another one
	killed  bool // by the test itself: how it ends is no fault
	output  *transcript
	address chan string // receives base
	ended   chan error  // receives how the process has ended; it is put back
}

// start serves the named example on a free port, with a data directory of its
// own, until the test ends.
func start(t *testing.T, example string) *daemon {
	t.Helper()
	return startConfig(t, filepath.Join(root, "examples", example, "tenement.toml"), t.TempDir())
}

// startConfig serves a configuration on a data directory that may have had a daemon
// before.
func startConfig(t *testing.T, config, dataDir string) *daemon {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return startAt(t, filepath.Join(root, "bin", "ten"), config, dataDir, "127.0.0.1:0")
}

// again starts the next daemon, at the address of d.
func (d *daemon) again() *daemon {
	d.t.Helper()
	return startAt(d.t, d.ten, d.config, d.dataDir, strings.TrimPrefix(d.base, "http://"))
}

// startAt serves with the program ten; flags are further ones.
func startAt(t *testing.T, ten, config, dataDir, listen string, flags ...string) *daemon {
	t.Helper()
	d := launch(t, exec.Command(ten), config, dataDir, listen, flags...)
	d.waitServing()
	return d
}

// startLean serves with a daemon that has little in memory but what it uses: what is
// resident then tells what something costs.
func startLean(t *testing.T, dataDir string) *daemon {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(root, "bin", "ten"))
	cmd.Env = append(os.Environ(), "GOGC=25")
	d := launch(t, cmd, filepath.Join(root, "examples", "notes", "tenement.toml"), dataDir, "127.0.0.1:0")
	d.waitServing()
	return d
}

// startOn serves on a socket that it is given, as a unit's is by systemd (sd_listen_fds(3)).
func startOn(t *testing.T, socket *os.File, address, config, dataDir string) *daemon {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	ten := filepath.Join(root, "bin", "ten")
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", ten)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=http")
	cmd.ExtraFiles = []*os.File{socket}
	d := launch(t, cmd, config, dataDir, address)
	d.ten = ten
	d.waitServing()
	return d
}

// launch starts cmd with the arguments of a daemon; flags are further ones.
func launch(t *testing.T, cmd *exec.Cmd, config, dataDir, listen string, flags ...string) *daemon {
	t.Helper()
	d := &daemon{
		t:       t,
		ten:     cmd.Path,
		config:  config,
		dataDir: dataDir,
		client: &http.Client{
			Transport:     &http.Transport{},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       httpTimeout,
		},
		output:  &transcript{t: t},
		address: make(chan string, 1),
		ended:   make(chan error, 1),
	}
	t.Cleanup(d.client.CloseIdleConnections)

	// A command of its own, not CommandContext: the test's context ends before its
	// clean-up, and would kill the daemon instead of letting it stop in order.
	args := []string{"serve", "--config", d.config, "--data-dir", d.dataDir, "--listen", listen}
	cmd.Args = append(append(cmd.Args, args...), flags...)
	cmd.Stderr = d.output
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.process, d.serving = cmd.Process, cmd.Process.Pid
	go func() {
		follow(stdout, d.output, d.address)
		d.ended <- cmd.Wait()
	}()
	t.Cleanup(d.stop)
	return d
}

// waitServing returns when the daemon says where it listens.
func (d *daemon) waitServing() {
	d.t.Helper()
	select {
	case d.base = <-d.address:
	case err := <-d.ended:
		d.ended <- err
		d.t.Fatalf("the daemon ended before it served: %v", err)
	case <-time.After(startTimeout):
		d.t.Fatalf("the daemon did not print %q within %s", startLine, startTimeout)
	}
}

// follow copies the daemon's standard output and picks its address out of it.
func follow(stdout io.Reader, output io.Writer, address chan<- string) {
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		_, _ = io.WriteString(output, lines.Text()+"\n") // a transcript never fails
		if rest, ok := strings.CutPrefix(lines.Text(), startLine); ok {
			select {
			case address <- strings.Fields(rest)[0]:
			default: // told already
			}
		}
	}
}

// stop ends the daemon as an operator does and demands that it obeys: it has ended when
// no process is left that could write to its output.
func (d *daemon) stop() {
	defer d.output.close()
	if d.serving != 0 {
		_ = syscall.Kill(d.serving, syscall.SIGTERM) // it may have ended already
	}
	d.serving = 0
	select {
	case err := <-d.ended:
		d.ended <- err
		if err != nil && !d.killed {
			d.t.Errorf("the daemon ended with %v", err)
		}
	case <-time.After(stopTimeout):
		_ = d.process.Kill()
		for _, pid := range daemons(d.t, d.dataDir) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		err := <-d.ended
		d.ended <- err
		d.t.Errorf("the daemon did not end within %s of SIGTERM and was killed: %v", stopTimeout, err)
	}
}

// files is the data directory as the test finds it.
func (d *daemon) files() string { return filepath.Join(d.mounts, d.dataDir) }

// command runs one `ten` command against the daemon and gives what it printed.
func (d *daemon) command(args ...string) string {
	d.t.Helper()
	out, err := d.tryCommand(args...)
	if err != nil {
		d.t.Fatalf("ten %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// tryCommand gives what a command printed: on its standard output, or on both when it
// failed.
func (d *daemon) tryCommand(args ...string) (string, error) {
	// Before the arguments: those of exec and run are another program's.
	args = slices.Concat([]string{"--config", d.config, "--data-dir", d.files()}, args)
	cmd := exec.CommandContext(d.t.Context(), d.ten, args...)
	if d.as != nil {
		cmd = d.as(append([]string{d.ten}, args...)...)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String() + stderr.String(), err
	}
	return stdout.String(), nil
}

// answer is what came back for one request.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends one request to the named host; header holds pairs of name and value.
func (d *daemon) do(method, host, path, body string, header ...string) answer {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.base+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Host = host
	for pair := range slices.Chunk(header, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	resp, err := d.client.Do(req)
	if err != nil {
		d.t.Fatalf("%s %s%s: %v", method, host, path, err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatalf("%s %s%s: %v", method, host, path, err)
	}
	return answer{resp.StatusCode, resp.Header, string(content)}
}

// get is do for a plain GET that must answer with the status.
func (d *daemon) get(status int, host, path string, header ...string) answer {
	d.t.Helper()
	return d.expect(status, http.MethodGet, host, path, "", header...)
}

// post is do for a POST of plain text that must answer 201.
func (d *daemon) post(host, path, text string) answer {
	d.t.Helper()
	return d.expect(http.StatusCreated, http.MethodPost, host, path, text, "Content-Type", "text/plain")
}

func (d *daemon) expect(status int, method, host, path, body string, header ...string) answer {
	d.t.Helper()
	a := d.do(method, host, path, body, header...)
	if a.status != status {
		d.t.Fatalf("%s %s%s: status %d, want %d\n%s", method, host, path, a.status, status, a.body)
	}
	return a
}

// transcript keeps the daemon's output, and passes it to the test's log for as long as
// the test may log.
type transcript struct {
	mu   sync.Mutex
	t    *testing.T // nil after close
	said bytes.Buffer
}

func (w *transcript) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said.Write(p)
	if w.t != nil {
		w.t.Logf("ten: %s", bytes.TrimRight(p, "\n"))
	}
	return len(p), nil
}

// count is how often the daemon has said text.
func (w *transcript) count(text string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Count(w.said.Bytes(), []byte(text))
}

func (w *transcript) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = nil
}
