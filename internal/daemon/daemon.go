// Package daemon wires the parts and owns their order of start and stop.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"tenement"
	"tenement/internal/config"
	"tenement/internal/dashboard"
	"tenement/internal/fault"
	"tenement/internal/proxy"
	"tenement/internal/telemetry"
	"tenement/internal/tracing"
)

// Options is what a daemon runs with. Config is required.
type Options struct {
	Config  *config.Config
	Version string
	Log     *slog.Logger
	Stdout  io.Writer // gets the lines that say where it listens

	// Load reads the configuration again; nil when it cannot be.
	Load func() (*config.Config, error)
	// Keep leaves the tenants running when the daemon ends, for the next one.
	Keep bool
	// NoNamespaces is why an ordinary user's daemon is in none that would let it isolate
	// by them (see package rootless); nil if it did not ask for any.
	NoNamespaces error
}

// StateDir is where, below the data directory, the daemon keeps its own state; no
// service can have that name.
func StateDir(dataDir string) string { return filepath.Join(dataDir, ".tenement") }

// SocketPath is where the daemon of dataDir answers the management API locally.
func SocketPath(dataDir string) string { return filepath.Join(StateDir(dataDir), "ten.sock") }

// adminTokenFile holds the newest admin token, for the operator's scripts.
const adminTokenFile = "api_token"

// Run serves until ctx ends, then lets requests under way finish, puts every
// instance to sleep and returns nil; or until another daemon has taken over on its
// request. An error means that it could not start, or that a part broke. A second
// daemon on the same data directory is CodeConflict.
func Run(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Stdout == nil {
		o.Stdout = io.Discard
	}
	d := &daemon{Options: o, upgraded: make(chan struct{}), broken: make(chan error, 1)}
	now, err := newSetup(o.Config)
	if err != nil {
		return Declined(err)
	}
	d.setup.Store(now)
	d.metrics = d.newMetrics()
	signals := make(chan os.Signal, 1) // from here on: what nobody expects ends a program
	signal.Notify(signals, changeSignals...)
	defer signal.Stop(signals)
	before, err := findPredecessor()
	if err == nil {
		d.access, err = openAccessLog(o.Config.AccessLog, o.Log)
	}
	defer d.access.close()
	if err == nil {
		d.tracer, err = newTracer(ctx, o)
	}
	defer func() { d.tracer.Close(ctx) }()
	if err == nil {
		err = d.open(ctx, before)
	}
	if err != nil {
		return Declined(errors.Join(err, d.close()))
	}
	return d.run(ctx, before, signals)
}

// daemon is one running daemon: what it is configured to do, what it listens on, and
// who has the instances.
type daemon struct {
	Options
	setup   atomic.Pointer[setup]
	tenancy atomic.Pointer[tenancy] // the last one it had
	holder  atomic.Pointer[holder]
	metrics *telemetry.Metrics
	access  *accessLog      // nil without one
	tracer  *tracing.Tracer // nil without one

	front, local net.Listener
	admin        net.Listener   // nil without one of its own
	relay        net.Listener   // for the daemon that this one has replaced; nil without one
	relayed      sync.WaitGroup // those who serve that one
	servers      errgroup.Group
	localServer  *http.Server

	told     context.Context // ends when the daemon is told to end
	changing sync.Mutex      // held during a reload or an upgrade
	next     *successor      // the daemon that serves once upgraded is closed
	upgraded chan struct{}
	broken   chan error // receives when nothing can be served any more
}

