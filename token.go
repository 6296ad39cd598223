package tenement

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Role is what a token is for. Which role may use which route of the management API is
// one table, in package api.
type Role string

// The roles. The zero Role is none of them and may do nothing.
const (
	RoleAdmin    Role = "admin"     // everything
	RoleReadOnly Role = "read-only" // reads about everything, changes nothing
	RoleMetrics  Role = "metrics"   // reads the metrics, and nothing else
	RoleTenant   Role = "tenant"    // reads about, starts and stops one tenant's instances
)

// Roles lists them all.
var Roles = []Role{RoleAdmin, RoleReadOnly, RoleMetrics, RoleTenant}

// Scope is what the bearer of a token may do. The zero Scope is nothing.
type Scope struct {
	Role   Role
	Tenant string // with [RoleTenant] the name of its instances, in any service; else ""
}

// TenantScope is the scope of one tenant.
func TenantScope(name string) Scope { return Scope{Role: RoleTenant, Tenant: name} }

// Check accepts the scopes that a token can have; anything else is CodeInvalid.
func (s Scope) Check() error {
	e := &Error{Code: CodeInvalid, Op: "check scope"}
	switch {
	case !slices.Contains(Roles, s.Role):
		e.Err = fmt.Errorf("%q is not a scope", s.Role)
		e.Hint = "the scopes are " + joinRoles()
	case s.Role == RoleTenant && s.Tenant == "":
		e.Err, e.Hint = errors.New("the scope tenant needs the tenant's name"), "add: --tenant NAME"
	case s.Role == RoleTenant:
		return CheckInstanceName(s.Tenant)
	case s.Tenant != "":
		e.Err = fmt.Errorf("the scope %s is not limited to a tenant", s.Role)
		e.Hint = "a token for one tenant has the scope " + string(RoleTenant)
	default:
		return nil
	}
	return e
}

func joinRoles() string {
	names := make([]string, len(Roles))
	for i, r := range Roles {
		names[i] = string(r)
	}
	return strings.Join(names, ", ")
}

// SeesAll reports whether the scope may read about every instance.
func (s Scope) SeesAll() bool { return s.Role == RoleAdmin || s.Role == RoleReadOnly }

// Sees reports whether the scope may read about id.
func (s Scope) Sees(id InstanceID) bool {
	return s.SeesAll() || s.Role == RoleTenant && s.Tenant == id.Name
}

// String is the scope for people, such as "read-only" or "tenant alice".
func (s Scope) String() string {
	if s.Role == RoleTenant {
		return string(s.Role) + " " + s.Tenant
	}
	return string(s.Role)
}

// Token is a management credential as it is kept: never the secret itself.
type Token struct {
	ID        string // short, public, for lists and revocation
	Name      string // as its maker calls it; "" = nothing. Several may have the same
	Scope     Scope
	CreatedAt time.Time
	ExpiresAt time.Time // zero: never
	LastUsed  time.Time // zero: never
}

// Expired reports whether t counts no more at the time now.
func (t Token) Expired(now time.Time) bool { return !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt) }

// CheckTokenName accepts what [CheckInstanceName] does. An error has CodeInvalid.
func CheckTokenName(s string) error { return checkLabel("token", s, true) }
