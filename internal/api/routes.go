package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"tenement"
)

// access is who may use a route.
type access uint8

const (
	adminOnly access = iota
	open             // anybody
	measuring        // what monitoring reads
	overview         // about the daemon or about all instances
	reading          // about instances; a tenant's token about its own
	steering         // starts and stops instances; a tenant's token its own
)

// admitted is which roles may use a route. With this and [routes] it is said what a
// token can do; nothing else decides.
var admitted = map[access][]tenement.Role{
	adminOnly: {tenement.RoleAdmin},
	open:      tenement.Roles,
	measuring: {tenement.RoleAdmin, tenement.RoleReadOnly, tenement.RoleMetrics},
	overview:  {tenement.RoleAdmin, tenement.RoleReadOnly},
	reading:   {tenement.RoleAdmin, tenement.RoleReadOnly, tenement.RoleTenant},
	steering:  {tenement.RoleAdmin, tenement.RoleTenant},
}

// route is one line of the API.
type route struct {
	method, path string
	access       access
	action       string // as the audit log calls it; "" for a route that changes nothing
	id, summary  string // for the OpenAPI document
	mount        func(*Server, huma.API, huma.Operation)
}

// Commands as the audit log calls them.
const (
	actionExec = "exec"
	actionRun  = "run"
)

// The path of one instance, and what hangs below it.
const instancePath = "/api/instances/{instance}"

// routes is the whole API. Nothing is served that does not stand here.
var routes = []route{
	{http.MethodGet, "/health", open, "", "get-health", "Whether the daemon works", mount((*Server).ready)},
	{http.MethodGet, "/api/openapi.json", open, "", "", "", mount((*Server).openAPI)},
	{http.MethodGet, "/metrics", measuring, "", "get-metrics", "Every metric, for Prometheus", mountBytes((*Server).metrics, textType)},

	{http.MethodGet, "/api/whoami", reading, "", "get-caller", "Who asks, and for what their token is", mount((*Server).whoami)},
	{http.MethodGet, "/api/box", overview, "", "get-box", "The machine, and what the daemon keeps there", mount((*Server).box)},
	{http.MethodGet, "/api/box/timeline", overview, "", "get-box-timeline", "How the machine did in the last hour", mount((*Server).boxTimeline)},

	{http.MethodGet, "/api/instances", reading, "", "list-instances", "List instances", mount((*Server).listInstances)},
	{http.MethodPost, "/api/instances/spawn", adminOnly, "spawn", "spawn", "Register an instance and start it", mountCreation((*Server).spawn, "It was registered already")},
	{http.MethodGet, instancePath, reading, "", "get-instance", "Show an instance", mount((*Server).getInstance)},
	{http.MethodDelete, instancePath, adminOnly, "delete", "delete-instance", "End an instance and forget it", mount((*Server).deleteInstance)},
	{http.MethodGet, instancePath + "/health", reading, "", "get-instance-health", "Check an instance's health now", mount((*Server).instanceHealth)},
	{http.MethodGet, instancePath + "/storage", reading, "", "get-instance-storage", "Show where an instance keeps its files", mount((*Server).storage)},
	{http.MethodGet, instancePath + "/timeline", reading, "", "get-timeline", "What became of an instance in the last hour", mount((*Server).timeline)},
	{http.MethodGet, instancePath + "/settings", reading, "", "get-settings", "Show what an instance has of its own, over its service's", mount((*Server).settings)},
	{http.MethodPatch, instancePath + "/settings", adminOnly, "set", "change-settings", "Change what an instance has of its own, from its next start on, cron lines at once", mount((*Server).changeSettings)},
	{http.MethodPost, instancePath + "/start", steering, "start", "start", "Start an instance and wait until it is ready", mount(change(Backend.Start))},
	{http.MethodPost, instancePath + "/stop", steering, "stop", "stop", "Put an instance to sleep; the next request wakes it", mount(change(Backend.Stop))},
	{http.MethodPost, instancePath + "/restart", adminOnly, "restart", "restart", "End an instance's process and start the next", mount(change(Backend.Restart))},
	{http.MethodPost, instancePath + "/suspend", adminOnly, "suspend", "suspend", "Switch an instance off until it is resumed", mount(change(Backend.Suspend))},
	{http.MethodPost, instancePath + "/resume", adminOnly, "resume", "resume", "Let a suspended instance wake again", mount(change(Backend.Resume))},
	{http.MethodPost, instancePath + "/exec", adminOnly, actionExec, "exec", "Run a command where an instance's process is", mountUpgrade(exec(Backend.Exec))},
	{http.MethodPost, instancePath + "/run", adminOnly, actionRun, "run", "Run a command with an instance's data and settings, in a place of its own", mountUpgrade(exec(Backend.Run))},
	{http.MethodPut, instancePath + "/weight", adminOnly, "weight", "set-weight", "Set an instance's share of its service's own host", mount((*Server).setWeight)},

	{http.MethodPost, "/api/deploy", adminOnly, "deploy", "deploy", "Start a version, wait until it is healthy, give it its weight", mount((*Server).deploy)},
	{http.MethodPost, "/api/route", adminOnly, "route", "route", "Move all weight from one instance to another", mount((*Server).route)},

	{http.MethodPost, "/api/reload", adminOnly, "reload", "reload", "Read the configuration again", mount((*Server).reload)},
	{http.MethodPost, "/api/upgrade", adminOnly, "upgrade", "upgrade", "Let a new daemon take over", mount((*Server).upgrade)},

	{http.MethodGet, "/api/profile/{kind}", adminOnly, "profile", "get-profile", "Where the daemon itself spends time and memory", mountBytes((*Server).profile, binaryType)},

	{http.MethodGet, "/api/logs", reading, "", "get-logs", "The last lines that instances printed", mount((*Server).logs)},
	{http.MethodGet, "/api/logs/stream", reading, "", "stream-logs", "The lines that instances print, as they come", mountStream((*Server).streamLogs)},

	{http.MethodGet, "/api/events", reading, "", "list-events", "Who changed what, or tried to", mount((*Server).events)},
	{http.MethodGet, "/api/events/stream", reading, "", "stream-events", "The same as it happens", mountStream((*Server).streamEvents)},

	{http.MethodGet, "/api/alerts", overview, "", "list-alerts", "Alerts that their receiver does not have yet", mount((*Server).alerts)},
	{http.MethodPost, "/api/alerts/test", adminOnly, "alerts-test", "test-alert", "Send a test alert, and say what the receiver answered", mount((*Server).testAlert)},

	{http.MethodGet, "/api/wakes", reading, "", "list-wakes", "Who woke what, and what took how long", mount((*Server).wakes)},
	{http.MethodGet, "/api/usage", reading, "", "list-usage", "What instances have used, hour by hour", mount((*Server).usage)},
	{http.MethodGet, "/api/usage/totals", reading, "", "sum-usage", "The same added up, by instance or by hour", mount((*Server).usageTotals)},

	{http.MethodGet, "/api/tokens", overview, "", "list-tokens", "List tokens", mount((*Server).listTokens)},
	{http.MethodPost, "/api/tokens", adminOnly, "token-create", "create-token", "Make a token", mountCreation((*Server).createToken, "")},
	{http.MethodDelete, "/api/tokens/{token}", adminOnly, "token-revoke", "revoke-token", "End a token", mount((*Server).revokeToken)},
}

