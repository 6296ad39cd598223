// Package api is the management contract: its types, its routes, the server and
// the one client.
package api

import (
	"time"

	"tenement"
)

// Instance is an instance as the management API shows it. Times that do not
// apply are left out.
type Instance struct {
	ID           tenement.InstanceID `json:"id" doc:"service:name" example:"api:alice"`
	State        tenement.State      `json:"state" enum:"asleep,starting,ready,frozen,draining,stopping,backoff,failed,suspended"`
	Health       tenement.Health     `json:"health" enum:"unknown,unchecked,healthy,degraded,unhealthy" doc:"what the last health check said"`
	Weight       int                 `json:"weight" doc:"share of its service's own host; 0 is none"`
	URL          string              `json:"url,omitempty" doc:"where it answers" example:"http://alice.api.example.com"`
	PID          int                 `json:"pid,omitempty"`
	Port         int                 `json:"port,omitempty"`
	Leases       int                 `json:"leases" doc:"requests, streams and upgraded connections under way"`
	Waiting      int                 `json:"waiting" doc:"requests held until it is ready"`
	Restarts     int                 `json:"restarts" doc:"within the restart window"`
	OOMKills     int                 `json:"oom_kills" doc:"how often it was ended because memory was short, ever"`
	Reason       string              `json:"reason,omitempty" doc:"why it is not ready; not for tenants"`
	RetryAt      time.Time           `json:"retry_at,omitzero" doc:"next start, in backoff and failed"`
	StartedAt    time.Time           `json:"started_at,omitzero" doc:"start of the present process"`
	BusyUntil    time.Time           `json:"busy_until,omitzero" doc:"its process has asked not to be put to sleep before"`
	NextAlarmAt  time.Time           `json:"next_alarm_at,omitzero" doc:"it is woken then, as it has asked; not in lists"`
	NextCronAt   time.Time           `json:"next_cron_at,omitzero" doc:"a cron line of its own or of its service is run then; not in lists"`
	HealthyAt    time.Time           `json:"last_healthy_at,omitzero" doc:"when it was known to be well last, whether or not it sleeps now"`
	LastActiveAt time.Time           `json:"last_active_at,omitzero" doc:"end of the last request"`
	CreatedAt    time.Time           `json:"created_at,omitzero"`
}

// NewInstance is st in the API's form, without its URL.
func NewInstance(st tenement.Status) Instance {
	return Instance{
		ID:           st.ID,
		State:        st.State,
		Health:       st.Health,
		Weight:       st.Weight,
		PID:          st.PID,
		Port:         st.Port,
		Leases:       st.Leases,
		Waiting:      st.Waiting,
		Restarts:     st.Restarts,
		OOMKills:     st.OOMKills,
		Reason:       st.Reason,
		RetryAt:      st.RetryAt,
		StartedAt:    st.StartedAt,
		BusyUntil:    st.BusyUntil,
		NextAlarmAt:  st.NextAlarm,
		NextCronAt:   st.NextCron,
		HealthyAt:    st.HealthyAt,
		LastActiveAt: st.LastActive,
		CreatedAt:    st.CreatedAt,
	}
}

// InstancePage is one page of a list of instances, ordered by id.
type InstancePage struct {
	Instances []Instance          `json:"instances" nullable:"false"`
	Total     *int                `json:"total,omitempty" doc:"how many match, on all pages; on the first page only"`
	Next      tenement.InstanceID `json:"next,omitzero" doc:"ask again with after set to this; absent on the last page"`
}

// SpawnRequest registers an instance and, unless Wake says otherwise, starts it.
type SpawnRequest struct {
	Process string `json:"process" doc:"the service" example:"api"`
	ID      string `json:"id" doc:"the instance's name within the service" example:"alice"`
	Weight  *int   `json:"weight,omitempty" minimum:"0" maximum:"1000" doc:"left as it is when absent; 0 for a new instance"`
	Wake    *bool  `json:"wake,omitempty" default:"true" doc:"start it and wait until it is ready"`
}

// WeightRequest sets an instance's share of its service's own host.
type WeightRequest struct {
	Weight int `json:"weight" minimum:"0" maximum:"1000"`
}

// DeployRequest starts a version, waits until it is healthy and gives it its weight.
type DeployRequest struct {
	Process string  `json:"process" doc:"the service" example:"api"`
	Version string  `json:"version" doc:"the instance that is the new version" example:"v2"`
	Weight  *int    `json:"weight,omitempty" minimum:"0" maximum:"1000" default:"100"`
	Timeout float64 `json:"timeout,omitempty" exclusiveMinimum:"0" maximum:"3600" default:"60" doc:"seconds to become healthy"`
}

// RouteRequest moves all weight from one instance of a service to another, at once.
type RouteRequest struct {
	Process string `json:"process" doc:"the service" example:"api"`
	From    string `json:"from" example:"v1"`
	To      string `json:"to" example:"v2"`
}

// InstanceHealth is the outcome of a health check made for this answer.
type InstanceHealth struct {
	ID     tenement.InstanceID `json:"id"`
	Health tenement.Health     `json:"health" enum:"unknown,unchecked,healthy,degraded,unhealthy"`
	Detail string              `json:"detail,omitempty"`
}

// Storage says where an instance keeps its files, how much they take and may take.
type Storage struct {
	ID          tenement.InstanceID `json:"id"`
	Path        string              `json:"path" doc:"the instance's data directory on the machine"`
	UsedBytes   tenement.Bytes      `json:"used_bytes" doc:"blocks of the disk, not lengths of files"`
	UsedFiles   int                 `json:"used_files" doc:"files, directories and all else that has a name"`
	LimitBytes  tenement.Bytes      `json:"limit_bytes,omitempty" doc:"0 is none"`
	LimitFiles  int                 `json:"limit_files,omitempty" doc:"0 is none"`
	Enforcement string              `json:"enforcement" enum:"none,project,measured" doc:"project: the file system refuses what is beyond; measured: it is measured now and then, and the instance put to sleep"`
}

