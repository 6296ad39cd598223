package network

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tenement"
)

// TestWhatATenantReaches is the whole of what egress means, each direction once. All
// that is refused would work without the rules: everybody has a route to everybody.
func TestWhatATenantReaches(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 0)
	t.Cleanup(func() { must(t, p.Close()) })
	outside := world(t, p, "169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.19.1.1")
	alice, bob := take(t, p, tenement.EgressAllow), take(t, p, tenement.EgressAllow)
	t.Cleanup(func() { must(t, errors.Join(alice.Close(), bob.Close())) })
	greet(t, ":80", "machine")
	greetIn(t, bob, ":80", "bob")
	mapPorts(t)

	for _, test := range []struct{ name, address, want string }{
		{"the outside", outsideAddress, "outside " + machineAddress},
		{"the metadata", "169.254.169.254", ""},
		{"Alibaba's", "100.100.100.200", ""},
		{"Azure's agent", "168.63.129.16", ""},
		{"Oracle's old", "192.0.0.192", ""},
		{"a tenant", addressOf(p, bob), ""},
		{"an address for tenants that is elsewhere", "198.19.1.1", ""},
		{"the machine", machineAddress, ""},
		{"the gateway", "169.254.1.1", ""},
		{"a port of the machine that is mapped to the outside", machineAddress + ":8080", ""},
		{"a port of the outside that is redirected to the machine", outsideAddress + ":81", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			address := test.address
			if !strings.Contains(address, ":") {
				address += ":80"
			}
			if got := askFrom(t, alice, address); got != test.want {
				t.Errorf("%s: got %q, want %q", address, got, test.want)
			}
		})
	}
	t.Run("a tenant from elsewhere", func(t *testing.T) {
		t.Parallel()
		for from, got := range map[string]string{
			"the outside":  askFrom(t, outside, addressOf(p, bob)+":80"),
			"the machine":  ask(addressOf(p, bob) + ":80"),
			"its own side": strings.Fields(askFrom(t, bob, addressOf(p, bob)+":80"))[0],
		} {
			if want := map[string]string{"its own side": "bob"}[from]; got != want {
				t.Errorf("from %s: %q", from, got)
			}
		}
	})
	t.Run("a datagram from the machine", func(t *testing.T) {
		t.Parallel()
		conn, err := net.Dial("udp4", addressOf(p, bob)+":9")
		must(t, err)
		defer conn.Close()
		if _, err := conn.Write([]byte("x")); !errors.Is(err, unix.EPERM) {
			t.Errorf("it was sent: %v", err)
		}
	})
	t.Run("IPv6", func(t *testing.T) {
		t.Parallel()
		within(t, alice, func() error { noIPv6(t, tenantEnd); return nil })
		noIPv6(t, p.options.hostEnd(alice.slot))
	})
}

// mapPorts does as container engines and transparent proxies do: what is sent to the
// machine's port 8080 goes outside, what is sent to anybody's port 81 to the machine.
func mapPorts(t *testing.T) {
	t.Helper()
	var conn nftables.Conn
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "other"})
	b := builder{conn: &conn, table: table}
	chain := b.chain("mapped", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, nftables.ChainTypeNAT)
	b.rule(chain, match{
		&expr.Immediate{Register: 1, Data: net.ParseIP(outsideAddress).To4()},
		&expr.Immediate{Register: 2, Data: []byte{0, 80}},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}, port(unix.IPPROTO_TCP, 8080))
	b.rule(chain, match{
		&expr.Immediate{Register: 1, Data: net.ParseIP(machineAddress).To4()},
		&expr.Immediate{Register: 2, Data: []byte{0, 80}},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}, port(unix.IPPROTO_TCP, 81))
	must(t, conn.Flush())
}

func noIPv6(t *testing.T, name string) {
	t.Helper()
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	must(t, err)
	defer h.Close()
	link, err := h.LinkByName(name)
	must(t, err)
	if found, err := h.AddrList(link, unix.AF_INET6); err != nil || len(found) > 0 {
		t.Errorf("%s has %v, %v", name, found, err)
	}
}

