package runtimetest

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenement"
	"tenement/internal/runtime"
)

// held runs the tenant program once the func that it gives is called.
func (b *bench) held(s runtime.Spec) (_ runtime.Spec, letGo func()) {
	b.t.Helper()
	wait := templates("sh", "-c", `until [ -e "$DATA_DIR/go" ]; do sleep 0.01; done; exec "$@"`, "sh")
	s.Service.Command = append(wait, s.Service.Command...)
	return s, func() {
		b.t.Helper()
		if err := os.WriteFile(filepath.Join(s.DataDir, "go"), nil, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}

func testListening(t *testing.T, b *bench) {
	s, letGo := b.held(b.spec("alice", TenantCommand()...))
	p := b.start(s)
	began, done := p.Listening()
	defer done()
	if began == nil {
		t.Skip("nobody tells here: take a runtime with cgroups, as root on Linux 5.15 or newer; TENEMENT_REQUIRE=bpf makes this a failure")
	}
	select {
	case <-began:
		t.Fatal("told before it listens")
	default:
	}
	letGo()
	Within(t, "event", began)
	conn, err := p.Dial(t.Context())
	if err != nil {
		t.Fatalf("it does not accept connections when it is said to: %v", err)
	}
	_ = conn.Close() // nothing was sent
}

// passed is a tenant with a passed socket that runs once letGo is called.
func (b *bench) passed() (_ runtime.Spec, letGo func()) {
	b.t.Helper()
	s, letGo := b.held(b.spec("alice", TenantCommand()...))
	s.Service.Listen = tenement.ListenFD
	s.Service.Limits.OpenFiles = 100 // which takes the same way to the process
	return s, letGo
}

// refuses wants an error of the start, with a hint that names a key.
func (b *bench) refuses(s runtime.Spec, key string) {
	b.t.Helper()
	_, err := b.rt.Start(b.t.Context(), s)
	if tenement.CodeOf(err) != tenement.CodeUnavailable || !strings.Contains(tenement.HintOf(err), key) {
		b.t.Errorf("error %v, hint %q", err, tenement.HintOf(err))
	}
}

// testPassed: what is sent before the program is there is answered when it is, also by
// one that was adopted meanwhile.
func testPassed(t *testing.T, b *bench) {
	s, letGo := b.passed()
	if b.ownKernel() {
		b.refuses(s, "listen")
		return
	}
	p := b.start(s)
	conn := b.send(p)
	adopted, err := b.rt.Adopt(t.Context(), runtime.Spec{Service: s.Service, Stdout: Discard{}, Stderr: Discard{}}, p.Ref())
	if err == nil {
		p = adopted
	}
	letGo()
	if text := read(t, conn); !strings.HasPrefix(text, "HTTP/1.1 200 ") {
		t.Errorf("answered %q", text)
	}
	var env []string
	if err := json.Unmarshal([]byte(b.get(p, "/env")), &env); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=http", "LISTEN_PID=" + b.get(p, "/pid"), "PORT=" + strconv.Itoa(p.Ref().Port)} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in %v", want, env)
		}
	}
	if got, _, _ := strings.Cut(b.get(p, "/files"), " "); Number(t, got) > 100 {
		t.Errorf("it can open %s files", got)
	}
}

