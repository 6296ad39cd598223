package daemon

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"tenement"
	"tenement/internal/agenda"
	"tenement/internal/alert"
	"tenement/internal/api"
	"tenement/internal/disk"
	"tenement/internal/logs"
	"tenement/internal/memory"
	"tenement/internal/proxy"
	"tenement/internal/route"
	"tenement/internal/secrets"
	"tenement/internal/store"
	"tenement/internal/supervisor"
	"tenement/internal/telemetry"
)

// tenancy is what one daemon at a time can have of a data directory: the store, the
// logs and the processes. A daemon may give it to another one and serve on for a while.
type tenancy struct {
	daemon     *daemon
	disk       *disk.Root
	store      *store.Store
	logs       *logs.Store
	key        *secrets.Key
	isolation  isolation
	weights    *route.Weights
	supervisor *supervisor.Supervisor
	ledger     *telemetry.Ledger
	wakes      telemetry.Wakes
	counts     stateCounts
	history    *telemetry.History
	boxHistory boxHistory
	agenda     *agenda.Agenda
	alerts     *alert.Outbox
	backend    *backend
	api        http.Handler
	closers    []io.Closer // in the order of opening

	given atomic.Bool // to another daemon
	stop  context.CancelFunc
	tasks sync.WaitGroup // what goes on beside the supervisor, until stop
	ended chan struct{}  // closed when the supervisor's Run has returned
	err   error          // what it returned
}

// openTenancy takes the data directory and all that an earlier daemon left in it; on
// an error nothing stays acquired. A second daemon that has it is CodeConflict. The
// processes are kept until end, whatever becomes of ctx.
func (d *daemon) openTenancy(ctx context.Context) (_ *tenancy, err error) {
	t := &tenancy{daemon: d, weights: route.NewWeights(), ledger: telemetry.NewLedger(), history: telemetry.NewHistory(), ended: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	if t.disk, err = disk.Open(d.Config.DataDir); err != nil {
		return nil, err
	}
	t.closers = append(t.closers, t.disk)
	if t.store, err = store.Open(ctx, StateDir(d.Config.DataDir)); err != nil {
		return nil, err
	}
	t.closers = append(t.closers, t.store)
	t.key = secrets.NewKey(t.stateDir("secrets.key"))
	t.store.OnWritable(t.reportDisk)
	if err := t.openLogs(ctx); err != nil {
		return nil, err
	}
	if err := t.loadWeights(ctx); err != nil {
		return nil, err
	}
	if err := t.openIsolation(); err != nil {
		return nil, err
	}
	t.agenda = t.newAgenda()
	t.alerts = t.newAlerts()
	t.supervisor = t.newSupervisor()
	ctx = context.WithoutCancel(ctx)
	t.backend = &backend{tenancy: t, ctx: ctx, since: time.Now()}
	//nolint:contextcheck // each request brings its own
	t.api = api.NewServer(api.Options{Backend: t.backend, Log: d.Log, Version: d.Version, URL: t.backend.URL})
	return t, t.start(ctx)
}

// start returns once everything that an earlier daemon left is taken over.
func (t *tenancy) start(ctx context.Context) error {
	ctx, t.stop = context.WithCancel(ctx)
	t.backend.serving = ctx
	ready := make(chan struct{})
	go func() {
		defer close(t.ended)
		t.err = t.supervisor.Run(ctx, ready)
	}()
	select {
	case <-ready:
		t.tasks.Go(func() { t.agenda.Run(ctx) })
		t.tasks.Go(func() { t.alerts.Run(ctx) })
		t.tasks.Go(func() { t.keepCopies(ctx) })
		t.tasks.Go(func() { t.awaitDisk(ctx) })
		t.tasks.Go(func() { t.keepNetworks(ctx) })
		t.tasks.Go(func() { t.keepListening(ctx) })
		t.tasks.Go(func() { t.keepRecords(ctx) })
		t.tasks.Go(func() { t.measureStorage(ctx) })
		t.tasks.Go(func() { t.keepHistory(ctx) })
		return nil
	case <-t.ended:
		t.stop()
		return t.err
	}
}

// end puts every instance to sleep, or leaves it running for another daemon, and gives
// up the data directory. To end it again does nothing.
func (t *tenancy) end(leave bool) error {
	t.look(0)
	if leave {
		t.given.Store(true)
		t.supervisor.Leave()
	}
	t.stop()
	<-t.ended
	t.tasks.Wait()
	if !leave {
		t.agenda.Wait() // no process is left that could answer
	}
	err := errors.Join(t.err, t.agenda.Close(t.backend.ctx))
	if len(t.closers) > 0 { // the store is open
		t.alerts.Flush(t.backend.ctx)
		t.keepWakes(t.backend.ctx, true)
		t.book(t.backend.ctx)
	}
	if within := t.isolation.within; within != nil && !leave {
		err = errors.Join(err, within.End())
	}
	return errors.Join(err, t.close())
}

func (t *tenancy) close() error {
	var err error
	for i := len(t.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, t.closers[i].Close())
	}
	t.closers = nil
	return err
}

// reportDisk says once that the disk refuses the registry, and once that it takes it
// again. What is awake is served meanwhile; what needs a write is refused.
func (t *tenancy) reportDisk(failed error) {
	if failed != nil {
		t.daemon.Log.Error("the registry cannot be written: nothing can be started or changed, what is awake is served", "error", failed, "hint", tenement.HintOf(failed))
		return
	}
	t.daemon.Log.Info("the registry can be written again")
}

// diskPace is how soon it is noticed that the disk takes something again.
const diskPace = 2 * time.Second

