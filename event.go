package tenement

import "time"

// Actors that are no token and no local user.
const (
	ActorDaemon   = "daemon"   // what it did by itself
	ActorStranger = "stranger" // somebody without a credential that counts
)

// Event is one line of the audit log: an attempt of a change, and what became of it.
type Event struct {
	ID      int64 // rises with every event and is never given twice; 0 = not kept yet
	At      time.Time
	Actor   string // "local:0" for a uid at the socket, "token:<id>", or one of the Actor constants
	From    string // the client's address; "" at the socket and for the daemon
	Action  string // "spawn", "stop", …
	Target  string // an instance, a service or a token
	Outcome string // "ok", or the error's code
	Detail  string
}

// EventQuery selects events. Empty fields select all.
type EventQuery struct {
	Target        string // exactly
	Actor, Action string
	Since, Until  time.Time // Until is not included

	After  int64 // only events with a higher id, and of these the first ones
	Before int64 // only events with a lower id
	Limit  int   // otherwise the last so many

	// Tenant leaves only events about instances of that name, and of what was refused
	// only the attempts of Caller: what others try there, it need not know.
	Tenant, Caller string
}
