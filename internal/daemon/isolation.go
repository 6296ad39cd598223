package daemon

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"tenement"
	"tenement/internal/cgroup"
	"tenement/internal/listening"
	"tenement/internal/memory"
	"tenement/internal/network"
	"tenement/internal/rootless"
	"tenement/internal/runtime"
)

// isolation is what this machine offers to keep processes apart.
type isolation struct {
	host      *runtime.Host
	within    *rootless.Namespaces // nil unless an ordinary user's daemon is in some
	cgroups   *cgroup.Tree         // nil where there are none to be had
	listening *listening.Events    // nil where there are none to be had
	networks  *network.Pool        // nil where there are none to be had
	sandboxes *runtime.Sandbox     // nil where there are none to be had
	runtimes  map[tenement.Isolation]runtime.Runtime
}

// openIsolation opens one runtime for each degree. What this machine does not offer is
// an error when something is to be started with it, and not before.
func (t *tenancy) openIsolation() (err error) {
	i := &t.isolation
	if i.within, err = rootless.Open(); err != nil {
		return err
	}
	if i.within != nil {
		t.closers = append(t.closers, i.within)
	}
	if err := t.openCgroups(); err != nil {
		return err
	}
	t.openListening()
	i.host, err = runtime.NewHost(t.stateDir("output"), i.cgroups, i.within, i.listening, t.daemon.Log)
	if err != nil {
		return err
	}
	i.runtimes = map[tenement.Isolation]runtime.Runtime{tenement.IsolationProcess: i.host}
	namespaces, err := t.openNamespace()
	switch {
	case tenement.CodeOf(err) == tenement.CodeUnavailable:
		i.runtimes[tenement.IsolationNamespace] = runtime.Unavailable{Err: err}
		i.runtimes[tenement.IsolationSandbox] = runtime.Unavailable{Err: err}
		return nil
	case err != nil:
		return err
	}
	i.runtimes[tenement.IsolationNamespace] = namespaces
	i.sandboxes, err = t.openSandbox(namespaces)
	switch {
	case tenement.CodeOf(err) == tenement.CodeUnavailable:
		i.runtimes[tenement.IsolationSandbox] = runtime.Unavailable{Err: err}
	case err != nil:
		return err
	default:
		i.runtimes[tenement.IsolationSandbox] = i.sandboxes
	}
	return nil
}

// availableMemory is what new processes can have, in their cgroup and on the machine.
func (i *isolation) availableMemory() (tenement.Bytes, error) {
	if i.cgroups == nil {
		return memory.Available("", "")
	}
	root, err := cgroup.Mount()
	if err != nil {
		return 0, err
	}
	return memory.Available(root, i.cgroups.Path())
}

func (t *tenancy) stateDir(name string) string {
	return filepath.Join(StateDir(t.daemon.Config.DataDir), name)
}

// ownName tells what belongs to this data directory from what other daemons have on the
// machine: digits and letters, one for two of length.
func (t *tenancy) ownName(length int) string { return ownName(t.daemon.Config.DataDir, length) }

func ownName(dataDir string, length int) string {
	sum := sha256.Sum256([]byte(dataDir))
	return hex.EncodeToString(sum[:length/2])
}

// openCgroups gives each data directory a subtree of its own, so that two daemons
// on one machine stay apart. Where an operator has said in which cgroup, there is no
// doing without it.
func (t *tenancy) openCgroups() error {
	var companions []int
	if within := t.isolation.within; within != nil {
		companions = append(companions, within.Keeper)
	}
	tree, err := cgroup.Open("tenement-"+t.ownName(12), companions...)
	switch {
	case err == nil:
		t.isolation.cgroups = tree
		t.closers = append(t.closers, tree)
	case os.Getenv(cgroup.ParentVariable) != "":
		return err
	default:
		t.daemon.Log.Warn("a tenant's process that leaves its process group will not be found again", "reason", err, "hint", tenement.HintOf(err))
	}
	return nil
}

// openListening has the kernel tell when a tenant listens, where it does. Where not, the
// tenants that start are asked again and again.
func (t *tenancy) openListening() {
	if t.isolation.cgroups == nil {
		return
	}
	events, err := listening.Open(t.isolation.cgroups.Path())
	if err != nil {
		t.daemon.Log.Debug("programs that start are asked every millisecond whether they listen", "reason", err)
		return
	}
	t.isolation.listening = events
	t.closers = append(t.closers, events)
}

// keepListening passes on who listens until ctx ends.
func (t *tenancy) keepListening(ctx context.Context) {
	if events := t.isolation.listening; events != nil {
		events.Run(ctx, t.daemon.Log)
	}
}

// errNotEntered is for a daemon that no service asked to isolate by namespaces when it
// was started.
var errNotEntered error = &tenement.Error{
	Code: tenement.CodeUnavailable, Op: `isolate with "namespace"`, Err: errors.New("this daemon, of an ordinary user, was started before a service asked for it"),
	Hint: "have it begin again: ten upgrade",
}

