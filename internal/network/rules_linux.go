package network

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tenement"
)

// ruleset is the nftables table that says what tenants may reach. Its rules go by the
// group of an interface, so that they are the same however many tenants there are.
type ruleset struct {
	options *Options
	links   *netlink.Handle

	mu        sync.Mutex // guards what follows
	installed bool
	guard     bool // as it was decided when they were installed
}

// tablePrefix begins the names of all daemons' tables.
const tablePrefix = "tenement_"

// guardChain is there when we made a router of a machine that was none: it lets pass
// what is to or from a tenant and nothing else. That it is there is also the only
// record of what we did, for whoever has the table next.
const guardChain = "guard"

const ipForward = "/proc/sys/net/ipv4/ip_forward"

// install puts the rules in force, once in the life of a pool, before the first
// interface exists. Rules that an earlier pool left are replaced in one step.
func (r *ruleset) install() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.installed {
		return nil
	}
	guard, err := r.needsGuard()
	if err != nil {
		return err
	}
	if err := r.replace(guard); err != nil {
		return err
	}
	if err := os.WriteFile(ipForward, []byte("1"), 0); err != nil {
		return unavailable("switch on the forwarding of packets", err, "set net.ipv4.ip_forward = 1 in /etc/sysctl.d")
	}
	r.installed, r.guard = true, guard
	return nil
}

func noNftables(err error) error {
	missing := "use a kernel with nftables (modprobe nf_tables nft_chain_nat nft_ct nft_fib_inet nft_masq)"
	if errors.Is(err, fs.ErrPermission) {
		missing = "run the daemon as root (CAP_NET_ADMIN)"
	}
	return unavailable("put the rules for tenants' packets in force", err, missing)
}

// needsGuard says whether it is by our doing that this machine forwards packets: it does
// not yet, or a guard says so, ours or another daemon's, which may end before us.
func (r *ruleset) needsGuard() (bool, error) {
	text, err := os.ReadFile(ipForward)
	if err != nil {
		return false, unavailable("read "+ipForward, err, "mount /proc")
	}
	if strings.TrimSpace(string(text)) == "0" {
		return true, nil
	}
	var conn nftables.Conn
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, noNftables(err)
	}
	for _, chain := range chains {
		if chain.Name == guardChain && strings.HasPrefix(chain.Table.Name, tablePrefix) {
			return true, nil
		}
	}
	return false, nil
}

// remove undoes install, if nothing has been installed by another pool of our name
// since. A machine that we made a router is none again once no daemon has tenants.
func (r *ruleset) remove() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var conn nftables.Conn
	table, err := conn.ListTableOfFamily(tablePrefix+r.options.Name, nftables.TableFamilyINet)
	if errors.Is(err, fs.ErrNotExist) || table == nil {
		return nil
	}
	if err != nil {
		return noNftables(err)
	}
	if err := r.stopForwarding(&conn, table); err != nil {
		return err
	}
	conn.DelTable(table)
	r.installed = false
	return conn.Flush()
}

func (r *ruleset) stopForwarding(conn *nftables.Conn, table *nftables.Table) error {
	guard, err := conn.ListChain(table, guardChain)
	if errors.Is(err, fs.ErrNotExist) || guard == nil {
		return nil
	}
	if err != nil {
		return err
	}
	left, err := tenantLinks(r.links, func(string) bool { return true })
	if err != nil || len(left) > 0 {
		return err
	}
	return os.WriteFile(ipForward, []byte("0"), 0)
}

// replace makes the table anew. The kernel takes all of it or nothing, and no packet
// meets anything in between.
func (r *ruleset) replace(guard bool) error {
	servers, err := Nameservers()
	if err != nil {
		return &tenement.Error{Code: tenement.CodeUnavailable, Op: "read the nameservers", Err: err}
	}
	if err := r.put(guard, servers); err != nil {
		return noNftables(err)
	}
	return nil
}

func (r *ruleset) put(guard bool, servers []netip.Addr) error {
	var conn nftables.Conn
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: tablePrefix + r.options.Name}
	conn.AddTable(table) // what exists can be deleted
	conn.DelTable(table)
	conn.AddTable(table)
	b := builder{conn: &conn, table: table}
	arriving(b)
	toMachine(b)
	fromMachine(b)
	r.forwarded(b, servers)
	if guard {
		chain := b.chain(guardChain, nftables.ChainHookForward, nftables.ChainPriorityRef(*nftables.ChainPriorityFilter+1), nftables.ChainTypeFilter)
		b.rule(chain, drop, family(expr.CmpOpEq, unix.NFPROTO_IPV4),
			in(expr.CmpOpNeq), out(expr.CmpOpNeq))
	}
	nat := b.chain("leaving", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nftables.ChainTypeNAT)
	b.rule(nat, match{&expr.Masq{}}, source(r.options.Subnet), out(expr.CmpOpNeq))
	return conn.Flush()
}

