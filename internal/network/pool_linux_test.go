package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tenement"
)

func metadataServers() []netip.Addr { return []netip.Addr{mustParse("169.254.169.254")} }

func expectErrno(t testing.TB, err error, want syscall.Errno) {
	t.Helper()
	var failure *net.OpError
	if !errors.Is(err, want) || !errors.As(err, &failure) {
		t.Errorf("%T %v, want %v", err, err, want)
	}
}

// TestDialFindsTheRightOne has several tenants, and the machine, listen on the same port.
func TestDialFindsTheRightOne(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 2)
	run(t, p)
	greet(t, "127.0.0.1:8000", "machine")
	tenants := make([]*Namespace, 4)
	for i := range tenants {
		tenants[i] = take(t, p, []tenement.Egress{tenement.EgressAllow, tenement.EgressDeny}[i%2])
		defer tenants[i].Close()
		greetIn(t, tenants[i], ":8000", fmt.Sprint("tenant", i))
	}
	dialAll(t, tenants)
	if got := ask("127.0.0.1:8000"); got != "machine 127.0.0.1" {
		t.Errorf("a thread is not at home: %q", got)
	}
}

// dialAll dials tenants, tenant i calling itself so, from many goroutines at once.
func dialAll(t *testing.T, tenants []*Namespace) {
	t.Helper()
	var all sync.WaitGroup
	for worker := range 48 {
		all.Go(func() {
			for round := range 20 {
				i := (worker + round) % len(tenants)
				conn, err := tenants[i].Dial(t.Context(), 8000)
				if err != nil {
					t.Error(err)
					return
				}
				if got, want := answer(conn), fmt.Sprintf("tenant%d 127.0.0.1", i); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
	all.Wait()
}

func TestDialSaysWhatIsWrong(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 0)
	n := take(t, p, tenement.EgressDeny)
	_, err := n.Dial(t.Context(), 8000)
	expectErrno(t, err, unix.ECONNREFUSED)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	var failure *net.OpError
	if _, err = n.Dial(ended, 8000); !errors.As(err, &failure) || !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
	must(t, n.Close())
	must(t, n.Close())
	if _, err := n.Dial(t.Context(), 8000); !errors.Is(err, net.ErrClosed) || !errors.As(err, &failure) {
		t.Errorf("after Close: %v", err)
	}
	if err := n.Enter(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("enter after Close: %v", err)
	}
	must(t, p.Close())
	expectNothingLeft(t)
}

// run keeps namespaces ready until the test ends, or until the func it gives is called.
func run(t testing.TB, p *Pool) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// eventually waits for what other goroutines or the kernel will do.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func TestRunKeepsSomeReady(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 3)
	stop := run(t, p)
	if left := remains(t); len(left) != 1 { // the pool's own
		t.Errorf("before the first is taken there are %v", left)
	}
	n := take(t, p, tenement.EgressAllow)
	allow, deny := p.ready[tenement.EgressAllow], p.ready[tenement.EgressDeny]
	eventually(t, "three are ready", func() bool { return len(allow) == 3 })
	for range 5 {
		must(t, take(t, p, tenement.EgressAllow).Close())
	}
	eventually(t, "three are ready again", func() bool { return len(allow) == 3 })
	if len(deny) != 0 {
		t.Errorf("%d are ready that nobody asked for", len(deny))
	}
	stop()
	must(t, n.Close())
	must(t, p.Close())
	expectNothingLeft(t)
}

// TestTakenIsConnected sends at once to each that is made: a first packet that is lost is
// repeated only after a second.
func TestTakenIsConnected(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.AddrAdd(lo, &netlink.Addr{IPNet: single(net.ParseIP(machineAddress).To4())}))
	p := open(t, "ten", 0)
	p.rules.installed = true // so they are not, which let nobody in
	d := net.Dialer{Timeout: patience}
	var all []*Namespace
	for range 20 {
		n := take(t, p, tenement.EgressAllow)
		_, err := d.Dial("tcp4", addressOf(p, n)+":80")
		expectErrno(t, err, unix.ECONNREFUSED)
		all = append(all, n)
	}
	for _, n := range all {
		must(t, n.Close())
	}
	must(t, p.Close())
}

// TestTheNextDaemonAdopts lives through an end of the daemon with two tenants, of which
// the next one knows one.
func TestTheNextDaemonAdopts(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	first := open(t, "ten", 0)
	world(t, first)
	var tenants []*Namespace
	var pidfds []int
	for i, egress := range []tenement.Egress{tenement.EgressAllow, tenement.EgressDeny, tenement.EgressAllow} {
		n := take(t, first, egress)
		greetIn(t, n, ":8000", fmt.Sprint("tenant", i))
		pidfd, end := startIn(t, n)
		defer end()
		tenants, pidfds = append(tenants, n), append(pidfds, pidfd)
	}
	for _, n := range tenants {
		n.Detach()
	}
	first.Detach()

	next := open(t, "ten", 0)
	var adopted []*Namespace
	for i, n := range tenants[:2] {
		a, err := next.Adopt(pidfds[i], n.Slot())
		must(t, err)
		adopted = append(adopted, a)
	}
	must(t, next.Sweep())
	dialAll(t, adopted)
	dialAll(t, tenants[:2]) // what the earlier daemon has still to finish
	if got := askFrom(t, adopted[0], outsideAddress+":80"); got != "outside "+machineAddress {
		t.Errorf("the adopted one reaches %q", got)
	}
	if got := askFrom(t, tenants[2], outsideAddress+":80"); got != "" {
		t.Errorf("the one that was swept reaches %q", got)
	}
	another := take(t, next, tenement.EgressAllow)
	if another.Slot() == adopted[0].Slot() {
		t.Error("a slot has two tenants")
	}
	for _, n := range tenants { // the earlier daemon ends, and takes nothing along
		must(t, n.Close())
	}
	if got := askFrom(t, adopted[0], outsideAddress+":80"); got != "outside "+machineAddress {
		t.Errorf("then the adopted one reaches %q", got)
	}
	for _, n := range append(adopted, another) {
		must(t, n.Close())
	}
	must(t, next.Close())
	if left := strings.Join(remains(t), " "); strings.Contains(left, "interface") || strings.Contains(left, "table") {
		t.Errorf("left: %s", left)
	}
}

func TestCloseLeavesTenantsUnderTheirRules(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 0)
	n := take(t, p, tenement.EgressAllow)
	must(t, p.Close())
	if left := strings.Join(remains(t), " "); !strings.Contains(left, "table tenement_ten") || forwarding(t) != "1" {
		t.Errorf("left: %s", left)
	}
	next := open(t, "ten", 0)
	must(t, next.Sweep())
	must(t, n.Close())
	must(t, next.Close())
	expectNothingLeft(t)
}

