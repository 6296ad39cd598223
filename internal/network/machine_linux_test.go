package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tenement"
)

// inMachine marks a process that has a network of its own, as if it was a machine.
const inMachine = "TENEMENT_TEST_MACHINE"

// The main thread cannot end, and would stay in a tenant's namespace for ever: it is kept
// for the main goroutine.
func init() { runtime.LockOSThread() }

// TestMain runs benchmarks in a machine; tests that need one get one each.
func TestMain(m *testing.M) {
	if os.Getenv(inMachine) == "" && slices.ContainsFunc(os.Args, func(arg string) bool {
		return strings.HasPrefix(arg, "-test.bench=")
	}) {
		cmd := machineCommand(context.Background(), os.Args[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(inMachine) != "" {
		if err := LoopbackUp(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// machineCommand runs the test binary in a new network, so that the real one is never
// touched. Who is not root becomes it, in a user namespace.
func machineCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), inMachine+"=1", "GORACE=atexit_sleep_ms=0") // it would sleep a second
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

// ownMachine runs the rest of the test in a machine of its own: where it says no, that
// has been done.
func ownMachine(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inMachine) != "" {
		return true
	}
	t.Parallel()
	args := []string{"-test.run=^" + t.Name() + "$", "-test.timeout=2m"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	out, err := machineCommand(t.Context(), args...).CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		if strings.Contains(os.Getenv("TENEMENT_REQUIRE"), "root") {
			t.Fatal(err)
		}
		t.Skipf("no network namespace for the test: %v (run as root; TENEMENT_REQUIRE=root makes it a failure)", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}

// open makes a pool that leaves nothing behind.
func open(t testing.TB, name string, ready int) *Pool {
	t.Helper()
	p, err := Open(Options{Name: name, Ready: ready, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func take(t testing.TB, p *Pool, egress tenement.Egress) *Namespace {
	t.Helper()
	n, err := p.Take(t.Context(), egress)
	if err != nil {
		t.Fatalf("%v (hint: %s)", err, tenement.HintOf(err))
	}
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within runs f on a thread in n that ends with it.
func within(t testing.TB, n *Namespace, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() { done <- err }() // also when f ends the test
		runtime.LockOSThread()
		if err = n.Enter(); err == nil {
			err = f()
		}
	}()
	must(t, <-done)
}

// greet answers every connection with a name and the address it comes from.
func greet(t testing.TB, address, name string) {
	l, err := net.Listen("tcp4", address)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			from, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
			fmt.Fprintf(conn, "%s %s\n", name, from)
			conn.Close()
		}
	}()
}

// greetIn is greet in a namespace.
func greetIn(t testing.TB, n *Namespace, address, name string) {
	t.Helper()
	within(t, n, func() error { greet(t, address, name); return nil })
}

// patience is for what is dropped, and so is answered never.
const patience = 400 * time.Millisecond

// ask gives what greet answers to the calling thread, or "" when nobody can be reached.
func ask(address string) string {
	d := net.Dialer{Timeout: patience}
	conn, err := d.Dial("tcp4", address)
	if err != nil {
		return ""
	}
	return answer(conn)
}

func answer(conn net.Conn) string {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line)
}

func askFrom(t testing.TB, n *Namespace, address string) (got string) {
	t.Helper()
	within(t, n, func() error { got = ask(address); return nil })
	return got
}

// Addresses of the world around the machine: (RFC 5737).
const (
	machineAddress = "203.0.113.1"
	outsideAddress = "203.0.113.2"
)

// world gives a machine that has an outside: a namespace of its own in which one
// host has all the addresses that are not the machine's, and knows the way to tenants.
func world(t testing.TB, p *Pool, extra ...string) *Namespace {
	t.Helper()
	outside := neighbour(t, p, "out0", machineAddress, outsideAddress)
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	must(t, err)
	defer h.Close()
	must(t, h.RouteAdd(&netlink.Route{Gw: net.ParseIP(outsideAddress)}))
	within(t, outside, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		for _, a := range extra {
			if err := h.AddrAdd(lo, &netlink.Addr{IPNet: single(net.ParseIP(a).To4())}); err != nil {
				return err
			}
		}
		return h.RouteAdd(&netlink.Route{Gw: net.ParseIP(machineAddress)})
	})
	greetIn(t, outside, ":80", "outside")
	return outside
}

// neighbour is a host on a link of its own to the machine.
func neighbour(t testing.TB, p *Pool, name, machine, its string) *Namespace {
	t.Helper()
	n, err := p.isolated(nil)
	must(t, err)
	t.Cleanup(func() { n.Close() })
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerNamespace = "net0", netlink.NsFd(int(n.file.Fd()))
	must(t, p.links.LinkAdd(pair))
	up := func(name, address string) error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		net24 := &net.IPNet{IP: net.ParseIP(address).To4(), Mask: net.CIDRMask(24, 32)}
		return errors.Join(h.AddrAdd(link, &netlink.Addr{IPNet: net24}), h.LinkSetUp(link))
	}
	must(t, up(name, machine))
	within(t, n, func() error { return up("net0", its) })
	must(t, activate(name))
	return n
}

// addressOf is the tenant's own.
func addressOf(p *Pool, n *Namespace) string { return p.options.address(n.slot).String() }

// startIn runs a program in n, as a tenant does, and gives its pidfd.
func startIn(t testing.TB, n *Namespace) (pidfd int, end func()) {
	t.Helper()
	var cmd *exec.Cmd
	within(t, n, func() error {
		cmd = exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd}
		return cmd.Start()
	})
	return pidfd, func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed: an error by design
	}
}

// remains lists what pools have on the machine: interfaces, tables, descriptors of namespaces.
func remains(t testing.TB) []string {
	t.Helper()
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	must(t, err)
	defer h.Close()
	links, err := tenantLinks(h, func(string) bool { return true })
	must(t, err)
	var found []string
	for _, l := range links {
		found = append(found, "interface "+l.Attrs().Name)
	}
	var conn nftables.Conn
	tables, err := conn.ListTables()
	must(t, err)
	for _, table := range tables {
		if strings.HasPrefix(table.Name, tablePrefix) {
			found = append(found, "table "+table.Name)
		}
	}
	descriptors, err := filepath.Glob("/proc/self/fd/*")
	must(t, err)
	for _, fd := range descriptors {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "net:") {
			found = append(found, "descriptor "+to)
		}
	}
	return found
}

func expectNothingLeft(t testing.TB) {
	t.Helper()
	if left := remains(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func forwarding(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(ipForward)
	must(t, err)
	return strings.TrimSpace(string(text))
}

func mustParse(s string) netip.Addr { return netip.MustParseAddr(s) }
