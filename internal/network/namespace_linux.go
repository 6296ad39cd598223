package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"tenement"
)

// Namespace is one network namespace, with nothing in it but a loopback interface and,
// with [tenement.EgressAllow], one to the outside. Its methods may be called
// concurrently.
type Namespace struct {
	pool *Pool
	file *os.File // what the namespace is found by, as long as it is open
	slot int      // of its address; 0 without one
	link int      // index of the interface's host end; an index is not used twice

	cookie uint64

	detached atomic.Bool
	close    func() error
}

func newNamespace(p *Pool, file *os.File, cookie uint64) *Namespace {
	n := &Namespace{pool: p, file: file, cookie: cookie}
	n.close = sync.OnceValue(n.giveUp)
	return n
}

// Slot is what [Pool.Adopt] needs to know, besides a process in the namespace: 1 or
// more, or 0 for a namespace with nothing but loopback.
func (n *Namespace) Slot() int { return n.slot }

// Cookie is what the kernel itself tells the namespace by, which is used only once until
// the machine is started anew; 0 if it does not say.
func (n *Namespace) Cookie() uint64 { return n.cookie }

// Enter moves the calling OS thread into the namespace. The caller has locked it
// (runtime.LockOSThread), never unlocks it and so lets it end with the goroutine.
func (n *Namespace) Enter() error { return setns(n.file) }

// Dial connects to a TCP port of the namespace's 127.0.0.1. An error is a
// [*net.OpError]; where nobody listens it wraps ECONNREFUSED, after [Namespace.Close] it
// wraps [net.ErrClosed].
func (n *Namespace) Dial(ctx context.Context, port int) (net.Conn, error) {
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
	conn, err := n.dial(ctx, to)
	if err == nil {
		return conn, nil
	}
	var failure *net.OpError
	if !errors.As(err, &failure) {
		failure = &net.OpError{Op: "dial", Net: "tcp4", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	return nil, failure
}

// dial lends the caller's thread to the namespace until the socket exists: where a
// socket is made is where it belongs for ever, and the thread is home again before it
// connects. That it is in a goroutine of its own, which could end with its thread, would
// make every connection slower, for a failure that nobody has seen.
func (n *Namespace) dial(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if n.pool.options.Within {
		return n.dialForGood(ctx, to)
	}
	runtime.LockOSThread()
	if err := setns(n.file); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	away := true
	home := func() {
		if err := setns(n.pool.home); err != nil { // to go on would be to mistake tenants for one another
			panic(fmt.Sprintf("a thread cannot leave a tenant's network namespace: %v", err))
		}
		away = false
		runtime.UnlockOSThread()
	}
	defer func() {
		if away { // no socket was made
			home()
		}
	}()
	d := net.Dialer{
		KeepAlive: -1, // both ends are on this machine
		ControlContext: func(context.Context, string, string, syscall.RawConn) error {
			if !away { // net tries again what connected to itself: that socket would be the machine's
				return unix.EADDRNOTAVAIL
			}
			home()
			return nil
		},
	}
	return d.DialTCP(ctx, "tcp4", netip.AddrPort{}, to)
}

// dialForGood dials on a thread that ends with it.
func (n *Namespace) dialForGood(ctx context.Context, to netip.AddrPort) (conn *net.TCPConn, err error) {
	var done sync.WaitGroup
	done.Go(func() {
		runtime.LockOSThread() // never unlocked
		if err = setns(n.file); err == nil {
			conn, err = (&net.Dialer{KeepAlive: -1}).DialTCP(ctx, "tcp4", netip.AddrPort{}, to)
		}
	})
	done.Wait()
	return conn, err
}

// Do runs f on a thread in the namespace: a socket that it makes belongs there for ever.
func (n *Namespace) Do(f func() error) error {
	return n.pool.abroad(func() error { return setns(n.file) }, f)
}

// Detach leaves the namespace to a daemon that adopts it. What is left of n is Dial,
// until Close gives up the descriptor and nothing else.
func (n *Namespace) Detach() {
	if !n.detached.Swap(true) && n.slot != 0 {
		n.pool.free(n.slot)
	}
}

// Close takes its way out from whatever still lives in the namespace, and gives up the
// descriptor; the kernel removes a namespace with the last process in it. It returns
// once nothing of it is left on the machine's side. The second call does nothing.
func (n *Namespace) Close() error { return n.close() }

func (n *Namespace) giveUp() error {
	err := n.file.Close()
	if n.slot == 0 || n.detached.Load() {
		return err
	}
	err = errors.Join(err, removeLink(n.link))
	n.pool.free(n.slot)
	return err
}

// setns moves the calling thread into a network namespace. Closed meanwhile or before,
// the file is never mistaken for another with the same number.
func setns(namespace *os.File) error {
	conn, err := namespace.SyscallConn()
	if err != nil {
		return err
	}
	if conn.Control(func(fd uintptr) { err = unix.Setns(int(fd), unix.CLONE_NEWNET) }) != nil {
		return net.ErrClosed // it is the one reason
	}
	return os.NewSyscallError("setns", err)
}

// abroad runs do on a thread that leave has moved into another network namespace, and
// brings the thread home, or ends it.
func (p *Pool) abroad(leave, do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := leave(); err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		err := do()
		if p.options.Within {
			done <- err
			return // locked, and so the thread's end
		}
		if back := setns(p.home); back != nil {
			done <- errors.Join(err, back)
			return // locked, and so the thread's end
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// current opens the network namespace of the calling thread.
func current() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// Cookie is what the kernel tells the network namespace of the calling thread by
// (SO_NETNS_COOKIE, Linux 5.14); 0 if it does not say.
func Cookie() uint64 {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0
	}
	return cookie
}

// sameNamespace says whether both files are of one namespace (namespaces(7)).
func sameNamespace(a, b *os.File) (bool, error) {
	one, err := a.Stat()
	if err != nil {
		return false, err
	}
	other, err := b.Stat()
	return err == nil && os.SameFile(one, other), err
}

// isolated makes a namespace in which only loopback works. do, which may be nil, runs
// on a thread in it.
func (p *Pool) isolated(do func() error) (*Namespace, error) {
	var file *os.File
	var cookie uint64
	err := p.abroad(unshare, func() (err error) {
		if err := LoopbackUp(); err != nil {
			return err
		}
		cookie = Cookie()
		if do != nil {
			if err := do(); err != nil {
				return err
			}
		}
		file, err = current()
		return err
	})
	if err != nil {
		return nil, err
	}
	return newNamespace(p, file, cookie), nil
}

func unshare() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "make a network namespace", Err: os.NewSyscallError("unshare", err),
			Hint: `run the daemon as root (CAP_SYS_ADMIN) on a kernel with network namespaces (CONFIG_NET_NS), or set isolation = "process"`,
		}
	}
	return nil
}

// LoopbackUp switches on the loopback interface of the calling thread's namespace
// (netdevice(7)); the kernel then gives it its addresses.
func LoopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return os.NewSyscallError("switch on lo", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request))
}
