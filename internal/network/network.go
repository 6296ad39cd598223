// Package network keeps a prepared network namespace for each instance, and says what
// may be reached from it.
package network

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tenement"
)

// DefaultSubnet is set apart for measurements between networks (RFC 2544), so that
// neither the internet nor, as a rule, anybody's own network uses it.
var DefaultSubnet = netip.MustParsePrefix("198.18.0.0/15")

// Options say how a [Pool] goes about it.
type Options struct {
	// Name tells the daemons of one machine apart: their interfaces and nftables tables
	// begin with it. 1 to 8 letters and digits. A daemon that is to adopt what an earlier
	// one left has the same.
	Name string

	// Subnet holds the tenants' addresses, which are seen on this machine only. IPv4,
	// /13 to /30; the zero value means [DefaultSubnet].
	Subnet netip.Prefix

	// Ready is how many namespaces are kept ready for each degree of egress, from the
	// first that is taken on; 0 or more.
	Ready int

	// Within says that the daemon is in a user namespace, and the network namespace that
	// it serves from is not: a thread that has left that cannot come back, and nothing
	// there can be changed. Then there is [tenement.EgressDeny] only.
	Within bool

	Log *slog.Logger
}

var namePattern = regexp.MustCompile(`^[a-z0-9]{1,8}$`)

// The bounds of Subnet: an interface's name has 15 bytes at most (IFNAMSIZ), of which
// the slot may have six.
const minSubnetBits, maxSubnetBits = 13, 30

func (o *Options) validate() error {
	if !o.Subnet.IsValid() {
		o.Subnet = DefaultSubnet
	}
	o.Subnet = o.Subnet.Masked()
	var err error
	switch bits := o.Subnet.Bits(); {
	case !namePattern.MatchString(o.Name):
		err = fmt.Errorf("the name %q is not 1 to 8 letters and digits", o.Name)
	case !o.Subnet.Addr().Is4() || bits < minSubnetBits || bits > maxSubnetBits:
		err = fmt.Errorf("the subnet %v is not an IPv4 one from /%d to /%d", o.Subnet, minSubnetBits, maxSubnetBits)
	case o.Ready < 0:
		err = fmt.Errorf("%d namespaces cannot be kept ready", o.Ready)
	}
	if err != nil {
		return &tenement.Error{Code: tenement.CodeInvalid, Op: "open network", Err: err}
	}
	return nil
}

// slots is the number of addresses for tenants: all but the first and the last of the
// subnet. A slot is a number from 1 to slots.
func (o *Options) slots() int { return 1<<(32-o.Subnet.Bits()) - 2 }

// address is that of the tenant in a slot.
func (o *Options) address(slot int) netip.Addr {
	b := o.Subnet.Addr().As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	n += uint32(slot)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// hostEnd is the name of the interface through which this machine sees a slot. The
// dash keeps the names of "a" and "a1" apart.
func (o *Options) hostEnd(slot int) string { return o.Name + "-" + strconv.Itoa(slot) }

// slotOf is the inverse of hostEnd.
func (o *Options) slotOf(hostEnd string) (slot int, ok bool) {
	digits, ok := strings.CutPrefix(hostEnd, o.Name+"-")
	if !ok {
		return 0, false
	}
	slot, err := strconv.Atoi(digits)
	return slot, err == nil && slot > 0 && o.hostEnd(slot) == hostEnd
}

// Where resolvers are configured. systemd-resolved, where it runs, is a resolver on the
// loopback interface for everybody, and lists in its own file whom it asks
// (systemd-resolved.service(8)).
const (
	resolvConf        = "/etc/resolv.conf"
	systemdResolvConf = "/run/systemd/resolve/resolv.conf"
)

// Nameservers are those of this machine that a tenant can ask too: not the ones that
// run on the machine itself, which no tenant reaches, and only IPv4. There may be none;
// then a tenant resolves no name unless it brings its own resolver.
func Nameservers() ([]netip.Addr, error) {
	own, err := ownAddresses()
	if err != nil {
		return nil, err
	}
	return nameservers(own, resolvConf, systemdResolvConf)
}

// nameservers are those that the first file lists that lists any outside of own.
func nameservers(own []netip.Addr, files ...string) ([]netip.Addr, error) {
	for _, file := range files {
		listed, err := readNameservers(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		listed = slices.DeleteFunc(listed, func(a netip.Addr) bool {
			return !a.Is4() || a.IsLoopback() || a.IsUnspecified() || slices.Contains(own, a)
		})
		if len(listed) > 0 {
			return listed, nil
		}
	}
	return nil, nil
}

// readNameservers reads the lines that resolv.conf(5) calls nameserver.
func readNameservers(path string) ([]netip.Addr, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var found []netip.Addr
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if address, err := netip.ParseAddr(fields[1]); err == nil {
			found = append(found, address.Unmap())
		}
	}
	return found, lines.Err()
}

// ownAddresses are those of this machine's interfaces.
func ownAddresses() ([]netip.Addr, error) {
	listed, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, a := range listed {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, prefix.Addr().Unmap())
		}
	}
	return own, nil
}
