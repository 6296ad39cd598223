package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tenement"
	"tenement/internal/config"
	"tenement/internal/runtime/runtimetest"
)

var alice = tenement.InstanceID{Service: "api", Name: "alice"}

// tenant is an acquirer with one process, pid 42, that serves at address. Bob cannot be
// had, and whoever asks for carol waits for ever.
type tenant struct {
	address  string
	gone     chan struct{}
	released chan struct{}
	gaveUp   chan struct{}
	relay    net.Listener // where it is relayed
}

func (f *tenant) Acquire(ctx context.Context, id tenement.InstanceID) (tenement.Lease, error) {
	switch id.Name {
	case "alice":
		return tenantLease{f}, nil
	case "bob":
		return nil, &tenement.Error{Code: tenement.CodeSuspended, Op: "wake", Err: errors.New("off"), Hint: "on", RetryAfter: time.Minute}
	}
	<-ctx.Done()
	close(f.gaveUp)
	return nil, ctx.Err()
}

func (f *tenant) Hold(_ context.Context, _ tenement.InstanceID, pid int) (tenement.Lease, error) {
	if pid != 42 {
		return nil, &tenement.Error{Code: tenement.CodeNotFound, Op: "hold", Err: errors.New("another process")}
	}
	return tenantLease{f}, nil
}

type tenantLease struct{ of *tenant }

func (tenantLease) Service() *tenement.Service   { return nil }
func (tenantLease) Transport() http.RoundTripper { return nil }
func (tenantLease) PID() int                     { return 42 }
func (l tenantLease) Gone() <-chan struct{}      { return l.of.gone }
func (l tenantLease) Release()                   { l.of.released <- struct{}{} }

func (l tenantLease) Dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", l.of.address)
}

// relayed is a relay to a daemon that has the tenant.
func relayed(t *testing.T, f *tenant) *relay {
	t.Helper()
	dir, err := os.MkdirTemp("", "ten") //nolint:usetesting // t.TempDir's paths are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	f.gone, f.released, f.gaveUp = make(chan struct{}), make(chan struct{}, 10), make(chan struct{})
	d := &daemon{Options: Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil))}}
	d.setHolder(f)
	path := filepath.Join(dir, "relay.sock")
	l, err := d.listenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	f.relay = l
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	go func() { done <- d.serveRelay(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		_ = l.Close() // a test may have done so
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	service := &tenement.Service{Name: "api"}
	return &relay{path: path, config: func() *config.Config {
		return &config.Config{Services: map[string]*tenement.Service{"api": service}}
	}}
}

func acquired(t *testing.T, r *relay) tenement.Lease {
	t.Helper()
	lease, err := r.Acquire(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

func TestRelayCarriesRequests(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(server.Close)
	f := &tenant{address: server.Listener.Addr().String()}
	lease := acquired(t, relayed(t, f))
	if lease.PID() != 42 || lease.Service().Name != "api" {
		t.Errorf("pid %d, service %v", lease.PID(), lease.Service())
	}
	want := strings.Repeat("a long text ", 100_000)
	for range 3 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://alice/", strings.NewReader(want))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := lease.Transport().RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil || string(got) != want {
			t.Errorf("%d bytes came back, error %v", len(got), err)
		}
	}
	lease.Release()
	for range 2 { // the lease's own and its connection's
		runtimetest.Within(t, "release", f.released)
	}
}

func TestRelayPassesEndsOfStreamsOn(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { // answers once it has heard everything
		conn, err := l.Accept()
		if err != nil {
			return
		}
		text, _ := io.ReadAll(conn)
		_, _ = conn.Write([]byte("heard " + string(text)))
		_ = conn.Close()
	}()
	lease := acquired(t, relayed(t, &tenant{address: l.Addr().String()}))
	defer lease.Release()
	conn, err := lease.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("all")); err != nil {
		t.Fatal(err)
	}
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		t.Fatal("one direction cannot be closed")
	}
	if got, err := io.ReadAll(conn); string(got) != "heard all" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRelayedLeaseEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	f := &tenant{}
	lease := acquired(t, relayed(t, f))
	select {
	case <-lease.Gone():
		t.Error("gone at once")
	default:
	}
	close(f.gone)
	runtimetest.Within(t, "news of the end", lease.Gone())
	lease.Release()
}

func TestRelayHoldsOneProcess(t *testing.T) {
	t.Parallel()
	f := &tenant{}
	r := relayed(t, f)
	lease, err := r.Hold(t.Context(), alice, 42)
	if err != nil {
		t.Fatal(err)
	}
	lease.Release()
	runtimetest.Within(t, "release", f.released)
	if _, err := r.Hold(t.Context(), alice, 43); tenement.CodeOf(err) != tenement.CodeNotFound {
		t.Errorf("another process: %v", err)
	}
}

func TestRelayPassesErrorsOn(t *testing.T) {
	t.Parallel()
	_, err := relayed(t, &tenant{}).Acquire(t.Context(), tenement.InstanceID{Service: "api", Name: "bob"})
	var ours *tenement.Error
	if !errors.As(err, &ours) || ours.Code != tenement.CodeSuspended || ours.Hint != "on" || ours.RetryAfter != time.Minute {
		t.Errorf("%#v", err)
	}
}

func TestRelayGivesUpWithItsCaller(t *testing.T) {
	t.Parallel()
	f := &tenant{}
	r := relayed(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Acquire(ctx, tenement.InstanceID{Service: "api", Name: "carol"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	runtimetest.Within(t, "the other side to give up", f.gaveUp)
}

// TestRelayIsServedOut: who was given something keeps it when nobody new is let in.
func TestRelayIsServedOut(t *testing.T) {
	t.Parallel()
	f := &tenant{}
	r := relayed(t, f)
	lease := acquired(t, r)
	if err := f.relay.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lease.Gone():
		t.Error("the lease has ended with the listener")
	case <-time.After(50 * time.Millisecond):
	}
	lease.Release()
	runtimetest.Within(t, "release", f.released)
}

func TestRelayToNobody(t *testing.T) {
	t.Parallel()
	r := &relay{path: filepath.Join(t.TempDir(), "none"), config: func() *config.Config { return &config.Config{} }}
	if _, err := r.Acquire(t.Context(), alice); tenement.CodeOf(err) != tenement.CodeUnavailable {
		t.Errorf("%v", err)
	}
}
