package tenement

import "time"

// Scope is what the bearer of a token may do.
type Scope struct {
	// Tenant limits the token to instances of that name, in any service, and to
	// reading. Empty: everything.
	Tenant string
}

// Admin reports whether the scope allows everything.
func (s Scope) Admin() bool { return s.Tenant == "" }

// Sees reports whether the scope may read about id.
func (s Scope) Sees(id InstanceID) bool { return s.Admin() || s.Tenant == id.Name }

// Token is a management credential as it is kept: never the secret itself.
type Token struct {
	ID        string // short, public, for lists and revocation
	Scope     Scope
	CreatedAt time.Time
	ExpiresAt time.Time // zero: never
	LastUsed  time.Time // zero: never
}

// Event is one line of the audit log.
type Event struct {
	At      time.Time
	Actor   string // "local:0" for a uid at the socket, "token:<id>", or "daemon"
	Action  string // "spawn", "stop", …
	Target  string // an instance, a service or a token
	Outcome string // "ok", or the error's code
	Detail  string
}
