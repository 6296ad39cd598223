// Package listening tells when a program of ours begins to listen on a TCP port, in the
// instant in which it does.
package listening

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"tenement"
)

// Events are the kernel's word about one cgroup and what is below it: whenever a socket
// that was made there begins to listen, on any address, a program in the kernel looks
// whether somebody awaits that. Tenants take no part in it, and notice nothing when the
// daemon that has asked is gone: what is attached goes with its descriptors.
//
// The methods may be called concurrently. A nil *Events is one that never tells.
type Events struct {
	awaited *ebpf.Map // of places, in the kernel; what was told is no longer in it
	told    *ebpf.Map // the ring buffer that the kernel writes places to
	program *ebpf.Program
	link    link.Link
	reader  *ringbuf.Reader

	mu      sync.Mutex // guards what follows, and the use of awaited
	waiting map[chan struct{}]place
	closed  bool
}

// place is a TCP port in a network namespace, as the kernel's program writes it.
type place struct{ Network, Port uint64 }

const (
	placeSize = 16 // bytes

	// maxAwaited bounds how many places are awaited at once. Whoever comes when there are
	// so many is not told.
	maxAwaited = 4096

	// ringSize, in bytes, is a power of two and whole pages on every machine. It holds
	// more events than can be awaited.
	ringSize = 128 << 10
)

// Open attaches to the cgroup with the absolute path dir, beside whatever else is attached
// there. Nothing is told before [Events.Run]. CodeUnavailable: this kernel, or this user,
// cannot do it.
func Open(dir string) (_ *Events, err error) {
	e := &Events{waiting: make(map[chan struct{}]place)}
	defer func() {
		if err != nil {
			err = unavailable(errors.Join(err, e.Close()))
		}
	}()
	if e.awaited, err = ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.Hash, KeySize: placeSize, ValueSize: 1, MaxEntries: maxAwaited, Flags: unix.BPF_F_NO_PREALLOC,
	}); err != nil {
		return nil, err
	}
	if e.told, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: ringSize}); err != nil {
		return nil, err
	}
	if e.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SockOps, AttachType: ebpf.AttachCGroupSockOps, Instructions: instructions(e.awaited, e.told),
	}); err != nil {
		return nil, err
	}
	if e.reader, err = ringbuf.NewReader(e.told); err != nil {
		return nil, err
	}
	return e, e.attach(dir)
}

// attach makes a link, which, unlike an attachment without one, ends with its descriptor
// (Linux 5.7).
func (e *Events) attach(dir string) error {
	cgroup, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer cgroup.Close()
	made, err := link.AttachRawLink(link.RawLinkOptions{
		Target: int(cgroup.Fd()), Program: e.program, Attach: ebpf.AttachCGroupSockOps,
	})
	if err != nil {
		return fmt.Errorf("attach to %s: %w", dir, err)
	}
	e.link = made
	return nil
}

func unavailable(err error) error {
	return &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "be told when programs listen", Err: err,
		Hint: "run the daemon as root (CAP_BPF and CAP_NET_ADMIN) on Linux 5.15 or newer",
	}
}

// Run passes on what the kernel tells, until ctx ends. Call it once. It waits as a
// connection is waited for, by Go's own poller: a thread of its own would, being told, have
// to wake the next one first.
func (e *Events) Run(ctx context.Context, log *slog.Logger) {
	err := e.run(ctx)
	if err != nil && ctx.Err() == nil {
		log.Error("programs that begin to listen are not noticed at once any more", "error", err)
	}
}

func (e *Events) run(ctx context.Context) error {
	fd, err := unix.FcntlInt(uintptr(e.told.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else os.NewFile does not have it polled
		return errors.Join(err, unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "events")
	defer file.Close()
	polled, err := file.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = file.Close() })
	defer stop()
	e.reader.SetDeadline(time.Unix(1, 0)) // it does not wait itself
	var failed error
	err = polled.Read(func(uintptr) (done bool) {
		failed = e.pass()
		return failed != nil
	})
	return errors.Join(failed, err)
}

// pass tells all that is in the ring buffer.
func (e *Events) pass() error {
	var record ringbuf.Record
	for {
		err := e.reader.ReadInto(&record)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case len(record.RawSample) >= placeSize:
			e.tell(place{
				Network: binary.NativeEndian.Uint64(record.RawSample),
				Port:    binary.NativeEndian.Uint64(record.RawSample[8:]),
			})
		}
	}
}

func (e *Events) tell(p place) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c, awaited := range e.waiting {
		if awaited != p {
			continue
		}
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Await gives a channel that receives, once, when a program begins to listen on port in
// the network namespace with the cookie network (SO_NETNS_COOKIE). One that listens
// already is not told of: look after the call, and now and then, for an event may be
// lost. The channel is nil where nobody can tell. Call done when it is of no use any
// more. A place is awaited by one at a time.
func (e *Events) Await(network uint64, port int) (began <-chan struct{}, done func()) {
	if e == nil {
		return nil, func() {}
	}
	c, p := make(chan struct{}, 1), place{network, uint64(port)}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.awaited.Put(p, uint8(1)) != nil {
		return nil, func() {}
	}
	e.waiting[c] = p // before it can be told, which takes the lock
	return c, func() { e.forget(c, p) }
}

func (e *Events) forget(c chan struct{}, p place) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.waiting, c)
	if !e.closed {
		_ = e.awaited.Delete(p) // it is not there once it was told
	}
}

// Close detaches. Call it after Run has returned. Whoever awaits something is not told
// any more.
func (e *Events) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	var err error
	if e.link != nil {
		err = e.link.Close()
	}
	if e.reader != nil {
		err = errors.Join(err, e.reader.Close())
	}
	return errors.Join(err, e.program.Close(), e.told.Close(), e.awaited.Close())
}