// TestDialNeverEndsUpOnTheMachine has a tenant's connection meet itself, as it may when the
// port is one for outgoing connections: package net then makes another socket.
func TestDialNeverEndsUpOnTheMachine(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 0)
	greet(t, "127.0.0.1:8000", "machine")
	n := take(t, p, tenement.EgressDeny)
	within(t, n, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("8000 8000"), 0)
	})
	if conn, err := n.Dial(t.Context(), 8000); err == nil {
		t.Errorf("connected to %q", answer(conn))
	}
	must(t, n.Close())
	must(t, p.Close())
}

func TestHintOfARefusal(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want string
	}{{unix.EPERM, "CAP_NET_ADMIN"}, {unix.ENOENT, "modprobe"}} {
		hint := tenement.HintOf(noNftables(test.err))
		if !strings.Contains(hint, test.want) || !strings.Contains(hint, `egress = "deny"`) {
			t.Errorf("%v: hint %q", test.err, hint)
		}
	}
}

func TestWhatCannotBeAdopted(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 0)
	n := take(t, p, tenement.EgressAllow)
	pidfd, end := startIn(t, n)
	expect := func(name string, pidfd, slot int, want tenement.Code) {
		t.Helper()
		if _, err := p.Adopt(pidfd, slot); tenement.CodeOf(err) != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	expect("another's slot", pidfd, n.Slot(), tenement.CodeConflict)
	expect("one without its interface", pidfd, n.Slot()+1, tenement.CodeUnavailable)
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	must(t, err)
	expect("one that shares the daemon's network", self, 0, tenement.CodeUnavailable)
	end()
	expect("one that is gone", pidfd, 0, tenement.CodeNotFound)
	must(t, n.Close())
	must(t, p.Close())
	expectNothingLeft(t)
}