// arriving judges packets as they come from a tenant, before anything (connection
// tracking, the port mappings of other programs) has seen them.
func arriving(b builder) {
	chain := b.chain("arriving", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, nftables.ChainTypeFilter)
	b.rule(chain, accept, in(expr.CmpOpNeq))
	b.rule(chain, drop, family(expr.CmpOpNeq, unix.NFPROTO_IPV4))
	b.rule(chain, drop, match{ // its source's way back is another interface: it is forged
		&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
	})
	b.rule(chain, drop, match{ // to an address of this machine, whatever it is mapped to, or to many
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_UNICAST)},
	})
}

// toMachine keeps tenants from what another program redirects to this machine.
func toMachine(b builder) {
	chain := b.chain("to_machine", nftables.ChainHookInput, nftables.ChainPriorityFilter, nftables.ChainTypeFilter)
	b.rule(chain, drop, in(expr.CmpOpEq))
}

// fromMachine keeps this machine's other programs, tenants without isolation among
// them, from tenants. Answers are allowed: that a packet was too large, for one.
func fromMachine(b builder) {
	chain := b.chain("from_machine", nftables.ChainHookOutput, nftables.ChainPriorityFilter, nftables.ChainTypeFilter)
	b.rule(chain, accept, out(expr.CmpOpEq), answers())
	b.rule(chain, drop, out(expr.CmpOpEq))
}

// metadata are the addresses at which clouds tell a machine its secrets, and those that
// only ever mean this machine or its link: AWS, GCP, Azure, Oracle and most others
// use 169.254.169.254, Tencent 169.254.0.23, Alibaba 100.100.100.200, Oracle Classic
// 192.0.0.192, Azure's agent 168.63.129.16. AWS's fd00:ec2::254 is IPv6, which tenants do not have.
var metadata = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("192.0.0.192/32"),
	netip.MustParsePrefix("168.63.129.16/32"),
}

// forwarded lets tenants reach what is elsewhere, and nobody reach tenants. Some clouds'
// nameservers (GCP, Azure) are at the address of the metadata: port 53 of those that
// this machine itself uses is open, and no more.
func (r *ruleset) forwarded(b builder, servers []netip.Addr) {
	chain := b.chain("forwarded", nftables.ChainHookForward, nftables.ChainPriorityFilter, nftables.ChainTypeFilter)
	b.rule(chain, accept, out(expr.CmpOpEq), in(expr.CmpOpNeq), answers())
	b.rule(chain, drop, out(expr.CmpOpEq))
	b.rule(chain, accept, in(expr.CmpOpNeq))
	for _, server := range servers {
		for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			b.rule(chain, accept, destination(netip.PrefixFrom(server, 32)), port(protocol, 53))
		}
	}
	for _, prefix := range append([]netip.Prefix{r.options.Subnet}, metadata...) {
		b.rule(chain, drop, destination(prefix))
	}
}

// builder adds to one table.
type builder struct {
	conn  *nftables.Conn
	table *nftables.Table
}

// chain adds a base chain, which lets pass what its rules do not drop.
func (b builder) chain(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority, kind nftables.ChainType) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return b.conn.AddChain(&nftables.Chain{
		Name: name, Table: b.table, Hooknum: hook, Priority: priority, Type: kind, Policy: &policy,
	})
}

// match is a part of a rule: what a packet is like, or what becomes of it.
type match []expr.Any

var (
	accept = match{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop   = match{&expr.Verdict{Kind: expr.VerdictDrop}}
)

// rule adds one, in which what becomes of packets that all conditions hold for comes first.
func (b builder) rule(chain *nftables.Chain, then match, conditions ...match) {
	var all match
	for _, condition := range conditions {
		all = append(all, condition...)
	}
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: chain, Exprs: append(all, then...)})
}

// in and out say whether a packet comes from a tenant's interface or goes to one.
func in(op expr.CmpOp) match  { return compareGroup(expr.MetaKeyIIFGROUP, op) }
func out(op expr.CmpOp) match { return compareGroup(expr.MetaKeyOIFGROUP, op) }

func compareGroup(key expr.MetaKey, op expr.CmpOp) match {
	return match{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.NativeEndian.PutUint32(group)},
	}
}

func family(op expr.CmpOp, protocol byte) match {
	return match{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: []byte{protocol}},
	}
}

// answers are packets of connections that began on the other side, and errors about them.
func answers() match {
	states := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return match{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: states, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// Where the addresses are in an IPv4 header (RFC 791 §3.1), in bytes.
const sourceOffset, destinationOffset = 12, 16

func source(prefix netip.Prefix) match      { return address(sourceOffset, prefix) }
func destination(prefix netip.Prefix) match { return address(destinationOffset, prefix) }

func address(offset uint32, prefix netip.Prefix) match {
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-prefix.Bits()))
	return append(family(expr.CmpOpEq, unix.NFPROTO_IPV4),
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4, DestRegister: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: prefix.Addr().AsSlice()},
	)
}

// port is the destination's, in UDP and TCP alike the header's second two bytes.
func port(protocol byte, number uint16) match {
	return match{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, number)},
	}
}