// open acquires everything, from the daemon before if there is one.
func (d *daemon) open(ctx context.Context, before *predecessor) error {
	if before != nil {
		if err := before.accept(d.Config.DataDir); err != nil {
			return err
		}
		if err := before.awaitGo(ctx); err != nil {
			return err
		}
		fault.Point(fault.GoHeard)
	}
	t, err := d.openTenancy(ctx)
	if err != nil {
		return err
	}
	d.tenancy.Store(t)
	d.setHolder(t)
	fault.Point(fault.TookOver)
	if before != nil && before.Listen == d.Config.Listen {
		d.front, err = net.FileListener(before.front)
	} else {
		d.front, err = d.openFront(ctx)
	}
	if err != nil {
		return err
	}
	if d.admin, err = d.openAdmin(ctx, before); err != nil {
		return err
	}
	if before != nil {
		if d.relay, err = d.listenUnix(ctx, relayPath(d.Config.DataDir)); err != nil {
			return err
		}
	}
	d.local, err = d.listenLocal(ctx)
	return err
}

// close gives up what open has acquired so far. Tenants are not to suffer from a daemon
// that could not start: they are left to the next one.
func (d *daemon) close() error {
	var err error
	for _, l := range []net.Listener{d.front, d.admin, d.relay, d.local} {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
	}
	if t := d.tenancy.Load(); t != nil {
		err = errors.Join(err, t.end(true))
	}
	return err
}

func (d *daemon) listenLocal(ctx context.Context) (net.Listener, error) {
	return d.listenUnix(ctx, SocketPath(d.Config.DataDir))
}

// listenUnix takes the place of an earlier daemon's socket, without an instant in which
// there is none. Its file stays when the listener is closed: by then it may be a later
// daemon's.
func (d *daemon) listenUnix(ctx context.Context, path string) (net.Listener, error) {
	fresh := path + "~"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of an earlier daemon: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", fresh)
	if err != nil {
		return nil, &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "listen on " + path, Err: err,
			Hint: "the path of a socket has at most 106 bytes: choose a shorter data_dir",
		}
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	err = os.Chmod(fresh, 0o600)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(fresh))
	}
	return l, nil
}

// run serves until ctx ends, another daemon has taken over, or a part breaks.
func (d *daemon) run(ctx context.Context, before *predecessor, signals <-chan os.Signal) error {
	api := http.HandlerFunc(d.serveAPI)
	pages := dashboard.New(api)
	front := proxy.NewServer(proxy.New(proxy.Config{
		Lookup:  d.lookup,
		Pick:    func(service string) (tenement.InstanceID, error) { return d.tenancy.Load().backend.pick(service) },
		Acquire: d.acquire,
		Ready: func(ctx context.Context, id tenement.InstanceID) (tenement.Lease, bool) {
			return d.tenancy.Load().supervisor.Ready(ctx, id)
		},
		Leaving: d.isUpgraded,
		MaxBody: d.maxBody,
		Resting: d.resting,
		Asleep: func(ctx context.Context, id tenement.InstanceID) (time.Time, bool) {
			return d.tenancy.Load().backend.asleep(ctx, id)
		},
		Served:         d.served,
		FirstByte:      d.firstByte,
		Tracer:         d.tracer,
		Admin:          pages,
		TrustedProxies: d.trustedProxies,
		Log:            d.Log,
	}))
	d.localServer = newLocalServer(api, d.Log)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.told = ctx
	servers := []server{front, d.localServer}
	d.serve(front, d.front)
	d.serveLocal(d.local)
	if d.admin != nil {
		admin := d.newAdminServer(pages)
		servers = append(servers, admin)
		d.serve(admin, d.admin)
	}
	d.servers.Go(func() error { d.followSignals(ctx, signals); return nil })
	d.servers.Go(func() error { d.access.flushNowAndThen(ctx); return nil })
	if before != nil {
		d.openRelay(ctx, d.relay)
		d.servers.Go(func() error { return d.succeed(ctx, before) })
	}
	d.announce()
	d.servers.Go(func() error { return d.watch(ctx) })
	select {
	case <-d.upgraded:
	case <-ctx.Done():
	case err := <-d.broken:
		cancel(err)
	}
	err := d.end(ctx, servers...)
	cancel(nil)
	return errors.Join(err, d.servers.Wait())
}

