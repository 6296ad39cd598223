package api

import (
	"context"
	"time"

	"tenement"
)

// Backend is what the daemon does for the management API. Its methods are called
// concurrently and return *tenement.Error; one about an instance that is not
// registered is CodeNotFound.
//
// The server has already decided that the caller may ask: a Backend checks no scopes.
type Backend interface {
	// Instances lists registered instances in order of their ids. Fewer than q.Limit
	// of them mean that there are no more. total, with q.Count, is how many there are
	// on all pages.
	Instances(ctx context.Context, q ListQuery) (list []tenement.Status, total int, err error)

	// Instance is one registered instance, asleep or not.
	Instance(ctx context.Context, id tenement.InstanceID) (tenement.Status, error)

	// Spawn registers id unless it is, and says whether it was new. A service that
	// the configuration lacks is CodeNotFound. With Wake it then does what Start does.
	Spawn(ctx context.Context, id tenement.InstanceID, o SpawnOptions) (st tenement.Status, created bool, err error)

	// Start wakes id and waits until it is ready. The end of ctx ends the wait, not
	// the start.
	Start(ctx context.Context, id tenement.InstanceID) error

	// Stop puts id to sleep and waits until its process is gone. The next request
	// wakes it.
	Stop(ctx context.Context, id tenement.InstanceID) error

	// Restart ends id's process and waits until the next one is ready. What sleeps
	// is started.
	Restart(ctx context.Context, id tenement.InstanceID) error

	// Suspend ends id's process and refuses requests until Resume.
	Suspend(ctx context.Context, id tenement.InstanceID) error

	// Resume undoes Suspend; the next request wakes id. What is not suspended is
	// left as it is.
	Resume(ctx context.Context, id tenement.InstanceID) error

	// Delete ends id's process and forgets id. purge removes its files as well.
	Delete(ctx context.Context, id tenement.InstanceID, purge bool) error

	// SetWeight gives id its share of its service's own host; 0 is none. It is
	// durable once it returns.
	SetWeight(ctx context.Context, id tenement.InstanceID, weight int) error

	// Health checks id now and says what came of it. What has no process is
	// HealthUnknown and is not woken.
	Health(ctx context.Context, id tenement.InstanceID) (health tenement.Health, detail string, err error)

	// Storage is id's data directory, the room that is taken there and its quota.
	Storage(ctx context.Context, id tenement.InstanceID) (Storage, error)

	// Timeline is what became of id in the last hour, as far as it is known.
	Timeline(ctx context.Context, id tenement.InstanceID) (tenement.Timeline, error)

	// Settings is what id has of its own; never the value of a secret.
	Settings(ctx context.Context, id tenement.InstanceID) (Settings, error)

	// ChangeSettings changes what is named, all of it or nothing, for id's next start on.
	// What the configuration could not say either is CodeInvalid.
	ChangeSettings(ctx context.Context, id tenement.InstanceID, change SettingsChange) (Settings, error)

	// Exec starts a command where id's process is, and wakes id if need be. It is activity
	// until the session is closed.
	Exec(ctx context.Context, id tenement.InstanceID, r ExecRequest) (*Session, error)

	// Run starts a command in a place of its own, with id's data, limits and settings.
	Run(ctx context.Context, id tenement.InstanceID, r ExecRequest) (*Session, error)

	// Deploy registers id if need be, starts it, waits at most timeout (more than 0)
	// until it is healthy, and only then gives it its weight.
	Deploy(ctx context.Context, id tenement.InstanceID, weight int, timeout time.Duration) error

	// Route moves the whole weight of service's instance from to its instance to,
	// in one durable step.
	Route(ctx context.Context, service, from, to string) error

	// Reload reads the configuration again and puts it in force wholly, or not at all:
	// one with mistakes is CodeInvalid, and one that needs a new daemon CodeConflict.
	// With restart, instances that run with what was in force before are restarted, one
	// at a time, until one does not come up.
	Reload(ctx context.Context, restart bool) (Reloaded, error)

	// Upgrade returns once another daemon, of the program as it is on the disk now,
	// serves in this one's place. CodeUnavailable: it did not start, and this one
	// serves on.
	Upgrade(ctx context.Context) (Upgraded, error)

	// Profile is a profile of the daemon itself, as `go tool pprof` or, of kind "trace",
	// `go tool trace` reads it; those of time last for duration. While another of the same
	// kind is taken it is CodeConflict.
	Profile(ctx context.Context, kind ProfileKind, duration time.Duration) ([]byte, error)

	// Logs is the last lines that match q, or with q.After the first of them, in the
	// order of their ids.
	Logs(ctx context.Context, q LogQuery) ([]LogLine, error)

	// FollowLogs follows the lines that match q: all after q.After, or without it the
	// last q.Limit there are and then all others. q.Until is not looked at.
	FollowLogs(q LogQuery) NextLogs

	// Events is the last events that q selects, or with q.After the first of them, in
	// the order of their ids.
	Events(ctx context.Context, q tenement.EventQuery) ([]tenement.Event, error)

	// FollowEvents follows the events that q selects: all after q.After, or without it
	// the last q.Limit there are and then all others. q.Until and q.Before are not
	// looked at.
	FollowEvents(q tenement.EventQuery) NextEvents

	// Metrics is every metric in the text format of Prometheus.
	Metrics(ctx context.Context) ([]byte, error)

	// Alerts lists those that their receiver does not have yet, the oldest first.
	Alerts(ctx context.Context) ([]tenement.Alert, error)

	// TestAlert sends an alert that says nothing, once, and says what became of it.
	// Without a receiver it is CodeConflict.
	TestAlert(ctx context.Context) (AlertTest, error)

	// Wakes is the last records of wakes that q selects, in the order of their ids.
	Wakes(ctx context.Context, q tenement.WakeQuery) ([]tenement.WakeRecord, error)

	// Usage is what was used in the hours that q selects, in their order. Unless next is
	// zero there are more, from that hour on.
	Usage(ctx context.Context, q tenement.UsageQuery) (list []tenement.UsageHour, next time.Time, err error)

	// UsageTotals adds up the hours that q selects: all in one, those of each hour, the last
	// ones first, or those of each instance, the largest in memory first; at most limit.
	UsageTotals(ctx context.Context, q tenement.UsageQuery, by tenement.UsageBy, limit int) ([]tenement.UsageHour, error)

	// CreateToken makes a token with [NewToken], gives t its id and keeps it with the
	// hash. The secret is not kept.
	CreateToken(ctx context.Context, t tenement.Token) (made tenement.Token, secret string, err error)

	// Tokens lists every token, the oldest first.
	Tokens(ctx context.Context) ([]tenement.Token, error)

	// RevokeToken ends a token at once; one that there is not is CodeNotFound.
	RevokeToken(ctx context.Context, id string) error

	// Authenticate finds the token whose secret this is; [ParseToken] has accepted
	// its form. One that is unknown, revoked or expired is CodeUnauthenticated. It
	// notes the use of the token.
	Authenticate(ctx context.Context, secret string) (tenement.Token, error)

	// Box is the machine, and what the daemon keeps there; without a Version.
	Box(ctx context.Context) (Box, error)

	// BoxTimeline is how the machine did in the last hour.
	BoxTimeline(ctx context.Context) (BoxTimeline, error)

	// Ready is nil when the daemon can do its work.
	Ready(ctx context.Context) error

	// Record adds one line to the audit log. The server sets all of e. A line that
	// cannot be kept is the Backend's to report: the change has happened.
	Record(ctx context.Context, e tenement.Event)
}

