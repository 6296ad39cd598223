package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"tenement"
)

// Pool makes network namespaces, and keeps some ready, because making one takes longer
// than starting a process. Its methods may be called concurrently.
type Pool struct {
	options Options
	home    *os.File        // the network namespace of the daemon
	links   *netlink.Handle // speaks to the kernel about home
	rules   ruleset

	making chan struct{} // holds one element for each that is being made
	ready  map[tenement.Egress]chan *Namespace
	took   chan struct{} // tells Run that there may be one to make

	mu     sync.Mutex // guards what follows
	wanted map[tenement.Egress]bool
	slots  map[int]bool // those that have a namespace
	next   int          // the slot to try next
}

// atOnce bounds how many are made at the same time: most of it the kernel does under one
// lock, and each holds a thread meanwhile.
const atOnce = 2

// Open prepares a pool for the network namespace of the caller. It changes nothing on
// the machine; only the first namespace that reaches the outside does. CodeUnavailable:
// this machine does not let us.
func Open(o Options) (_ *Pool, err error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	home, err := current()
	if err != nil {
		return nil, unavailable("open network", err, "mount /proc")
	}
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		_ = home.Close()
		return nil, unavailable("open network", err, "allow AF_NETLINK sockets")
	}
	p := &Pool{
		options: o, home: home, links: links,
		making: make(chan struct{}, atOnce),
		ready:  make(map[tenement.Egress]chan *Namespace),
		took:   make(chan struct{}, 1),
		wanted: make(map[tenement.Egress]bool),
		slots:  make(map[int]bool),
		next:   1,
	}
	p.rules.options, p.rules.links = &p.options, links
	for _, egress := range []tenement.Egress{tenement.EgressAllow, tenement.EgressDeny} {
		p.ready[egress] = make(chan *Namespace, o.Ready)
	}
	return p, nil
}

// unavailable names what is missing and the two ways to do without.
func unavailable(op string, err error, missing string) error {
	return &tenement.Error{
		Code: tenement.CodeUnavailable, Op: op, Err: err,
		Hint: missing + `; or set egress = "deny" or isolation = "process"`,
	}
}

// Run keeps namespaces ready, and the rules in force, until ctx ends; then it closes the
// namespaces that are ready. An error says that the rules cannot be watched.
func (p *Pool) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	if !p.options.Within {
		group.Go(func() error { return p.rules.watch(ctx, p.options.Log) })
	}
	group.Go(func() error { return p.keepReady(ctx) })
	return group.Wait()
}

// refillPause is for the start that has taken a namespace: making the next one would cost
// it a millisecond or two where there are few cores.
const refillPause = 50 * time.Millisecond

func (p *Pool) keepReady(ctx context.Context) error {
	for {
		for egress, ready := range p.ready {
			p.fill(ctx, egress, ready)
		}
		select {
		case <-p.took:
		case <-ctx.Done():
			return p.drain()
		}
		select {
		case <-time.After(refillPause):
		case <-ctx.Done():
			return p.drain()
		}
	}
}

// fill makes what is missing in ready. What cannot be made is tried again after the
// next Take, which is told why.
func (p *Pool) fill(ctx context.Context, egress tenement.Egress, ready chan *Namespace) {
	for p.wants(egress) && len(ready) < cap(ready) {
		select {
		case p.making <- struct{}{}:
		case <-ctx.Done():
			return
		}
		n, err := p.create(egress)
		<-p.making
		if err != nil {
			p.options.Log.Warn("no network namespace can be kept ready", "egress", egress, "error", err)
			return
		}
		ready <- n // never blocks: nobody else puts one there
	}
}

func (p *Pool) wants(egress tenement.Egress) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wanted[egress]
}

// drain closes what is ready and was not taken.
func (p *Pool) drain() error {
	var err error
	for _, ready := range p.ready {
		for len(ready) > 0 {
			err = errors.Join(err, (<-ready).Close())
		}
	}
	return err
}