// TestNoIPv6 has somebody switch IPv6 on again, on all the way to AWS's metadata.
func TestNoIPv6(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 0)
	defer p.Close()
	outside := world(t, p)
	n := take(t, p, tenement.EgressAllow)
	defer n.Close()
	setUp := func(name, address, to, via string) error {
		for _, setting := range []string{name + "/disable_ipv6=0", "all/forwarding=1"} {
			file, value, _ := strings.Cut(setting, "=")
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+file, []byte(value), 0); err != nil {
				return err
			}
		}
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		net64 := &net.IPNet{IP: net.ParseIP(address), Mask: net.CIDRMask(64, 128)}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: net64, Flags: unix.IFA_F_NODAD}); err != nil || to == "" {
			return err
		}
		_, target, err := net.ParseCIDR(to)
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: target, Gw: net.ParseIP(via)})
	}
	must(t, setUp(p.options.hostEnd(n.slot), "fd00:1::1", "", ""))
	must(t, setUp("out0", "fd00:2::1", "fd00:ec2::/64", "fd00:2::2"))
	within(t, outside, func() error {
		if err := setUp("lo", "fd00:ec2::254", "", ""); err != nil {
			return err
		}
		l, err := net.Listen("tcp6", ":80")
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		return setUp("net0", "fd00:2::2", "fd00:1::/64", "fd00:2::1")
	})
	connects := func() (err error) {
		within(t, n, func() error {
			d := net.Dialer{Timeout: patience}
			var conn net.Conn
			if conn, err = d.Dial("tcp6", "[fd00:ec2::254]:80"); err == nil {
				conn.Close()
			}
			return nil
		})
		return err
	}
	within(t, n, func() error { return setUp(tenantEnd, "fd00:1::2", "fd00:ec2::/64", "fd00:1::1") })
	must(t, p.rules.remove())
	eventually(t, "without the rules it connects", func() bool { return connects() == nil })
	must(t, p.rules.install())
	if connects() == nil {
		t.Error("a tenant reaches the metadata by IPv6")
	}
}

// TestTheWayIsNarrow: a tenant is told when its packets are too large for the way out.
func TestTheWayIsNarrow(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 0)
	defer p.Close()
	world(t, p)
	link, err := netlink.LinkByName("out0")
	must(t, err)
	must(t, netlink.LinkSetMTU(link, 1280))
	n := take(t, p, tenement.EgressAllow)
	defer n.Close()
	within(t, n, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		must(t, unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO))
		must(t, unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte(mustParse(outsideAddress).AsSlice())}))
		eventually(t, "the tenant knows the way's MTU", func() bool {
			_, _ = unix.Write(fd, make([]byte, 1400)) // told by an error, once it is known
			mtu, err := unix.GetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU)
			return err == nil && mtu == 1280
		})
		return nil
	})
}

// TestRulesComeBack flushes them as `nft flush ruleset` does.
func TestRulesComeBack(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 0)
	stop := run(t, p)
	world(t, p)
	n := take(t, p, tenement.EgressAllow)
	greet(t, machineAddress+":80", "machine")
	subscribed := regexp.MustCompile(fmt.Sprintf(`(?m)^\S+ +%d +\d+ +%08x `, unix.NETLINK_NETFILTER, 1<<(unix.NFNLGRP_NFTABLES-1)))
	eventually(t, "the pool hears of changes", func() bool {
		text, err := os.ReadFile("/proc/net/netlink")
		must(t, err)
		return subscribed.Match(text)
	})
	var conn nftables.Conn
	conn.FlushRuleset()
	must(t, conn.Flush())
	eventually(t, "the rules come back", func() bool {
		return strings.Contains(strings.Join(remains(t), " "), "table tenement_ten")
	})
	if got := askFrom(t, n, machineAddress+":80"); got != "" {
		t.Errorf("the tenant reaches %q", got)
	}
	if got := askFrom(t, n, outsideAddress+":80"); got != "outside "+machineAddress {
		t.Errorf("the outside: %q", got)
	}
	must(t, n.Close())
	stop()
	must(t, p.Close())
	if forwarding(t) != "0" {
		t.Error("that the machine was no router is forgotten")
	}
}

