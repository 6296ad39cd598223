package api

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tenement"
)

// ListOptions selects instances. Empty fields select all.
type ListOptions struct {
	Service   string
	Name      string
	Text      string // anywhere in "service:name"
	States    []tenement.State
	AwakeOnly bool                // all states but asleep and suspended
	After     tenement.InstanceID // [InstancePage].Next of the page before
	Limit     int                 // at most so many, up to [MaxInstances]; 0 is the daemon's default
}

func pathOf(id tenement.InstanceID) string {
	return "/api/instances/" + url.PathEscape(id.String())
}

// setText sets what is not empty.
func setText(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

func setID(q url.Values, name string, id tenement.InstanceID) {
	if !id.IsZero() {
		q.Set(name, id.String())
	}
}

func setTime(q url.Values, name string, t time.Time) {
	if !t.IsZero() {
		q.Set(name, t.Format(time.RFC3339Nano))
	}
}

func setLimit(q url.Values, limit int) {
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
}

// DaemonHealth asks whether the daemon works; CodeUnavailable or the like when not.
func (c *Client) DaemonHealth(ctx context.Context) (Health, error) {
	var h Health
	err := c.do(ctx, http.MethodGet, "/health", nil, nil, &h)
	return h, err
}

// Instances is one page of the instances that o selects, in order of their ids.
func (c *Client) Instances(ctx context.Context, o ListOptions) (InstancePage, error) {
	q := url.Values{}
	setText(q, "service", o.Service)
	setText(q, "name", o.Name)
	setText(q, "text", o.Text)
	states := make([]string, len(o.States))
	for i, state := range o.States {
		states[i] = state.String()
	}
	setText(q, "state", strings.Join(states, ","))
	setID(q, "after", o.After)
	setLimit(q, o.Limit)
	if o.AwakeOnly {
		q.Set("awake", "true")
	}
	var page InstancePage
	err := c.do(ctx, http.MethodGet, "/api/instances", q, nil, &page)
	return page, err
}

// Instance is one registered instance.
func (c *Client) Instance(ctx context.Context, id tenement.InstanceID) (Instance, error) {
	var in Instance
	err := c.do(ctx, http.MethodGet, pathOf(id), nil, nil, &in)
	return in, err
}

// Spawn registers an instance and, with Wake, waits until it is ready. weight nil
// leaves the weight as it is.
func (c *Client) Spawn(ctx context.Context, id tenement.InstanceID, o SpawnOptions) (Instance, error) {
	var in Instance
	req := SpawnRequest{Process: id.Service, ID: id.Name, Weight: o.Weight, Wake: &o.Wake}
	err := c.do(ctx, http.MethodPost, "/api/instances/spawn", nil, req, &in)
	return in, err
}

// Delete ends an instance and forgets it; purge removes its files as well.
func (c *Client) Delete(ctx context.Context, id tenement.InstanceID, purge bool) error {
	q := url.Values{}
	if purge {
		q.Set("purge", "true")
	}
	return c.do(ctx, http.MethodDelete, pathOf(id), q, nil, nil)
}

// Start wakes an instance and waits until it is ready.
func (c *Client) Start(ctx context.Context, id tenement.InstanceID) error {
	return c.do(ctx, http.MethodPost, pathOf(id)+"/start", nil, nil, nil)
}

// Stop puts an instance to sleep and waits until its process is gone.
func (c *Client) Stop(ctx context.Context, id tenement.InstanceID) error {
	return c.do(ctx, http.MethodPost, pathOf(id)+"/stop", nil, nil, nil)
}

// Restart ends an instance's process and waits until the next one is ready.
func (c *Client) Restart(ctx context.Context, id tenement.InstanceID) error {
	return c.do(ctx, http.MethodPost, pathOf(id)+"/restart", nil, nil, nil)
}

// Suspend switches an instance off until [Client.Resume].
func (c *Client) Suspend(ctx context.Context, id tenement.InstanceID) error {
	return c.do(ctx, http.MethodPost, pathOf(id)+"/suspend", nil, nil, nil)
}

// Resume lets a suspended instance wake again.
func (c *Client) Resume(ctx context.Context, id tenement.InstanceID) error {
	return c.do(ctx, http.MethodPost, pathOf(id)+"/resume", nil, nil, nil)
}

// SetWeight sets an instance's share of its service's own host.
func (c *Client) SetWeight(ctx context.Context, id tenement.InstanceID, weight int) error {
	return c.do(ctx, http.MethodPut, pathOf(id)+"/weight", nil, WeightRequest{Weight: weight}, nil)
}

// InstanceHealth checks an instance now.
func (c *Client) InstanceHealth(ctx context.Context, id tenement.InstanceID) (InstanceHealth, error) {
	var h InstanceHealth
	err := c.do(ctx, http.MethodGet, pathOf(id)+"/health", nil, nil, &h)
	return h, err
}

// Storage is an instance's data directory, the room that is taken there and its quota.
func (c *Client) Storage(ctx context.Context, id tenement.InstanceID) (Storage, error) {
	var s Storage
	err := c.do(ctx, http.MethodGet, pathOf(id)+"/storage", nil, nil, &s)
	return s, err
}

// Deploy starts a version, waits at most timeout until it is healthy and gives it
// its weight. timeout 0 is the daemon's default of a minute.
func (c *Client) Deploy(ctx context.Context, id tenement.InstanceID, weight int, timeout time.Duration) error {
	req := DeployRequest{Process: id.Service, Version: id.Name, Weight: &weight, Timeout: timeout.Seconds()}
	return c.do(ctx, http.MethodPost, "/api/deploy", nil, req, nil)
}

// Route moves the whole weight of one instance of service to another.
func (c *Client) Route(ctx context.Context, service, from, to string) error {
	return c.do(ctx, http.MethodPost, "/api/route", nil, RouteRequest{Process: service, From: from, To: to}, nil)
}

// Reload has the configuration read again; see [Backend].
func (c *Client) Reload(ctx context.Context, restart bool) (Reloaded, error) {
	var r Reloaded
	err := c.do(ctx, http.MethodPost, "/api/reload", nil, ReloadRequest{Restart: restart}, &r)
	return r, err
}

// Profile is a profile of the daemon itself; see [Backend]. Those of time last for
// duration, from a second to [MaxProfile].
func (c *Client) Profile(ctx context.Context, kind ProfileKind, duration time.Duration) ([]byte, error) {
	q := url.Values{"seconds": {strconv.Itoa(int(duration.Seconds()))}}
	var profile []byte
	err := c.do(ctx, http.MethodGet, "/api/profile/"+url.PathEscape(string(kind)), q, nil, &profile)
	return profile, err
}

// Upgrade has a new daemon take over; see [Backend].
func (c *Client) Upgrade(ctx context.Context) (Upgraded, error) {
	var u Upgraded
	err := c.do(ctx, http.MethodPost, "/api/upgrade", nil, nil, &u)
	return u, err
}

// TokenOptions says what a token is to be.
type TokenOptions struct {
	Name     string         // "": none
	Scope    tenement.Scope // zero: an admin's; with only a Tenant, that tenant's
	Lifetime time.Duration  // 0: for ever; rounded up to whole seconds
}

// CreateToken makes a token.
func (c *Client) CreateToken(ctx context.Context, o TokenOptions) (NewSecret, error) {
	var t NewSecret
	req := TokenRequest{
		Name: o.Name, Scope: o.Scope.Role, Tenant: o.Scope.Tenant,
		ExpiresInSeconds: int64(math.Ceil(o.Lifetime.Seconds())),
	}
	err := c.do(ctx, http.MethodPost, "/api/tokens", nil, req, &t)
	return t, err
}

// Tokens lists every token.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	var t Tokens
	err := c.do(ctx, http.MethodGet, "/api/tokens", nil, nil, &t)
	return t.Tokens, err
}

// RevokeToken ends a token at once.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/api/tokens/"+url.PathEscape(id), nil, nil, nil)
}
