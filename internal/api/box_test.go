package api

import (
	"testing"

	"tenement"
)

// TestCaller: everybody is told who they are.
func TestCaller(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	s := newTestServer(t, b)
	url := overTCP(t, s)
	secret := b.secret(t, "alice")
	for _, row := range []struct {
		target Target
		want   Caller
	}{
		{Target{Server: url, Token: secret}, Caller{Actor: "token:" + secret[4:10], Scope: tenement.RoleTenant, Tenant: "alice"}},
		{Target{Socket: overSocket(t, s, 0)}, Caller{Actor: "local:0", Scope: tenement.RoleAdmin}},
	} {
		got, err := newTestClient(t, row.target).Caller(t.Context())
		if err != nil || got != row.want {
			t.Errorf("%+v is told %+v, %v", row.want, got, err)
		}
	}
}
