package runtime

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"tenement"
)

// FirstPort to LastPort are for tenants. They lie below the kernel's range for
// outgoing connections (ip_local_port_range, 32768 by default): one from that range
// could be taken by any connection between our test and the tenant's bind.
const (
	FirstPort = 10240
	LastPort  = 32767
)

// portPool hands out loopback ports. A port stays taken until the whole tree of
// the process that had it is gone, so that nobody is ever connected to a
// predecessor's leftovers.
type portPool struct {
	mu    sync.Mutex
	taken map[int]bool
	next  int
}

func newPortPool() *portPool {
	return &portPool{
		taken: make(map[int]bool),
		next:  FirstPort + rand.IntN(LastPort-FirstPort+1), // two daemons on one machine seldom meet
	}
}

// take reserves a port nobody listens on, or fails with CodeFull.
func (p *portPool) take() (int, error) {
	for range LastPort - FirstPort + 1 {
		port, ok := p.reserveNext()
		if !ok {
			continue
		}
		err := testBind(port)
		if err == nil {
			return port, nil
		}
		p.free(port)
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EACCES) {
			return 0, fmt.Errorf("look for a free port: %w", err)
		}
	}
	return 0, &tenement.Error{
		Code: tenement.CodeFull, Op: "look for a free port",
		Err: fmt.Errorf("all ports from %d to %d are in use", FirstPort, LastPort),
	}
}

// claim reserves a port that an adopted process already has.
func (p *portPool) claim(port int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken[port] = true
}

func (p *portPool) free(port int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.taken, port)
}

func (p *portPool) reserveNext() (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	port := p.next
	p.next++
	if p.next > LastPort {
		p.next = FirstPort
	}
	if p.taken[port] {
		return 0, false
	}
	p.taken[port] = true
	return port, true
}

// testBind listens for an instant in which no child is made: one would have a copy of the
// socket until it is its program, and answer there for a tenant that is not up yet.
func testBind(port int) (err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { err = errors.Join(err, os.NewSyscallError("close", unix.Close(fd))) }()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil { // as tenants do: what only lingers is no hindrance
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	return os.NewSyscallError("listen", unix.Listen(fd, 1))
}
