// Package daemon wires the parts and owns their order of start and stop.
package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/cgroup"
	"tenement/internal/config"
	"tenement/internal/disk"
	"tenement/internal/logs"
	"tenement/internal/proxy"
	"tenement/internal/route"
	"tenement/internal/runtime"
	"tenement/internal/store"
	"tenement/internal/supervisor"
)

// Options is what a daemon runs with. Config is required.
type Options struct {
	Config  *config.Config
	Version string
	Log     *slog.Logger
	Stdout  io.Writer // gets the lines that say where it listens
}

// StateDir is where, below the data directory, the daemon keeps its own state; no
// service can have that name.
func StateDir(dataDir string) string { return filepath.Join(dataDir, ".tenement") }

// SocketPath is where the daemon of dataDir answers the management API locally.
func SocketPath(dataDir string) string { return filepath.Join(StateDir(dataDir), "ten.sock") }

// adminTokenFile holds the newest admin token, for the operator's scripts.
const adminTokenFile = "api_token"

// Run serves until ctx ends, then lets requests under way finish, puts every
// instance to sleep and returns nil. An error means that it could not start, or that
// a part broke. A second daemon on the same data directory is CodeConflict.
func Run(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Stdout == nil {
		o.Stdout = io.Discard
	}
	d, err := open(ctx, o)
	if err != nil {
		return err
	}
	return errors.Join(d.run(ctx), d.close())
}

// daemon is the parts of one running daemon.
type daemon struct {
	Options
	disk       *disk.Root
	store      *store.Store
	logs       *logs.Buffer
	cgroups    *cgroup.Tree // nil where there are none to be had
	weights    *route.Weights
	supervisor *supervisor.Supervisor
	backend    *backend
	front      net.Listener
	local      net.Listener
	closers    []io.Closer // in the order of opening
}

// open acquires everything; on an error nothing stays acquired.
func open(ctx context.Context, o Options) (_ *daemon, err error) {
	d := &daemon{Options: o, logs: logs.New(logs.Limits{}), weights: route.NewWeights()}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.disk, err = disk.Open(o.Config.DataDir); err != nil {
		return nil, err
	}
	d.closers = append(d.closers, d.disk)
	if d.store, err = store.Open(ctx, StateDir(o.Config.DataDir)); err != nil {
		return nil, err
	}
	d.closers = append(d.closers, d.store)
	if err := d.loadWeights(ctx); err != nil {
		return nil, err
	}
	d.openCgroups(ctx)
	d.supervisor = d.newSupervisor()
	d.backend = &backend{daemon: d, ctx: context.WithoutCancel(ctx)}
	if err := d.listen(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *daemon) close() error {
	var err error
	for i := len(d.closers) - 1; i >= 0; i-- {
		if e := d.closers[i].Close(); e != nil && !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (d *daemon) loadWeights(ctx context.Context) error {
	list, err := d.store.Weights(ctx)
	if err != nil {
		return err
	}
	weights := make(map[tenement.InstanceID]int, len(list))
	for _, w := range list {
		weights[w.ID] = w.Weight
	}
	d.weights.Replace(weights)
	return nil
}

// sweepTime bounds the wait for what an earlier daemon left in the cgroups to be gone.
const sweepTime = 10 * time.Second

// openCgroups gives each data directory a subtree of its own, so that two daemons
// on one machine stay apart. What is in it was left by an earlier daemon that was
// killed, for the store is ours alone; it is ended, on record or not.
func (d *daemon) openCgroups(ctx context.Context) {
	sum := sha256.Sum256([]byte(d.Config.DataDir))
	tree, err := cgroup.Open("tenement-" + hex.EncodeToString(sum[:6]))
	if err != nil {
		d.Log.Warn("a tenant's process that leaves its process group will not be found again", "reason", err, "hint", tenement.HintOf(err))
		return
	}
	d.cgroups = tree
	d.closers = append(d.closers, tree)
	ctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	if err := tree.Sweep(ctx); err != nil {
		d.Log.Error("cannot end what an earlier daemon left running", "error", err)
	}
}

func (d *daemon) newSupervisor() *supervisor.Supervisor {
	return supervisor.New(supervisor.Config{
		Store:    d.store,
		Disk:     d.disk,
		Logs:     d.logs,
		Services: d.Config.Services,
		Runtimes: map[tenement.Isolation]runtime.Runtime{
			tenement.IsolationProcess: runtime.NewHost(d.cgroups, d.Log),
		},
		Transport:   proxy.NewTransport,
		Pinned:      d.Config.Instances,
		Deleted:     func(id tenement.InstanceID) { d.weights.Set(id, 0) },
		MaxStarting: d.Config.MaxStarting,
		MaxWaiting:  d.Config.MaxWaiting,
		Log:         d.Log,
	})
}

func (d *daemon) listen(ctx context.Context) error {
	var lc net.ListenConfig
	front, err := d.openFront(ctx)
	if err != nil {
		return err
	}
	d.front = front
	d.closers = append(d.closers, front)
	path := SocketPath(d.Config.DataDir)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket of an earlier daemon: %w", err)
	}
	local, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "listen on " + path, Err: err,
			Hint: "the path of a socket has at most 107 bytes: choose a shorter data_dir",
		}
	}
	d.local = local
	d.closers = append(d.closers, local)
	return os.Chmod(path, 0o600)
}