func TestManyLeaveNothing(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 4)
	stop := run(t, p)
	all := make(chan *Namespace, 300)
	var makers sync.WaitGroup
	for i := range 300 {
		makers.Go(func() {
			n, err := p.Take(t.Context(), []tenement.Egress{tenement.EgressAllow, tenement.EgressDeny}[i%2])
			if err != nil {
				t.Error(err)
				return
			}
			all <- n
		})
	}
	makers.Wait()
	close(all)
	slots := make(map[int]bool)
	for n := range all {
		if slots[n.Slot()] && n.Slot() != 0 {
			t.Errorf("slot %d twice", n.Slot())
		}
		slots[n.Slot()] = true
		makers.Go(func() { must(t, n.Close()) })
	}
	makers.Wait()
	stop()
	must(t, p.Close())
	expectNothingLeft(t)
	if forwarding(t) != "0" {
		t.Error("the machine is a router")
	}
}

// TestSlotsOfOthers: what another daemon's interfaces have is not taken, and when all is
// taken it is said.
func TestSlotsOfOthers(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	options := Options{Name: "ten", Subnet: netip.MustParsePrefix("198.18.0.0/29")}
	p, err := Open(options)
	must(t, err)
	options.Name = "other"
	other, err := Open(options)
	must(t, err)
	var taken []*Namespace
	for i := range 6 {
		taken = append(taken, take(t, []*Pool{p, other}[i%2], tenement.EgressAllow))
	}
	if _, err := p.Take(t.Context(), tenement.EgressAllow); tenement.CodeOf(err) != tenement.CodeFull {
		t.Errorf("a seventh of six: %v", err)
	}
	must(t, p.Sweep()) // has nothing to remove
	if left := strings.Count(strings.Join(remains(t), " "), "interface"); left != 6 {
		t.Errorf("%d interfaces of six are left", left)
	}
	must(t, taken[1].Close()) // the other daemon's
	n := take(t, p, tenement.EgressAllow)
	if n.Slot() != taken[1].Slot() {
		t.Errorf("slot %d, and %d is the only free one", n.Slot(), taken[1].Slot())
	}
	must(t, other.Sweep())
	for _, n := range append(taken, n) {
		must(t, n.Close())
	}
	must(t, p.Close())
	must(t, other.Close())
	expectNothingLeft(t)
}

// TestWithoutPrivileges runs as nobody, who may not make namespaces.
func TestWithoutPrivileges(t *testing.T) {
	const nobody = 65534
	if os.Getuid() == nobody {
		p := open(t, "ten", 0)
		for _, egress := range []tenement.Egress{tenement.EgressAllow, tenement.EgressDeny} {
			_, err := p.Take(t.Context(), egress)
			if tenement.CodeOf(err) != tenement.CodeUnavailable || !strings.Contains(tenement.HintOf(err), `isolation = "process"`) {
				t.Errorf("%s: %v, hint %q", egress, err, tenement.HintOf(err))
			}
		}
		if _, err := p.Take(t.Context(), "some"); tenement.CodeOf(err) != tenement.CodeInvalid {
			t.Errorf("no egress: %v", err)
		}
		return
	}
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