// testPassedAndGone: nobody else has the socket. Who waits in it, or comes later, does
// not wait for ever.
func testPassedAndGone(t *testing.T, b *bench) {
	s, _ := b.passed()
	if b.ownKernel() {
		return // there is none
	}
	p := b.start(s)
	conn := b.send(p)
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	Within(t, "exit", p.Exited())
	if text := read(t, conn); text != "" {
		t.Errorf("answered %q", text)
	}
	// A process that another test just starts has a copy until its exec.
	Eventually(t, "refusal", func() bool {
		conn, err := p.Dial(t.Context())
		if err == nil {
			_ = conn.Close() // nothing was sent
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

// send sends a request to p.
func (b *bench) send(p runtime.Process) net.Conn {
	b.t.Helper()
	conn, err := p.Dial(b.t.Context())
	if err != nil {
		b.t.Fatalf("nobody listens before the program does: %v", err)
	}
	b.t.Cleanup(func() { _ = conn.Close() }) // all was read
	if _, err := conn.Write([]byte("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")); err != nil {
		b.t.Fatal(err)
	}
	return conn
}

// read is what comes until the other side closes, for whatever reason.
func read(t *testing.T, conn net.Conn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("it hangs after %q", text)
	}
	return string(text)
}

// speaker is a tenant that says of itself how it does.
func (b *bench) speaker(name string) runtime.Spec {
	b.t.Helper()
	s := b.spec(name, TenantCommand()...)
	s.Service.Ready = tenement.ReadyNotify
	return s
}

// says has p say something.
func (b *bench) says(p runtime.Process, text string) {
	b.t.Helper()
	if got := b.get(p, "/notify?text="+url.QueryEscape(text)); got != "sent" {
		b.t.Fatalf("%q: %s", text, got)
	}
}

// notifySocket is where p says it.
func (b *bench) notifySocket(p runtime.Process) string {
	b.t.Helper()
	var env []string
	if err := json.Unmarshal([]byte(b.get(p, "/env")), &env); err != nil {
		b.t.Fatal(err)
	}
	for _, variable := range env {
		if socket, ok := strings.CutPrefix(variable, "NOTIFY_SOCKET="); ok {
			return socket
		}
	}
	b.t.Fatalf("no NOTIFY_SOCKET in %v", env)
	return ""
}

// refused wants that nobody takes what p says at a socket.
func (b *bench) refused(p runtime.Process, socket string) {
	b.t.Helper()
	if got := b.get(p, "/notify?text=READY%3D1&to="+url.QueryEscape(socket)); got == "sent" {
		b.t.Errorf("somebody listens at %s", socket)
	}
}

func testNotices(t *testing.T, b *bench) {
	s := b.speaker("alice")
	if b.ownKernel() {
		b.refuses(s, "ready")
		return
	}
	p := b.start(s)
	if got := Within(t, "notice", p.Notices()); got != (runtime.Notice{Ready: true}) {
		t.Fatalf("heard %+v", got)
	}
	b.awaitHealth(p)
	for text, want := range map[string]runtime.Notice{
		"STOPPING=1\nBARRIER=1":                               {Stopping: true},
		"EXTEND_TIMEOUT_USEC=1500000":                         {Extend: 1500 * time.Millisecond},
		"READY=1\nEXTEND_TIMEOUT_USEC=18446744073709551615\n": {Ready: true, Extend: 24 * time.Hour},
	} {
		b.says(p, "STATUS=of no interest")
		b.says(p, "EXTEND_TIMEOUT_USEC=-1")
		b.says(p, text)
		if got := Within(t, "notice", p.Notices()); got != want {
			t.Errorf("%q is heard as %+v", text, got)
		}
	}
}

// testStrangersNotices: nobody speaks for another instance.
func testStrangersNotices(t *testing.T, b *bench) {
	if b.ownKernel() {
		return // nothing is said
	}
	alice, bob := b.start(b.speaker("alice")), b.start(b.speaker("bob"))
	for _, p := range []runtime.Process{alice, bob} {
		Within(t, "notice", p.Notices())
		b.awaitHealth(p)
	}
	socket := b.notifySocket(alice)
	got := b.get(bob, "/notify?text=STOPPING%3D1&to="+url.QueryEscape(socket))
	if alice.Ref().Isolation != tenement.IsolationProcess && got == "sent" {
		t.Errorf("%s is reached from another network", socket)
	}
	b.says(alice, "EXTEND_TIMEOUT_USEC=1")
	if got := Within(t, "notice", alice.Notices()); got != (runtime.Notice{Extend: time.Microsecond}) {
		t.Errorf("heard %+v", got)
	}
}
