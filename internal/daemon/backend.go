package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tenement"
	"tenement/internal/agenda"
	"tenement/internal/api"
	"tenement/internal/route"
	"tenement/internal/store"
	"tenement/internal/supervisor"
)

// backend does for the management API what it asks. It is safe for concurrent use.
type backend struct {
	*tenancy
	ctx      context.Context // of the daemon: shared hosts are looked up without a request's
	serving  context.Context // ends when the daemon begins to stop
	since    time.Time       // when this daemon took the instances over
	weighing sync.Mutex      // held while weights change: store first, then memory
	settling sync.Mutex      // held while settings change: what they come to is checked first
}

var _ api.Backend = (*backend)(nil)

// row is what is registered of id, or an error that says how to register it.
func (b *backend) row(ctx context.Context, id tenement.InstanceID) (tenement.Instance, error) {
	row, err := b.store.Instance(ctx, id)
	if tenement.CodeOf(err) == tenement.CodeNotFound {
		err = supervisor.Unknown(id)
	}
	return row, err
}

// Instance implements [api.Backend].
func (b *backend) Instance(ctx context.Context, id tenement.InstanceID) (tenement.Status, error) {
	// In this order: an owner that ends in between has written the row before.
	st, awake := b.supervisor.Observe(id)
	row, err := b.row(ctx, id)
	if err != nil {
		return tenement.Status{}, err
	}
	if !awake {
		st = b.status(row)
	}
	st = registered(st, row)
	lines, err := b.cronLines(ctx, id)
	if err != nil {
		return st, err
	}
	st.NextCron = agenda.NextCron(lines, time.Now())
	alarms, err := b.store.Alarms(ctx, id)
	if len(alarms) > 0 {
		st.NextAlarm = alarms[0].At
	}
	return st, err
}

// URL is where people reach id.
func (b *backend) URL(id tenement.InstanceID) string {
	host := id.Name + "." + id.Service + "." + b.daemon.config().Domain
	_, port, err := net.SplitHostPort(b.daemon.front.Addr().String())
	if err == nil && port != "80" {
		host = net.JoinHostPort(host, port)
	}
	return "http://" + host
}

// Spawn implements [api.Backend].
func (b *backend) Spawn(ctx context.Context, id tenement.InstanceID, o api.SpawnOptions) (st tenement.Status, created bool, err error) {
	if err := b.serviceExists(id.Service); err != nil {
		return st, false, err
	}
	if o.Weight != nil {
		if err := tenement.CheckWeight(*o.Weight); err != nil {
			return st, false, err
		}
	}
	created, err = b.supervisor.Register(ctx, id)
	if err == nil && o.Weight != nil {
		err = b.setWeights(ctx, store.Weight{ID: id, Weight: *o.Weight})
	}
	if err == nil && o.Wake {
		err = b.supervisor.Start(ctx, id)
	}
	if err != nil {
		return st, created, err
	}
	st, err = b.Instance(ctx, id)
	return st, created, err
}

func (b *backend) serviceExists(name string) error {
	if b.daemon.config().Services[name] != nil {
		return nil
	}
	return &tenement.Error{
		Code: tenement.CodeNotFound, Op: "find service " + name,
		Err:  errors.New("the configuration has no such service"),
		Hint: fmt.Sprintf("add [service.%s] to %s", name, b.daemon.config().Path),
	}
}

// Start implements [api.Backend].
func (b *backend) Start(ctx context.Context, id tenement.InstanceID) error {
	return b.supervisor.Start(ctx, id)
}

// Stop implements [api.Backend].
func (b *backend) Stop(ctx context.Context, id tenement.InstanceID) error {
	return b.supervisor.Stop(ctx, id)
}

// Restart implements [api.Backend].
func (b *backend) Restart(ctx context.Context, id tenement.InstanceID) error {
	return b.supervisor.Restart(ctx, id)
}

// Suspend implements [api.Backend].
func (b *backend) Suspend(ctx context.Context, id tenement.InstanceID) error {
	return b.supervisor.Suspend(ctx, id)
}

// Resume implements [api.Backend].
func (b *backend) Resume(ctx context.Context, id tenement.InstanceID) error {
	return b.supervisor.Resume(ctx, id)
}

// Delete implements [api.Backend].
func (b *backend) Delete(ctx context.Context, id tenement.InstanceID, purge bool) error {
	if b.daemon.config().Services[id.Service] == nil {
		return b.deleteOrphan(ctx, id, purge)
	}
	return b.supervisor.Delete(ctx, id, purge)
}