// handler does one route's work for a caller who was let in.
type handler[I, O any] func(s *Server, ctx context.Context, c *call, in *I) (*O, error)

// mount registers h such that its errors become problem documents and its outcome
// is in the audit log before the caller has the answer.
func mount[I, O any](h handler[I, O]) func(*Server, huma.API, huma.Operation) {
	return func(s *Server, a huma.API, op huma.Operation) {
		huma.Register(a, op, func(ctx context.Context, in *I) (*O, error) {
			c := callOf(ctx)
			out, err := h(s, ctx, c, in)
			s.record(ctx, c, err)
			if err != nil {
				return nil, s.problem(ctx, c, err)
			}
			return out, nil
		})
	}
}

// mountCreation is mount for a route that answers 201 when it has made something new,
// and 200 for what was there already, unless existing is "" because there is no such case.
func mountCreation[I, T any](h handler[I, created[T]], existing string) func(*Server, huma.API, huma.Operation) {
	return func(s *Server, a huma.API, op huma.Operation) {
		op.DefaultStatus = http.StatusCreated
		op.Responses = map[string]*huma.Response{}
		mount(h)(s, a, op)
		if existing != "" {
			again := *op.Responses["201"]
			again.Description = existing
			op.Responses["200"] = &again
		}
	}
}

// mountBytes is mount for a route that answers with what only other programs read, of a
// media type of its own.
func mountBytes[I any](h handler[I, document], mediaType string) func(*Server, huma.API, huma.Operation) {
	return func(s *Server, a huma.API, op huma.Operation) {
		op.Responses = map[string]*huma.Response{"200": {
			Description: "OK",
			Content:     map[string]*huma.MediaType{mediaType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}},
		}}
		mount(h)(s, a, op)
	}
}

// operation describes r to huma.
func (r *route) operation() huma.Operation {
	op := huma.Operation{
		Method: r.method, Path: r.path, OperationID: r.id, Summary: r.summary,
		Hidden: r.id == "",
		// The guard has read the body already, within bounds of its own. -1 lifts the
		// read deadline: left behind, it would cancel a request that takes longer.
		BodyReadTimeout: -1,
		MaxBodyBytes:    maxBody + 1,
	}
	if r.changesInstance() {
		op.Parameters = []*huma.Param{{
			Name: "If-Match", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "the instance's ETag as you saw it: if it has another one by now, nothing is done and the answer is 412",
		}}
	}
	if r.access != open {
		op.Security = []map[string][]string{{"bearer": {}}}
	}
	return op
}

// changesInstance reports whether r is to change the instance in its path. A command may
// take as long as it likes, and others must not wait for it.
func (r *route) changesInstance() bool {
	return r.action != "" && r.action != actionExec && r.action != actionRun && strings.HasPrefix(r.path, instancePath)
}

// admits reports whether scope may use r about id, which is zero where r is not
// about one instance. To a tenant, what it may not see does not exist.
func (r *route) admits(scope tenement.Scope, id tenement.InstanceID) error {
	switch {
	case r.access == open:
		return nil
	case scope.Role == tenement.RoleTenant && !id.IsZero() && !scope.Sees(id):
		return notFound(id)
	case slices.Contains(admitted[r.access], scope.Role):
		return nil
	}
	return &tenement.Error{
		Code: tenement.CodeForbidden, Op: r.summary,
		Err:  fmt.Errorf("a token of the scope %s may not do this", scope),
		Hint: "use an admin token, or run it on the machine itself as the daemon's user",
	}
}