// ListQuery selects instances. Empty fields select all.
type ListQuery struct {
	Service string
	Name    string
	Text    string // anywhere in "service:name"
	States  []tenement.State
	After   tenement.InstanceID // only what comes after it in order
	Limit   int                 // at most so many; 1 to [MaxInstances]
	Count   bool                // how many there are is asked as well
}

// SpawnOptions says how to register an instance.
type SpawnOptions struct {
	Weight *int // nil: leave it as it is, 0 for a new instance
	Wake   bool
}

// LogQuery selects log lines. Empty fields select all.
type LogQuery struct {
	Instance tenement.InstanceID
	Tenant   string // only lines of instances of that name
	Level    string // "stdout" or "stderr"
	Search   string // words that all must be in the line
	Since    time.Time
	Until    time.Time
	After    int64 // only lines with a higher id
	Limit    int   // at most so many; up to [MaxLogLines]
}

// NextLogs waits for the next lines of those that are followed. None is left out and
// none given twice. upTo is the id up to which all have been given, also with an error.
// CodeTimeout and CodeCanceled say that ctx has ended, CodeUnavailable that the daemon
// ends; after CodeTimeout it may be called again.
type NextLogs func(ctx context.Context) (lines []LogLine, upTo int64, err error)

// NextEvents is [NextLogs] for events.
type NextEvents func(ctx context.Context) (events []tenement.Event, upTo int64, err error)

// The longest answers to one question.
const (
	MaxInstances = 1000
	MaxLogLines  = 10_000
	MaxEvents    = 10_000
)