// run starts the supervisor, then serves until ctx ends or a part breaks.
func (d *daemon) run(ctx context.Context) error {
	table := d.table()
	//nolint:contextcheck // each request brings its own
	apiServer := api.NewServer(api.Options{Backend: d.backend, Log: d.Log, Version: d.Version, URL: d.backend.URL})
	front := proxy.NewServer(proxy.New(proxy.Config{
		Lookup:  table.Lookup,
		Pick:    d.backend.pick,
		Acquire: d.supervisor.Acquire,
		MaxBody: d.maxBody,
		Admin:   apiServer,

		TrustedProxies: d.Config.TrustedProxies,
		Log:            d.Log,
	}), d.Log)
	local := newLocalServer(apiServer, d.Log)

	group, ctx := errgroup.WithContext(ctx)
	ready := make(chan struct{})
	group.Go(func() error { return d.supervisor.Run(ctx, ready) })
	select {
	case <-ready:
	case <-ctx.Done():
		return group.Wait()
	}
	group.Go(func() error { return serve(front, d.front) })
	group.Go(func() error { return serve(local, d.local) })
	group.Go(func() error { return d.shutdown(ctx, front, local) })
	d.announce()
	group.Go(func() error { return d.watch(ctx) })
	return group.Wait()
}

func (d *daemon) table() *route.Table {
	c := d.Config
	return route.New(route.Config{
		Domain: c.Domain, AdminHost: c.AdminHost,
		Services: slices.Collect(maps.Keys(c.Services)),
		Default:  c.Routing.Default, Subdomain: c.Routing.Subdomain, Path: c.Routing.Path,
	})
}

func (d *daemon) maxBody(service string) tenement.Bytes {
	if s := d.Config.Services[service]; s != nil {
		return s.MaxBody
	}
	return 0
}

func serve(s *http.Server, l net.Listener) error {
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// shutdownTime bounds the wait for requests to the front when the daemon stops. The
// supervisor meanwhile bounds each instance by its own service's times.
const shutdownTime = 30 * time.Second

func (d *daemon) shutdown(ctx context.Context, servers ...*http.Server) error {
	<-ctx.Done()
	d.Log.Info("stopping")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	var group errgroup.Group
	for _, s := range servers {
		group.Go(func() error {
			if err := s.Shutdown(ctx); err != nil {
				d.Log.Warn("requests were cut off by the stop", "error", err)
				return s.Close()
			}
			return nil
		})
	}
	return group.Wait()
}

// announce tells a person what is served where, and how far tenants are kept apart.
func (d *daemon) announce() {
	fmt.Fprintf(d.Stdout, "listening on http://%s\n", d.front.Addr())
	names := slices.Sorted(maps.Keys(d.Config.Services))
	fmt.Fprintf(d.Stdout, "serving %s below %s; isolation: process (tenants run as this daemon's user and are not protected from one another)\n",
		strings.Join(names, ", "), d.Config.Domain)
}