func (d *daemon) serveLocal(l net.Listener) {
	d.local = l
	d.serve(d.localServer, l)
}

// server is a [proxy.Server] or an [http.Server].
type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
	Close() error
}

func (d *daemon) serve(s server, l net.Listener) {
	d.servers.Go(func() error {
		err := s.Serve(l)
		if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) { // by us
			return nil
		}
		d.fail(err)
		return err
	})
}

// fail ends the daemon for err, unless it ends for another fault already.
func (d *daemon) fail(err error) {
	select {
	case d.broken <- err:
	default:
	}
}

// succeed tells the daemon before that this one serves, and serves that one until it
// has ended.
func (d *daemon) succeed(ctx context.Context, before *predecessor) error {
	fault.Point(fault.Serves)
	if err := before.send(message{Serving: true, Version: d.Version}); err != nil {
		d.Log.Warn("the daemon that this one replaces has gone already", "error", err)
	}
	fault.Point(fault.ServesTold)
	before.seeOut(ctx, func(e tenement.Event) { d.tenancy.Load().backend.Record(ctx, e) })
	_ = before.close() // nothing more comes from it
	d.changing.Lock()  // the path may be a later daemon's
	defer d.changing.Unlock()
	if d.isUpgraded() {
		return nil // leave does the rest
	}
	err := errors.Join(d.relay.Close(), os.Remove(relayPath(d.Config.DataDir)))
	d.relay = nil
	return err
}

// end ends everything, or what is left of it once another daemon serves.
func (d *daemon) end(ctx context.Context, servers ...server) error {
	d.changing.Lock() // so that nothing is half way to another daemon
	upgraded := d.isUpgraded()
	d.changing.Unlock()
	if upgraded {
		if errors.Is(context.Cause(ctx), context.Canceled) { // told just before anybody could know of the other one
			_ = d.next.process.Signal(syscall.SIGTERM) // fails when it has ended
		}
		return d.leave(ctx, servers...)
	}
	d.Log.Info("stopping")
	ctx = context.WithoutCancel(ctx)
	err := os.Remove(SocketPath(d.Config.DataDir)) // before another daemon can have it
	var group errgroup.Group
	group.Go(func() error { return d.tenancy.Load().end(d.Keep) })
	group.Go(func() error { return d.shutdown(ctx, shutdownTime, servers...) })
	return errors.Join(err, group.Wait())
}

// shutdownTime bounds the wait for requests to the front when the daemon stops. The
// supervisor meanwhile bounds each instance by its own service's times.
const shutdownTime = 30 * time.Second

// shutdown lets requests under way end within limit.
func (d *daemon) shutdown(ctx context.Context, limit time.Duration, servers ...server) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var group errgroup.Group
	for _, s := range servers {
		group.Go(func() error {
			if err := s.Shutdown(ctx); err != nil {
				d.Log.Warn("requests were cut off by the end of the daemon", "error", err)
				return s.Close()
			}
			return nil
		})
	}
	return group.Wait()
}

// announce tells a person what is served where, and how far tenants are kept apart.
func (d *daemon) announce() {
	c := d.config()
	fmt.Fprintf(d.Stdout, "listening on http://%s\n", d.front.Addr())
	if d.admin != nil {
		fmt.Fprintf(d.Stdout, "dashboard and management API on http://%s\n", d.admin.Addr())
	}
	byIsolation := make(map[tenement.Isolation][]string)
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		degree := c.Services[name].Isolation
		byIsolation[degree] = append(byIsolation[degree], name)
	}
	for _, degree := range slices.Sorted(maps.Keys(byIsolation)) {
		note := ""
		if degree == tenement.IsolationProcess {
			note = " (tenants run as this daemon's user and are not protected from one another)"
		}
		fmt.Fprintf(d.Stdout, "serving %s below %s; isolation: %s%s\n", strings.Join(byIsolation[degree], ", "), c.Domain, degree, note)
	}
}