// networksReady is how many network namespaces wait for a wake: as many as start at once
// on a small machine.
const networksReady = 4

func (t *tenancy) openNamespace() (*runtime.Namespace, error) {
	if os.Geteuid() != 0 {
		return nil, cmp.Or(t.daemon.NoNamespaces, errNotEntered)
	}
	if t.isolation.cgroups == nil { // a process that has left its group could not be ended
		return nil, &tenement.Error{
			Code: tenement.CodeUnavailable, Op: `isolate with "namespace"`, Err: errors.New("there is no cgroup v2 hierarchy to write to"),
			Hint: `mount one (mount -t cgroup2 none /sys/fs/cgroup/unified) and run the daemon as root, or set isolation = "process"`,
		}
	}
	pool, err := network.Open(network.Options{Name: networkName(t.daemon.Config.DataDir), Ready: networksReady, Within: t.isolation.within != nil, Log: t.daemon.Log})
	if err != nil {
		return nil, err
	}
	namespace, err := runtime.NewNamespace(t.isolation.host, pool, t.stateDir("root"), t.daemon.Config.Path)
	if err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	t.isolation.networks = pool
	t.closers = append(t.closers, closer(t.closeNetworks), namespace)
	return namespace, nil
}

func networkName(dataDir string) string { return "t" + ownName(dataDir, 6) }

// RemoveLeft removes what a daemon that was killed has left of its tenants on the machine
// outside of its data directory, which has this absolute path: networks, and the bundles
// of sandboxes, which hold the environments of their programs. No daemon may have it, and
// no tenant run. Errors: CodeUnavailable.
func RemoveLeft(dataDir string) error {
	err := runtime.RemoveBundles(sandboxDir(dataDir))
	pool, failure := network.Open(network.Options{Name: networkName(dataDir), Log: slog.New(slog.DiscardHandler)})
	if failure != nil {
		return errors.Join(err, failure)
	}
	return errors.Join(err, pool.Sweep(), pool.Close())
}

// sandboxParent is where all users may pass, and what is not needed after the next boot.
const sandboxParent = "/run/tenement"

func sandboxDir(dataDir string) string { return filepath.Join(sandboxParent, ownName(dataDir, 12)) }

func (t *tenancy) openSandbox(namespaces *runtime.Namespace) (*runtime.Sandbox, error) {
	if t.isolation.within != nil {
		return nil, &tenement.Error{
			Code: tenement.CodeUnavailable, Op: `isolate with "sandbox"`, Err: errors.New("this daemon is an ordinary user's"),
			Hint: `run the daemon as root, or set isolation = "namespace"`,
		}
	}
	sandboxes, err := runtime.NewSandbox(namespaces, sandboxDir(t.daemon.Config.DataDir))
	if err != nil {
		return nil, err
	}
	t.closers = append(t.closers, closer(func() error {
		if t.given.Load() {
			return nil
		}
		return sandboxes.Close()
	}))
	return sandboxes, nil
}

// closer is a func that is an io.Closer.
type closer func() error

func (c closer) Close() error { return c() }

// closeNetworks takes nothing from tenants that live on, and nothing that another daemon
// has by now.
func (t *tenancy) closeNetworks() error {
	if t.given.Load() {
		t.isolation.networks.Detach()
		return nil
	}
	return t.isolation.networks.Close()
}

// keepNetworks has some ready until ctx ends.
func (t *tenancy) keepNetworks(ctx context.Context) {
	if t.isolation.networks == nil {
		return
	}
	if err := t.isolation.networks.Run(ctx); err != nil {
		t.daemon.Log.Error("network namespaces that nobody used are left", "error", err)
	}
}

// sweepTime bounds the wait for what an earlier daemon left in the cgroups to be gone.
const sweepTime = 10 * time.Second

// sweep ends what an earlier daemon left in the cgroups and nobody took over: it was
// killed before it could record it, or the recorded process has left others behind. It
// removes their FIFOs, their ways out of their networks and their bundles, too.
func (t *tenancy) sweep(ctx context.Context, adopted []tenement.Ref) {
	err := t.isolation.host.Sweep()
	if cgroups := t.isolation.cgroups; cgroups != nil {
		spared := make(map[string]bool, len(adopted))
		for _, ref := range adopted {
			spared[ref.Cgroup] = true
		}
		ctx, cancel := context.WithTimeout(ctx, sweepTime)
		defer cancel()
		err = errors.Join(err, cgroups.Sweep(ctx, func(path string) bool { return spared[path] }))
	}
	if networks := t.isolation.networks; networks != nil {
		err = errors.Join(err, networks.Sweep())
	}
	if sandboxes := t.isolation.sandboxes; sandboxes != nil {
		err = errors.Join(err, sandboxes.Sweep())
	}
	if err != nil {
		t.daemon.Log.Error("cannot end all that an earlier daemon left", "error", err)
	}
}
