package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"tenement"
	"tenement/internal/alert"
	"tenement/internal/api"
	"tenement/internal/config"
	"tenement/internal/route"
	"tenement/internal/supervisor"
)

// setup is the configuration in force and what follows from it.
type setup struct {
	config   *config.Config
	table    *route.Table
	receiver *alert.Receiver // nil: no alerts
}

func newSetup(c *config.Config) (*setup, error) {
	receiver, err := alert.NewReceiver(c.Alerts)
	return &setup{c, route.New(route.Config{
		Domain: c.Domain, AdminHost: c.AdminHost,
		Services: slices.Collect(maps.Keys(c.Services)),
		Default:  c.Routing.Default, Subdomain: c.Routing.Subdomain, Path: c.Routing.Path,
	}), receiver}, err
}

func (t *tenancy) plan(c *config.Config) supervisor.Plan {
	p := supervisor.Plan{
		Services: c.Services, Pinned: c.Instances, FirstUID: c.FirstUID,
		MaxAwake: c.MaxAwake, MemoryReserve: c.MemoryReserve,
	}
	if within := t.isolation.within; within != nil && c.FirstUID == 0 {
		p.FirstUID, p.UIDs = within.UIDs.First, within.UIDs.Count
	}
	return p
}

func (d *daemon) config() *config.Config { return d.setup.Load().config }

func (d *daemon) lookup(host, path string) route.Target {
	return d.setup.Load().table.Lookup(host, path)
}

func (d *daemon) maxBody(service string) tenement.Bytes {
	if s := d.config().Services[service]; s != nil {
		return s.MaxBody
	}
	return 0
}

// resting is the recipe of id unless that has a process that serves.
func (d *daemon) resting(id tenement.InstanceID) *tenement.Service {
	if d.tenancy.Load().supervisor.Serves(id) {
		return nil
	}
	return d.config().Services[id.Service]
}

func (d *daemon) trustedProxies() []netip.Prefix { return d.config().TrustedProxies }

// Reload implements [api.Backend]: the file is read again and put in force wholly, or
// not at all.
func (b *backend) Reload(ctx context.Context, restart bool) (api.Reloaded, error) {
	t, result, err := b.daemon.reload(ctx)
	if err != nil {
		return result, err
	}
	if restart { // nobody is kept from ending or upgrading the daemon meanwhile
		result.Restarted, err = t.supervisor.RestartOutdated(ctx)
	}
	result.Outdated = t.supervisor.Outdated()
	return result, err
}

// reload gives the tenancy for which the configuration holds now.
func (d *daemon) reload(ctx context.Context) (*tenancy, api.Reloaded, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if err := d.canChange("reload"); err != nil {
		return nil, api.Reloaded{}, err
	}
	t := d.tenancy.Load()
	before := d.config()
	after, err := d.load()
	if err != nil {
		return nil, api.Reloaded{}, err
	}
	if fixed := fixedChanges(before, after); len(fixed) > 0 {
		return nil, api.Reloaded{}, &tenement.Error{
			Code: tenement.CodeConflict, Op: "reload " + after.Path,
			Err:  fmt.Errorf("%s cannot change while the daemon runs", strings.Join(fixed, ", ")),
			Hint: "nothing was changed. `ten upgrade` starts the daemon anew without losing a request; another data_dir needs a stop",
		}
	}
	next, err := newSetup(after)
	if err == nil {
		err = t.supervisor.Reconfigure(ctx, t.plan(after))
	}
	if err != nil {
		return nil, api.Reloaded{}, err
	}
	d.setup.Store(next)
	t.alerts.Reconfigure(next.receiver)
	t.agenda.Reconfigure(after.Services)
	result := changes(before, after)
	d.metrics.Forget(result.Removed)
	d.Log.Info("configuration reloaded", "file", after.Path, "added", result.Added, "removed", result.Removed, "changed", result.Changed)
	return t, result, nil
}

// canChange is asked by whoever holds changing.
func (d *daemon) canChange(op string) error {
	switch {
	case d.isUpgraded():
		return &tenement.Error{Code: tenement.CodeConflict, Op: op, Err: errors.New("another daemon has taken over")}
	case d.told.Err() != nil:
		return &tenement.Error{Code: tenement.CodeUnavailable, Op: op, Err: errToldToEnd}
	}
	return nil
}

var errToldToEnd = errors.New("the daemon was told to end")

// fixedChanges lists the settings that differ and can only change with the daemon.
func fixedChanges(before, after *config.Config) []string {
	var list []string
	for _, s := range []struct {
		name          string
		before, after any
	}{
		{"data_dir", before.DataDir, after.DataDir},
		{"listen", before.Listen, after.Listen},
		{"admin_listen", before.AdminListen, after.AdminListen},
		{"max_starting", before.MaxStarting, after.MaxStarting},
		{"max_waiting", before.MaxWaiting, after.MaxWaiting},
		{"log_instance_mb", before.LogInstance, after.LogInstance},
		{"log_total_mb", before.LogTotal, after.LogTotal},
		{"log_retention", before.LogRetention, after.LogRetention},
		{"access_log", before.AccessLog, after.AccessLog},
		{"tracing", before.Tracing, after.Tracing},
	} {
		if s.before != s.after {
			list = append(list, s.name)
		}
	}
	return list
}

// changes compares the services of two configurations, in order of their names.
func changes(before, after *config.Config) api.Reloaded {
	var r api.Reloaded
	for _, name := range slices.Sorted(maps.Keys(after.Services)) {
		switch old := before.Services[name]; {
		case old == nil:
			r.Added = append(r.Added, name)
		case !reflect.DeepEqual(old, after.Services[name]):
			r.Changed = append(r.Changed, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before.Services)) {
		if after.Services[name] == nil {
			r.Removed = append(r.Removed, name)
		}
	}
	return r
}

// load reads the configuration as it was read when the daemon began.
func (d *daemon) load() (*config.Config, error) {
	if d.Load == nil {
		return nil, &tenement.Error{Code: tenement.CodeUnavailable, Op: "reload", Err: errors.New("this daemon was not started from a file")}
	}
	return d.Load()
}