// ReloadRequest says how to take up a changed configuration.
type ReloadRequest struct {
	Restart bool `json:"restart,omitempty" doc:"restart what runs with another recipe than the configuration has now, one instance at a time"`
}

// Reloaded is what a new configuration has changed.
type Reloaded struct {
	Added     []string              `json:"added,omitempty" nullable:"false" doc:"services"`
	Removed   []string              `json:"removed,omitempty" nullable:"false" doc:"services; what ran of them is put to sleep"`
	Changed   []string              `json:"changed,omitempty" nullable:"false" doc:"services"`
	Restarted []tenement.InstanceID `json:"restarted,omitempty" nullable:"false"`
	Outdated  []tenement.InstanceID `json:"outdated,omitempty" nullable:"false" doc:"instances that still run with the recipe of before"`
}

// ProfileKind is what a profile of the daemon is about.
type ProfileKind string

// The kinds of profiles; the first and the last are of a time.
const (
	ProfileCPU        ProfileKind = "cpu"
	ProfileHeap       ProfileKind = "heap"      // what is in memory
	ProfileAllocs     ProfileKind = "allocs"    // what was allocated since the start
	ProfileGoroutines ProfileKind = "goroutine" // what waits where
	ProfileTrace      ProfileKind = "trace"     // every event of the scheduler
)

// ProfileKinds lists them all.
var ProfileKinds = []ProfileKind{ProfileCPU, ProfileHeap, ProfileAllocs, ProfileGoroutines, ProfileTrace}

// Bounds of the time that a profile lasts.
const (
	MaxProfile     = 2 * time.Minute
	DefaultProfile = 10 * time.Second
)

// Upgraded is the daemon that has taken over.
type Upgraded struct {
	PID     int    `json:"pid"`
	Version string `json:"version"`
}

// LogLine is one line an instance printed.
type LogLine struct {
	ID       int64               `json:"id" doc:"rises with every line of any instance; never given twice"`
	At       time.Time           `json:"at"`
	Instance tenement.InstanceID `json:"instance"`
	Level    string              `json:"level" enum:"stdout,stderr"`
	Text     string              `json:"text" doc:"as printed, control characters included, without the line end"`
}

// LogLines is the last lines that match, oldest first.
type LogLines struct {
	Lines []LogLine `json:"lines" nullable:"false"`
}

// Event is one line of the audit log.
type Event struct {
	ID      int64     `json:"id" doc:"rises with every event; never given twice"`
	At      time.Time `json:"at"`
	Actor   string    `json:"actor" doc:"local:UID at the socket, token:ID, daemon, or stranger for who has no credential that counts; to a tenant, others only as local or token"`
	From    string    `json:"from,omitempty" doc:"the client's address; not for tenants unless it was themselves"`
	Action  string    `json:"action" example:"spawn"`
	Target  string    `json:"target,omitempty" doc:"an instance, a service or a token" example:"api:alice"`
	Outcome string    `json:"outcome" doc:"ok, or the code of the error"`
	Detail  string    `json:"detail,omitempty" doc:"not for tenants unless it was themselves"`
}

// Events is the last events that match, oldest first.
type Events struct {
	Events []Event `json:"events" nullable:"false"`
	Next   int64   `json:"next,omitempty" doc:"for those before ask again with before set to this; absent on the last page"`
}

// TokenRequest asks for a new token.
type TokenRequest struct {
	Name             string        `json:"name,omitempty" doc:"what to call it; need not be unique" example:"ci"`
	Scope            tenement.Role `json:"scope,omitempty" enum:"admin,read-only,metrics,tenant" doc:"tenant when a tenant is named, otherwise admin"`
	Tenant           string        `json:"tenant,omitempty" doc:"with the scope tenant: the name of the instances it is for" example:"alice"`
	ExpiresInSeconds int64         `json:"expires_in_seconds,omitempty" minimum:"0" maximum:"315360000" doc:"0 is never"`
}

// Token is what may be known of a management token: never the secret.
type Token struct {
	ID        string        `json:"id"`
	Name      string        `json:"name,omitempty"`
	Scope     tenement.Role `json:"scope" enum:"admin,read-only,metrics,tenant"`
	Tenant    string        `json:"tenant,omitempty" doc:"with the scope tenant"`
	CreatedAt time.Time     `json:"created_at"`
	ExpiresAt time.Time     `json:"expires_at,omitzero" doc:"absent: never"`
	LastUsed  time.Time     `json:"last_used,omitzero" doc:"absent: never"`
}

// newToken is t in the API's form.
func newToken(t tenement.Token) Token {
	return Token{
		ID:        t.ID,
		Name:      t.Name,
		Scope:     t.Scope.Role,
		Tenant:    t.Scope.Tenant,
		CreatedAt: t.CreatedAt,
		ExpiresAt: t.ExpiresAt,
		LastUsed:  t.LastUsed,
	}
}

// NewSecret is a token that was just made, with the secret that is shown only now.
type NewSecret struct {
	Token
	Secret string `json:"secret" doc:"the bearer token; it cannot be shown again"`
}

// Tokens is every token there is.
type Tokens struct {
	Tokens []Token `json:"tokens" nullable:"false"`
}

// Health is the daemon's own.
type Health struct {
	Status  string `json:"status" enum:"ok"`
	Version string `json:"version,omitempty" doc:"of the daemon; for admins at the local socket only"`
}
