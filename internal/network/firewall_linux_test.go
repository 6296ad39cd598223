package network

import (
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"tenement"
)

// TestFirewallsOfOthers has a table such as Docker's beside ours.
func TestFirewallsOfOthers(t *testing.T) {
	if !ownMachine(t) {
		return
	}
	found := func(want ...string) {
		t.Helper()
		if got, err := Firewalls(DefaultSubnet); err != nil || !slices.Equal(got, want) {
			t.Errorf("found %q, %v, want %q", got, err, want)
		}
	}
	found()
	p := open(t, "ten", 0)
	run(t, p)
	defer take(t, p, tenement.EgressAllow).Close()
	found()

	var conn nftables.Conn
	filter := builder{conn: &conn, table: conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})}
	dropping := nftables.ChainPolicyDrop
	forward := conn.AddChain(&nftables.Chain{
		Name: "FORWARD", Table: filter.table, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
		Type: nftables.ChainTypeFilter, Policy: &dropping,
	})
	conn.AddChain(&nftables.Chain{
		Name: "INPUT", Table: filter.table, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
		Type: nftables.ChainTypeFilter, Policy: &dropping,
	})
	user := conn.AddChain(&nftables.Chain{Name: "DOCKER-USER", Table: filter.table})
	filter.rule(forward, match{&expr.Verdict{Kind: expr.VerdictJump, Chain: user.Name}})
	must(t, conn.Flush())
	found("filter FORWARD")

	filter.rule(user, accept, source(DefaultSubnet)[2:]) // without the family, which the table has
	must(t, conn.Flush())
	found()
}