// deleteOrphan removes an instance whose service the configuration no longer has: it
// can have no process and no owner. The row is the last to go, as in the supervisor.
func (b *backend) deleteOrphan(ctx context.Context, id tenement.InstanceID, purge bool) error {
	row, err := b.row(ctx, id)
	if err != nil {
		return err
	}
	if purge {
		err = b.disk.Remove(id, row.UID)
	} else {
		_, err = b.disk.Limit(ctx, id, row.UID, 0)
	}
	if err != nil {
		return err
	}
	b.logs.Drop(id)
	if err := b.store.Delete(ctx, id); err != nil {
		return err
	}
	b.weights.Set(id, 0)
	return nil
}

// Health implements [api.Backend].
func (b *backend) Health(ctx context.Context, id tenement.InstanceID) (tenement.Health, string, error) {
	if _, err := b.row(ctx, id); err != nil {
		return tenement.HealthUnknown, "", err
	}
	health, err := b.supervisor.Check(ctx, id)
	switch {
	case err != nil:
		return health, err.Error(), nil
	case health == tenement.HealthUnknown:
		return health, "it is not running", nil
	}
	return health, "", nil
}

// Storage implements [api.Backend].
func (b *backend) Storage(ctx context.Context, id tenement.InstanceID) (api.Storage, error) {
	row, err := b.row(ctx, id)
	if err != nil {
		return api.Storage{}, err
	}
	own, quota := false, tenement.Bytes(0)
	if service := b.daemon.config().Services[id.Service]; service != nil {
		if settled, _, err := b.recipe(ctx, id, service); err == nil { // else its next start says what is wrong
			service = settled
		}
		own, quota = service.Isolation != tenement.IsolationProcess, service.Limits.Storage
	}
	s, err := b.disk.Storage(ctx, id, row.UID, own, quota)
	return api.Storage{
		ID: id, Path: s.Path, UsedBytes: s.Use.Bytes, UsedFiles: s.Use.Files,
		LimitBytes: s.Limit.Bytes, LimitFiles: s.Limit.Files, Enforcement: string(s.Enforcement),
	}, err
}

// Ready implements [api.Backend].
func (b *backend) Ready(ctx context.Context) error {
	_, err := b.store.Events(ctx, tenement.EventQuery{Limit: 1})
	return err
}

// rank says whether id can take traffic meant for its service.
func (b *backend) rank(id tenement.InstanceID) route.Availability {
	if st, ok := b.supervisor.Observe(id); ok {
		switch st.State {
		case tenement.Ready, tenement.Starting, tenement.Frozen:
			return route.Awake
		case tenement.Asleep, tenement.Draining, tenement.Stopping:
			return route.CanWake
		}
		return route.Unavailable
	}
	if b.given.Load() {
		return route.CanWake // that the other daemon knows
	}
	row, err := b.store.Instance(b.ctx, id)
	if err != nil || row.Suspended || time.Until(row.Failure.RetryAt) > 0 {
		return route.Unavailable
	}
	return route.CanWake
}

// asleep reports whether id is registered and sleeps, so that a request would wake it, and
// when it was known to be well last.
func (b *backend) asleep(ctx context.Context, id tenement.InstanceID) (healthyAt time.Time, ok bool) {
	if b.given.Load() {
		return healthyAt, false // that the other daemon knows
	}
	row, err := b.store.Instance(ctx, id)
	if err != nil || supervisor.RestingState(row) != tenement.Asleep {
		return healthyAt, false
	}
	if st, ok := b.supervisor.Observe(id); ok && st.State != tenement.Asleep {
		return healthyAt, false
	}
	return row.HealthyAt, true
}

// pick chooses the instance that answers for a service's own host.
func (b *backend) pick(service string) (tenement.InstanceID, error) {
	id, ok := b.weights.Pick(service, b.rank, nil)
	if !ok {
		return id, &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "choose an instance of " + service,
			Err:  errors.New("no instance has a weight"),
			Hint: "give one a share of this host: ten weight " + service + ":ID 100",
		}
	}
	return id, nil
}

// writeAdminToken leaves secret where the operator's scripts find it.
func (b *backend) writeAdminToken(secret string) error {
	path := filepath.Join(StateDir(b.daemon.Config.DataDir), adminTokenFile)
	temporary := path + ".new"
	if err := os.WriteFile(temporary, []byte(secret+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