func TestTheCloudsNameserver(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 0)
	defer p.Close()
	outside := world(t, p, "169.254.169.254", "169.254.169.253")
	greetIn(t, outside, ":53", "nameserver")
	n := take(t, p, tenement.EgressAllow)
	defer n.Close()
	if got := askFrom(t, n, "169.254.169.254:53"); got != "" {
		t.Errorf("a nameserver that is not the machine's: %q", got)
	}
	must(t, p.rules.put(true, append(metadataServers(), mustParse("192.0.2.1"))))
	for address, want := range map[string]string{
		"169.254.169.254:53": "nameserver " + machineAddress,
		"169.254.169.254:80": "",
		"169.254.169.253:53": "",
	} {
		if got := askFrom(t, n, address); got != want {
			t.Errorf("%s: got %q, want %q", address, got, want)
		}
	}
}

// TestForgedSource sends as root in a tenant's namespace could: from the own address,
// from a neighbour's, from one that is nobody's.
func TestForgedSource(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 0)
	defer p.Close()
	outside := world(t, p)
	alice, bob := take(t, p, tenement.EgressAllow), take(t, p, tenement.EgressAllow)
	defer alice.Close()
	defer bob.Close()
	var l net.PacketConn
	within(t, outside, func() (err error) {
		l, err = net.ListenPacket("udp4", ":9")
		return err
	})
	defer l.Close()
	own := addressOf(p, alice)
	within(t, alice, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := h.LinkByName(tenantEnd)
		if err != nil {
			return err
		}
		for _, source := range []string{addressOf(p, bob), "198.18.77.77", "192.0.2.7", own} { // the own one last
			if source != own {
				if err := h.AddrAdd(link, &netlink.Addr{IPNet: single(net.ParseIP(source).To4())}); err != nil {
					return err
				}
			}
			conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(source)}, &net.UDPAddr{IP: net.ParseIP(outsideAddress), Port: 9})
			if err != nil {
				return err
			}
			if _, err := conn.Write([]byte(source)); err != nil {
				return err
			}
			conn.Close()
		}
		return nil
	})
	_ = l.SetReadDeadline(time.Now().Add(10 * time.Second))
	buffer := make([]byte, 100)
	length, _, err := l.ReadFrom(buffer)
	if got := string(buffer[:length]); got != own || err != nil {
		t.Errorf("first came %q, %v, not what has its own source, %s", got, err, own)
	}
}

func TestDeniedReachesNothing(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 0)
	world(t, p)
	greet(t, ":80", "machine")
	n := take(t, p, tenement.EgressDeny)
	if n.Slot() != 0 {
		t.Errorf("slot %d", n.Slot())
	}
	greetIn(t, n, "127.0.0.1:8000", "tenant")
	if got := askFrom(t, n, "127.0.0.1:8000"); got != "tenant 127.0.0.1" {
		t.Errorf("itself: %q", got)
	}
	within(t, n, func() error {
		_, err := net.Dial("tcp4", outsideAddress+":80")
		expectErrno(t, err, unix.ENETUNREACH)
		_, err = net.Dial("tcp4", machineAddress+":80")
		expectErrno(t, err, unix.ENETUNREACH)
		_, err = net.Dial("tcp4", "127.0.0.1:80")
		expectErrno(t, err, unix.ECONNREFUSED)
		links, err := net.Interfaces()
		if len(links) != 1 || err != nil {
			t.Errorf("interfaces %v, %v", links, err)
		}
		return nil
	})
	must(t, n.Close())
	if tables := remains(t); strings.Contains(strings.Join(tables, " "), "table") || forwarding(t) != "0" {
		t.Errorf("the machine was changed: %v, forwarding %s", tables, forwarding(t))
	}
	must(t, p.Close())
}

