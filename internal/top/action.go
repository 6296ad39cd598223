package top

import (
	"context"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/legible"
)

// action is something that can be done to an instance.
type action struct {
	key     key.Binding
	doing   string // for the status line, before the instance
	done    string // behind it
	warning string // what to think of first; "" where nothing is lost
	do      func(*api.Client, context.Context, tenement.InstanceID) error
}

var actions = []action{
	{bind("wake", "w"), "waking", "is ready", "", (*api.Client).Start},
	{bind("put to sleep", "z"), "putting to sleep", "sleeps", "Its process ends, when its requests have; the next request wakes it.", (*api.Client).Stop},
	{bind("restart", "r"), "restarting", "is ready again", "Its process ends, and another one starts.", (*api.Client).Restart},
	{bind("suspend", "p"), "suspending", "is switched off", "Its process ends, and requests are refused until it is resumed.", (*api.Client).Suspend},
	{bind("resume", "u"), "resuming", "may wake again", "", (*api.Client).Resume},
	{bind("delete", "D"), "deleting", "is forgotten", "Its process ends, and it is forgotten; its files stay.", func(c *api.Client, ctx context.Context, id tenement.InstanceID) error {
		return c.Delete(ctx, id, false)
	}},
	{bind("check its health", "c"), "checking", "was checked", "", checkHealth},
}

// checkHealth fails if the instance is not well.
func checkHealth(client *api.Client, ctx context.Context, id tenement.InstanceID) error {
	h, err := client.InstanceHealth(ctx, id)
	if err == nil && (h.Health == tenement.HealthDegraded || h.Health == tenement.HealthUnhealthy) {
		err = &tenement.Error{Code: tenement.CodeUnavailable, Op: id.String() + " is " + string(h.Health) + ": " + h.Detail}
	}
	return err
}

// intent is an action on an instance, to be confirmed or under way.
type intent struct {
	*action
	id tenement.InstanceID
}

// did is what has become of one.
type did struct {
	intent
	err error
}

// start does it, however long that takes.
func (in intent) start(ctx context.Context, client *api.Client) tea.Cmd {
	return func() tea.Msg { return did{in, in.do(client, ctx, in.id)} }
}

// say is the status line of what has been done.
func (d did) say() (text string, bad bool) {
	if d.err == nil {
		return d.id.String() + " " + d.done, false
	}
	return problem(d.err), true
}

// problem is err on one line.
func problem(err error) string {
	text := err.Error()
	if hint := tenement.HintOf(err); hint != "" {
		text += " — " + hint
	}
	return legible.Text(text)
}
