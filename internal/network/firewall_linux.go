package network

import (
	"bytes"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Firewalls lists the chains of other programs (Docker's, ufw's) that drop whatever is
// forwarded and not let through, and that have no rule in their table about addresses of
// the subnet. A packet must pass all chains of a machine: tenants whose egress is allowed
// reach nothing behind one of these. Such a rule is known by the address it compares
// with; one that looks into a set is not. Rules of the old iptables (legacy) are not seen.
// CodeUnavailable: they cannot be read.
func Firewalls(subnet netip.Prefix) (names []string, err error) {
	var conn nftables.Conn
	chains, err := conn.ListChains()
	if err != nil {
		return nil, noNftables(err)
	}
	for _, chain := range chains {
		if !drops(chain) || strings.HasPrefix(chain.Table.Name, tablePrefix) {
			continue
		}
		known, err := mentions(&conn, chains, chain.Table, subnet)
		if err != nil {
			return nil, noNftables(err)
		}
		if !known {
			names = append(names, chain.Table.Name+" "+chain.Name)
		}
	}
	return names, nil
}

func drops(chain *nftables.Chain) bool {
	forwards := chain.Hooknum != nil && *chain.Hooknum == *nftables.ChainHookForward
	drops := chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop
	ipv4 := chain.Table.Family == nftables.TableFamilyIPv4 || chain.Table.Family == nftables.TableFamilyINet
	return forwards && drops && ipv4
}

// mentions says whether a rule of the table compares something with the beginning of the
// subnet.
func mentions(conn *nftables.Conn, chains []*nftables.Chain, table *nftables.Table, subnet netip.Prefix) (bool, error) {
	beginning := subnet.Masked().Addr().AsSlice()
	for _, chain := range chains {
		if chain.Table.Name != table.Name || chain.Table.Family != table.Family {
			continue
		}
		rules, err := conn.GetRules(table, chain)
		if err != nil {
			return false, err
		}
		for _, rule := range rules {
			for _, part := range rule.Exprs {
				if cmp, ok := part.(*expr.Cmp); ok && len(cmp.Data) >= 2 && bytes.HasPrefix(beginning, cmp.Data) {
					return true, nil
				}
			}
		}
	}
	return false, nil
}