// Take gives a namespace in which nothing runs yet: a ready one, or else one made now. The
// caller closes it. CodeUnavailable: the machine does not let us, and the hint says
// what is missing; CodeFull: all addresses of the subnet are in use.
func (p *Pool) Take(ctx context.Context, egress tenement.Egress) (*Namespace, error) {
	ready, known := p.ready[egress]
	if !known {
		return nil, &tenement.Error{
			Code: tenement.CodeInvalid, Op: "take a network namespace",
			Err: fmt.Errorf("there is no egress %q", egress),
		}
	}
	if p.options.Within && egress != tenement.EgressDeny {
		return nil, &tenement.Error{
			Code: tenement.CodeUnavailable, Op: connectOp, Err: errors.New("only root can give tenants a way out of their networks"),
			Hint: `set egress = "deny" for the service, or isolation = "process", or run the daemon as root`,
		}
	}
	p.mu.Lock()
	p.wanted[egress] = true
	p.mu.Unlock()
	defer p.wake()
	select {
	case n := <-ready:
		return n, nil
	default:
	}
	select {
	case n := <-ready:
		return n, nil
	case p.making <- struct{}{}:
		defer func() { <-p.making }()
		return p.create(egress)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *Pool) wake() {
	select {
	case p.took <- struct{}{}:
	default: // it will look anyway
	}
}

func (p *Pool) create(egress tenement.Egress) (*Namespace, error) {
	if egress == tenement.EgressDeny {
		return p.isolated(nil)
	}
	if err := p.rules.install(); err != nil {
		return nil, err
	}
	return p.connected()
}

// Adopt finds the namespace of a live process again, which an earlier pool of the same
// name made, by the process's pidfd and the slot. CodeNotFound: the process is gone;
// CodeUnavailable: it is not where it was started, or has lost its interface;
// CodeConflict: the slot is another's. Call it before [Pool.Sweep] and [Pool.Run].
func (p *Pool) Adopt(pidfd, slot int) (_ *Namespace, err error) {
	op := "adopt a network namespace"
	file, cookie, err := p.namespaceOf(pidfd)
	if errors.Is(err, unix.ESRCH) {
		return nil, &tenement.Error{Code: tenement.CodeNotFound, Op: op, Err: err}
	}
	if err != nil {
		return nil, &tenement.Error{Code: tenement.CodeUnavailable, Op: op, Err: err}
	}
	n := newNamespace(p, file, cookie)
	if slot == 0 {
		return n, nil
	}
	if err := p.reclaim(n, slot); err != nil {
		_ = file.Close()
		return nil, err
	}
	return n, nil
}

// namespaceOf opens the network namespace of a process. Entering it by the pidfd
// (setns(2), Linux 5.8) cannot end up with a stranger, as a path in /proc can.
func (p *Pool) namespaceOf(pidfd int) (file *os.File, cookie uint64, err error) {
	err = p.abroad(func() error {
		return os.NewSyscallError("setns", unix.Setns(pidfd, unix.CLONE_NEWNET))
	}, func() (err error) {
		cookie = Cookie()
		file, err = current()
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	same, err := sameNamespace(file, p.home)
	if same {
		err = errors.New("the process is in the network namespace of the daemon")
	}
	if err != nil {
		_ = file.Close()
		return nil, 0, err
	}
	return file, cookie, nil
}

// reclaim takes the slot of an adopted namespace, once the rules for it are in force.
func (p *Pool) reclaim(n *Namespace, slot int) error {
	op := "adopt a network namespace"
	link, err := p.links.LinkByName(p.options.hostEnd(slot))
	if err != nil {
		return &tenement.Error{
			Code: tenement.CodeUnavailable, Op: op,
			Err: fmt.Errorf("its interface %s: %w", p.options.hostEnd(slot), err),
		}
	}
	if err := p.rules.install(); err != nil {
		return err
	}
	if !p.claim(slot) {
		return &tenement.Error{Code: tenement.CodeConflict, Op: op, Err: fmt.Errorf("slot %d is another's", slot)}
	}
	n.slot, n.link = slot, link.Attrs().Index
	return nil
}

// Sweep removes what an earlier pool of the same name left on this machine and nobody
// has adopted. What lives behind it loses its network.
func (p *Pool) Sweep() error {
	left, err := p.hostEnds()
	if err != nil {
		return err
	}
	for _, link := range left {
		slot, _ := p.options.slotOf(link.Attrs().Name)
		if !p.claim(slot) {
			continue
		}
		err = errors.Join(err, removeLink(link.Attrs().Index))
		p.free(slot)
	}
	return err
}

// Close ends the pool after Run. Namespaces that were not closed stay as they are,
// under the rules that are in force; without any, the rules are removed.
func (p *Pool) Close() error {
	var err error
	if !p.options.Within {
		err = p.removeUnused()
	}
	p.links.Close()
	return errors.Join(err, p.home.Close())
}

// removeUnused removes the rules if there is no interface that they are for.
func (p *Pool) removeUnused() error {
	left, err := p.hostEnds()
	if err != nil || len(left) > 0 {
		return err
	}
	return p.rules.remove()
}

// Detach ends the pool, after Run, in favour of another one of the same name, which may
// be at work already: it touches nothing on the machine, and the detached namespaces
// can still be dialed.
func (p *Pool) Detach() { p.links.Close() }

// claim takes a slot, unless it has a namespace.
func (p *Pool) claim(slot int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slots[slot] {
		return false
	}
	p.slots[slot] = true
	return true
}

// claimNext takes a slot that has been free for as long as possible: a late packet for
// its last tenant should not meet the next.
func (p *Pool) claimNext() (slot int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range p.options.slots() {
		slot = p.next
		p.next = p.next%p.options.slots() + 1
		if !p.slots[slot] {
			p.slots[slot] = true
			return slot, true
		}
	}
	return 0, false
}

func (p *Pool) free(slot int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.slots, slot)
}
