package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tenement"
)

// group marks the machine's end of every tenant's interface, whichever daemon made it,
// so that one comparison in a rule tells it from all others. "ten" in ASCII.
const group = 0x74656e

const tenantEnd = "eth0"

// A pair of interfaces is a network of its own, so that all pairs have the same two
// link-layer addresses, locally administered ones (IEEE 802 §8.4). With both ends told
// the other's, nobody asks for it by ARP, and the tables of neighbours, of which the
// kernel has one for all namespaces (arp(7), gc_thresh3), stay empty: what is
// permanent does not count.
var (
	hostMAC   = net.HardwareAddr{0x02, 't', 'e', 'n', 0, 1}
	tenantMAC = net.HardwareAddr{0x02, 't', 'e', 'n', 0, 2}
)

// gateway is whom a tenant sends everything to. Nothing has the address; it only leads
// to hostMAC.
var gateway = net.IPv4(169, 254, 1, 1)

const connectOp = "connect a network namespace"

// connected makes a namespace with a way out.
func (p *Pool) connected() (_ *Namespace, err error) {
	var inside *netlink.Handle
	n, err := p.isolated(func() (err error) {
		if err := disableIPv6("default"); err != nil {
			return refused(err)
		}
		inside, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	if err := p.link(n); err != nil {
		_ = n.file.Close()
		return nil, err
	}
	err = p.finishTenantEnd(n, inside)
	if err == nil {
		err = activate(p.options.hostEnd(n.slot))
	}
	if err != nil {
		return nil, errors.Join(refused(err), n.Close())
	}
	return n, nil
}

// link makes the pair of interfaces in the next slot that is free on this machine:
// one whose interface or route exists waits to be adopted or swept, or is another
// daemon's.
func (p *Pool) link(n *Namespace) error {
	for range p.options.slots() {
		slot, ok := p.claimNext()
		if !ok {
			break
		}
		err := p.linkAt(n, slot)
		if err == nil {
			return nil
		}
		p.free(slot)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return &tenement.Error{
		Code: tenement.CodeFull, Op: connectOp,
		Err: fmt.Errorf("all %d addresses of %v are in use", p.options.slots(), p.options.Subnet),
	}
}

func (p *Pool) linkAt(n *Namespace, slot int) error {
	index, err := p.addPair(slot, n.file)
	if err != nil {
		return unavailable(connectOp, err, "run the daemon as root on a kernel with veth interfaces (modprobe veth)")
	}
	if err := p.finishHostEnd(slot, index); err != nil {
		return errors.Join(refused(err), removeLink(index))
	}
	n.slot, n.link = slot, index
	return nil
}

func refused(err error) error {
	return unavailable(connectOp, err, "let the daemon change network interfaces (CAP_NET_ADMIN) and write to /proc/sys/net")
}

// addPair makes both ends, the tenant's in its namespace.
func (p *Pool) addPair(slot int, namespace *os.File) (index int, err error) {
	conn, err := namespace.SyscallConn()
	if err != nil {
		return 0, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.Group = p.options.hostEnd(slot), hostMAC, group
	attrs.NumTxQueues, attrs.NumRxQueues = 1, 1
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerHardwareAddr = tenantEnd, tenantMAC
	control := conn.Control(func(fd uintptr) {
		pair.PeerNamespace = netlink.NsFd(int(fd))
		err = p.links.LinkAdd(pair)
	})
	return pair.Index, errors.Join(control, err)
}

// finishHostEnd switches on the machine's end and routes the tenant's address to it.
func (p *Pool) finishHostEnd(slot, index int) error {
	name := p.options.hostEnd(slot)
	if err := disableIPv6(name); err != nil {
		return err
	}
	address := net.IP(p.options.address(slot).AsSlice())
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index, Name: name}}
	if err := p.links.LinkSetUp(link); err != nil {
		return fmt.Errorf("switch on %s: %w", name, err)
	}
	if err := p.links.NeighSet(permanent(index, address, tenantMAC)); err != nil {
		return fmt.Errorf("neighbour on %s: %w", name, err)
	}
	route := &netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: single(address)}
	if err := p.links.RouteAdd(route); err != nil {
		return fmt.Errorf("route %v to %s: %w", address, name, err)
	}
	return nil
}

// finishTenantEnd gives the tenant its address and its way out.
func (p *Pool) finishTenantEnd(n *Namespace, inside *netlink.Handle) error {
	link, err := inside.LinkByName(tenantEnd)
	if err != nil {
		return fmt.Errorf("find %s: %w", tenantEnd, err)
	}
	index := link.Attrs().Index
	address := net.IP(p.options.address(n.slot).AsSlice())
	if err := inside.AddrAdd(link, &netlink.Addr{IPNet: single(address)}); err != nil {
		return fmt.Errorf("address of %s: %w", tenantEnd, err)
	}
	if err := inside.LinkSetUp(link); err != nil {
		return fmt.Errorf("switch on %s: %w", tenantEnd, err)
	}
	if err := inside.NeighSet(permanent(index, gateway, hostMAC)); err != nil {
		return fmt.Errorf("neighbour on %s: %w", tenantEnd, err)
	}
	route := &netlink.Route{LinkIndex: index, Gw: gateway, Flags: int(netlink.FLAG_ONLINK)}
	if err := inside.RouteAdd(route); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

func single(address net.IP) *net.IPNet {
	return &net.IPNet{IP: address, Mask: net.CIDRMask(32, 32)}
}

func permanent(link int, address net.IP, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: link, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		IP: address, HardwareAddr: mac,
	}
}

// disableIPv6 keeps an interface of the calling thread's namespace free of IPv6: no
// address of its own making, no router advertisements. "default" means those that are
// made from now on.
func disableIPv6(name string) error {
	err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
		return nil
	}
	return err
}

// activate makes an interface of the machine pass packets at once. The one of a pair that
// was switched on first drops them until a work queue of the kernel has noticed the
// second (net/core/link_watch.c), and a connection's first packet is repeated only after
// a second. Who asks whether there is a link (ETHTOOL_GLINK) makes the kernel notice.
func activate(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	value := struct{ cmd, data uint32 }{cmd: unix.ETHTOOL_GLINK}
	request := struct { // struct ifreq (netdevice(7))
		name  [unix.IFNAMSIZ]byte
		value unsafe.Pointer
		_     [16]byte
	}{value: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return os.NewSyscallError("SIOCETHTOOL on "+name, errno)
	}
	return nil
}

// removeLink removes both ends of a pair; one that is gone already is no error. It
// takes the kernel tens of milliseconds, and has a socket of its own, that nobody who
// makes one waits for it.
func removeLink(index int) error {
	err := netlink.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}})
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return os.NewSyscallError("remove a network interface", err)
}

// hostEnds are the machine's ends that pools of our name have made.
func (p *Pool) hostEnds() ([]netlink.Link, error) {
	return tenantLinks(p.links, func(name string) bool {
		_, ours := p.options.slotOf(name)
		return ours
	})
}

// tenantLinks are the interfaces that lead to tenants and whose names are wanted. A
// list that changed while it was read is read again.
func tenantLinks(links *netlink.Handle, wanted func(name string) bool) ([]netlink.Link, error) {
	const attempts = 10
	for attempt := 1; ; attempt++ {
		listed, err := links.LinkList()
		if errors.Is(err, netlink.ErrDumpInterrupted) && attempt < attempts {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list network interfaces: %w", err)
		}
		var found []netlink.Link
		for _, link := range listed {
			if attrs := link.Attrs(); attrs.Group == group && wanted(attrs.Name) {
				found = append(found, link)
			}
		}
		return found, nil
	}
}