// TestRulesAreNeverAway makes them anew, as a restarted daemon does, while a tenant sends
// as fast as it can to a service of the machine.
func TestRulesAreNeverAway(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	p := open(t, "ten", 0)
	world(t, p)
	n := take(t, p, tenement.EgressAllow)
	service, err := net.ListenPacket("udp4", machineAddress+":9")
	must(t, err)
	defer service.Close()
	var conn net.Conn
	within(t, n, func() (err error) {
		conn, err = net.Dial("udp4", machineAddress+":9")
		return err
	})
	stop := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = conn.Write([]byte("x")) // what is dropped may be told, or not
			}
		}
	})
	for range 50 {
		next := open(t, "ten", 0)
		must(t, next.rules.install())
		next.Detach()
	}
	buffer := make([]byte, 1)
	_ = service.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, _, err := service.ReadFrom(buffer); err == nil {
		t.Error("a packet came through")
	}
	if got := remains(t); len(got) < 2 || strings.Count(strings.Join(got, " "), "table") != 1 {
		t.Errorf("there are %v", got)
	}
	must(t, p.rules.remove())
	_ = service.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, _, err := service.ReadFrom(buffer); err != nil {
		t.Errorf("without the rules nothing comes either: %v", err)
	}
	close(stop)
	sender.Wait()
	conn.Close()
	must(t, n.Close())
	must(t, p.Close())
}

// TestTheMachineBecomesNoRouter looks at packets that have nothing to do with tenants,
// between two networks of the machine.
func TestTheMachineBecomesNoRouter(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	for _, before := range []string{"0", "1"} {
		t.Run("forwarding was "+before, func(t *testing.T) {
			must(t, os.WriteFile(ipForward, []byte(before), 0))
			passes := map[string]string{"0": "", "1": "elsewhere " + outsideAddress}[before]
			p, other := open(t, "ten", 0), open(t, "other", 0)
			name := "out" + before
			third := "192.0.2." // a network that only the machine has a way to
			outside := neighbour(t, p, name, machineAddress, outsideAddress)
			elsewhere := neighbour(t, p, name+"b", third+"1", third+"2")
			for n, via := range map[*Namespace]string{outside: machineAddress, elsewhere: third + "1"} {
				within(t, n, func() error {
					return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(via)})
				})
			}
			greetIn(t, elsewhere, ":80", "elsewhere")
			expect := func(when, want string) {
				t.Helper()
				if got := askFrom(t, outside, third+"2:80"); got != want {
					t.Errorf("%s: %q", when, got)
				}
			}
			expect("at first", passes)
			n := take(t, p, tenement.EgressAllow)
			expect("with a tenant", passes)
			theirs := take(t, other, tenement.EgressAllow)
			for who, n := range map[string]*Namespace{"tenant": n, "other daemon's tenant": theirs} {
				if got := askFrom(t, n, third+"2:80"); got != "elsewhere "+third+"1" {
					t.Errorf("the %s: %q", who, got)
				}
			}
			n.Detach()
			p.Detach()
			next := open(t, "ten", 0)
			must(t, next.rules.install())
			expect("after a restart", passes)
			must(t, next.Sweep())
			must(t, next.Close())
			expect("with the other daemon alone", passes)
			if got := forwarding(t); got != "1" {
				t.Errorf("forwarding is %s while the other daemon has a tenant", got)
			}
			must(t, theirs.Close())
			must(t, other.Close())
			if got := forwarding(t); got != before {
				t.Errorf("forwarding is %s at the end", got)
			}
			expect("at the end", passes)
			must(t, n.Close())
			for _, link := range []string{name, name + "b"} {
				l, err := netlink.LinkByName(link)
				must(t, err)
				must(t, netlink.LinkDel(l))
			}
		})
	}
}
