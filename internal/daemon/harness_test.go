package daemon_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/config"
	"tenement/internal/daemon"
	"tenement/internal/probe"
	"tenement/internal/runtime/runtimetest"
)

func dialTo(address string) probe.Dial {
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
}

func TestMain(m *testing.M) {
	runtimetest.TenantMain()
	runtimetest.OwnNetwork()
	goleak.VerifyTestMain(m)
}

// site is one whole daemon with real tenants, in a directory of its own.
type site struct {
	t       testing.TB
	dir     string // the data directory
	address string // of the front
	api     *api.Client
	http    *http.Client
	text    atomic.Value // the configuration, read again by a reload
	stop    func()       // ends the daemon and waits; harmless when repeated
}

// settings begins a configuration whose tenants react in test time.
const settings = `
[settings]
listen = "127.0.0.1:0"
health_check_interval = "100ms"
backoff_base_ms = 50
`

// service is a [service.NAME] section that runs the tenant program with flags.
func service(name, keys string, flags ...string) string {
	var words []string
	for _, word := range runtimetest.TenantCommand(flags...) {
		words = append(words, "'"+word+"'")
	}
	return fmt.Sprintf("\n[service.%s]\ncommand = %s\n%s\n", name, strconv.Quote(strings.Join(words, " ")), keys)
}

// build starts a daemon for text that ends with the test.
func build(t testing.TB, text string) *site {
	t.Helper()
	return buildIn(t, shortDir(t), text)
}

// shortDir is a directory whose path leaves room for a socket's (107 bytes).
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ten") //nolint:usetesting // t.TempDir's paths are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// buildIn is build on a data directory that may have had a daemon before.
func buildIn(t testing.TB, dir, text string) *site {
	t.Helper()
	return buildWith(t, dir, text, false)
}

// buildWith may keep the tenants when the daemon ends.
func buildWith(t testing.TB, dir, text string, keep bool) *site {
	t.Helper()
	s := &site{t: t, dir: dir}
	s.text.Store(text)
	c, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	stdout, announce := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- daemon.Run(ctx, daemon.Options{
			Config: c, Load: s.load, Keep: keep,
			Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Stdout: announce,
		})
		_ = announce.Close()
	}()
	s.address = readAddress(t, stdout, done)
	s.stop = func() {
		cancel()
		if done == nil {
			return
		}
		if err := runtimetest.Within(t, "end of the daemon", done); err != nil {
			t.Errorf("daemon: %v", err)
		}
		done = nil
	}
	t.Cleanup(s.stop)
	s.api, err = api.NewClient(api.Target{Socket: daemon.SocketPath(dir)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.api.CloseIdleConnections)
	s.http = &http.Client{Transport: s.transport(), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s
}

// load parses the text as if it were a file.
func (s *site) load() (*config.Config, error) {
	text, _ := s.text.Load().(string)
	return config.Parse(filepath.Join(s.dir, "tenement.toml"), []byte(text), config.Overrides{DataDir: s.dir})
}

func readAddress(t testing.TB, stdout io.Reader, done <-chan error) string {
	t.Helper()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the daemon did not start: %v", <-done)
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on http://")
	if !ok {
		t.Fatalf("first line of output %q", line)
	}
	return address
}

// transport reaches the front whatever host a URL names.
func (s *site) transport() *http.Transport {
	transport := &http.Transport{
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", s.address)
		},
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// spawn registers instances without starting them.
func (s *site) spawn(ids ...string) {
	s.t.Helper()
	for _, text := range ids {
		if _, err := s.api.Spawn(s.t.Context(), id(s.t, text), api.SpawnOptions{}); err != nil {
			s.t.Fatal(err)
		}
	}
}

func id(t testing.TB, text string) tenement.InstanceID {
	t.Helper()
	parsed, err := tenement.ParseInstanceID(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// ask sends one GET and gives the status and the body.
func (s *site) ask(ctx context.Context, url string) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	answer, err := s.http.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), err
}

// get wants 200 and gives the body.
func (s *site) get(url string) string {
	s.t.Helper()
	status, body, err := s.ask(s.t.Context(), url)
	if err != nil || status != http.StatusOK {
		s.t.Fatalf("GET %s: %d %s %v", url, status, body, err)
	}
	return body
}

// wants a GET of url to be answered with status.
func (s *site) wants(url string, status int) string {
	s.t.Helper()
	got, body, err := s.ask(s.t.Context(), url)
	if err != nil || got != status {
		s.t.Errorf("GET %s: %d %s %v, want %d", url, got, body, err, status)
	}
	return body
}

func (s *site) pid(host string) int {
	s.t.Helper()
	pid, err := strconv.Atoi(s.get("http://" + host + "/pid"))
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

func (s *site) instance(text string) api.Instance {
	s.t.Helper()
	i, err := s.api.Instance(s.t.Context(), id(s.t, text))
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

// until waits for an instance to be in a state.
func (s *site) until(text string, state tenement.State) {
	s.t.Helper()
	runtimetest.Eventually(s.t, text+" is "+state.String(), func() bool { return s.instance(text).State == state })
}

func (s *site) write(path, text string, mode os.FileMode) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
}

// gone waits for a process to be no more.
func gone(t testing.TB, pid int) {
	t.Helper()
	runtimetest.Eventually(t, fmt.Sprintf("process %d is gone", pid), func() bool { return !runtimetest.Alive(pid) })
}

// timeout is a context for requests that must not outlast the test.
func timeout(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