// awaitDisk finds out by itself, while nothing else is written, when a disk that refuses
// the registry takes it again.
func (t *tenancy) awaitDisk(ctx context.Context) {
	tick := time.NewTicker(diskPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if t.store.Refused() != nil {
			_ = t.store.CheckWritable(ctx) // reportDisk is told
		}
	}
}

func (t *tenancy) loadWeights(ctx context.Context) error {
	list, err := t.store.Weights(ctx)
	if err != nil {
		return err
	}
	weights := make(map[tenement.InstanceID]int, len(list))
	for _, w := range list {
		weights[w.ID] = w.Weight
	}
	t.weights.Replace(weights)
	return nil
}

func (t *tenancy) newSupervisor() *supervisor.Supervisor {
	c := t.daemon.Config
	return supervisor.New(supervisor.Config{
		Store:       t.store,
		Disk:        t.disk,
		Logs:        t.logs,
		Runtimes:    t.isolation.runtimes,
		Plan:        t.plan(t.daemon.setup.Load().config),
		Transport:   proxy.NewTransport,
		Heed:        t.agenda.Heed,
		Recipe:      t.recipe,
		Deleted:     func(id tenement.InstanceID) { t.weights.Set(id, 0); t.history.Forget(id) },
		Sweep:       t.sweep,
		Observer:    t.observer(),
		MaxStarting: c.MaxStarting,
		MaxWaiting:  c.MaxWaiting,
		Memory:      supervisor.Memory{Available: t.isolation.availableMemory, Stalls: memory.Stalls},
		Log:         t.daemon.Log,
	})
}

// newAgenda makes what calls the supervisor, which is made after it.
func (t *tenancy) newAgenda() *agenda.Agenda {
	return agenda.New(agenda.Config{
		Store: t.store,
		SetBusy: func(ctx context.Context, id tenement.InstanceID, until time.Time) error {
			return t.supervisor.SetBusy(ctx, id, until)
		},
		BusyUntil: func(id tenement.InstanceID) time.Time {
			st, _ := t.supervisor.Observe(id)
			return st.BusyUntil
		},
		Services: t.daemon.config().Services,
		Host: func(id tenement.InstanceID) string {
			return id.Name + "." + id.Service + "." + t.daemon.config().Domain
		},
		Lines: t.cronLines,
		Note: func(id tenement.InstanceID, text string) {
			t.daemon.Log.Info("instance", "instance", id, "event", text)
			if !t.given.Load() { // else its log is the other daemon's
				t.logs.Append(id, logs.Stderr, "tenement: "+text)
			}
		},
		Acquire: func(ctx context.Context, id tenement.InstanceID) (tenement.Lease, error) {
			ctx = tenement.WithAsker(ctx, &tenement.Asker{Cause: tenement.CauseSchedule})
			lease, err := t.supervisor.AcquireLater(ctx, id)
			if errors.Is(err, supervisor.ErrMoved) {
				return t.daemon.acquire(ctx, id)
			}
			return lease, err
		},
		Log: t.daemon.Log,
	})
}

// serveAPI answers the management API, unless another daemon does by now.
func (t *tenancy) serveAPI(w http.ResponseWriter, r *http.Request) {
	if t.given.Load() {
		w.Header().Set("Connection", "close") // the next one reaches the other daemon
		api.Refuse(w, &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "ask the daemon", Err: supervisor.ErrMoved,
			Hint: "ask again", RetryAfter: time.Second,
		})
		return
	}
	t.api.ServeHTTP(w, r)
}

// Acquire implements acquirer.
func (t *tenancy) Acquire(ctx context.Context, id tenement.InstanceID) (tenement.Lease, error) {
	return t.supervisor.Acquire(ctx, id)
}

// Hold implements acquirer.
func (t *tenancy) Hold(_ context.Context, id tenement.InstanceID, pid int) (tenement.Lease, error) {
	return t.supervisor.Hold(id, pid)
}

var _ acquirer = (*tenancy)(nil)

// acquirer gives leases: the tenancy, or a daemon that has it.
type acquirer interface {
	Acquire(ctx context.Context, id tenement.InstanceID) (tenement.Lease, error)
	// Hold is a lease on one process, which is not waited for.
	Hold(ctx context.Context, id tenement.InstanceID, pid int) (tenement.Lease, error)
}

// holder is who can give leases now. Replaced is closed once another one can.
type holder struct {
	acquirer
	replaced chan struct{}
}

func (d *daemon) setHolder(a acquirer) {
	if before := d.holder.Swap(&holder{a, make(chan struct{})}); before != nil {
		close(before.replaced)
	}
}

func (d *daemon) acquire(ctx context.Context, id tenement.InstanceID) (tenement.Lease, error) {
	return d.lease(ctx, func(from acquirer) (tenement.Lease, error) { return from.Acquire(ctx, id) })
}

func (d *daemon) hold(ctx context.Context, id tenement.InstanceID, pid int) (tenement.Lease, error) {
	return d.lease(ctx, func(from acquirer) (tenement.Lease, error) { return from.Hold(ctx, id, pid) })
}

// lease asks whoever has the instances now. While they change hands it waits: that
// ends, one way or the other, unless the daemon does.
func (d *daemon) lease(ctx context.Context, ask func(acquirer) (tenement.Lease, error)) (tenement.Lease, error) {
	for {
		h := d.holder.Load()
		lease, err := ask(h)
		if !errors.Is(err, supervisor.ErrMoved) {
			return lease, err
		}
		select {
		case <-h.replaced:
		case <-d.told.Done():
			return nil, err
		case <-ctx.Done():
			return nil, err
		}
	}
}
