package runtime

import (
	"context"
	"log/slog"
	"net"
	"os/exec"
	"strconv"
	"sync"
	"testing"

	"tenement"
)

func TestPortsAreGivenOnceAndGivenBack(t *testing.T) {
	t.Parallel()
	h, err := NewHost(t.TempDir(), nil, nil, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	start := func(command string) (Process, error) {
		return h.Start(t.Context(), Spec{
			Instance: tenement.InstanceID{Service: "api", Name: "alice"},
			Service:  &tenement.Service{Name: "api", Command: []tenement.Template{tenement.MustTemplate(command)}},
			DataDir:  t.TempDir(),
		})
	}
	p, err := start("true")
	if err != nil {
		t.Fatal(err)
	}
	if port := p.Ref().Port; !h.ports.taken[port] || port < FirstPort || port > LastPort {
		t.Errorf("port %d of %v", port, h.ports.taken)
	}
	<-p.Exited()
	if len(h.ports.taken) != 1 {
		t.Error("the port was given back before the tree was gone")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Release(ended); err != nil {
		t.Fatal(err)
	}
	if _, err := start("no-such-program"); err == nil {
		t.Fatal("no error")
	}
	if len(h.ports.taken) != 0 {
		t.Errorf("ports %v are still taken", h.ports.taken)
	}
}

func TestPortInUseIsPassedOver(t *testing.T) {
	t.Parallel()
	pool := newPortPool()
	first, err := pool.take()
	if err != nil {
		t.Fatal(err)
	}
	pool.free(first)
	stranger, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(first)))
	if err != nil {
		t.Skipf("somebody else was faster at port %d: %v", first, err)
	}
	defer func() { _ = stranger.Close() }()
	pool.next = first
	if second, err := pool.take(); err != nil || second == first {
		t.Errorf("port %d, %v, while a stranger listens on %d", second, err, first)
	}
}

// A child that is being made has a copy of every descriptor until it is its program: one
// of the socket that a port was tried with would answer for a tenant that is not there yet.
func TestNobodyListensOnAPortThatWasTried(t *testing.T) {
	t.Parallel()
	var children sync.WaitGroup
	stop := make(chan struct{})
	defer children.Wait()
	defer close(stop)
	for range 4 {
		children.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = exec.Command("true").Run()
				}
			}
		})
	}
	pool := newPortPool()
	for range 1000 {
		port, err := pool.take()
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			c.Close()
			t.Fatalf("somebody listens on port %d", port)
		}
	}
}
