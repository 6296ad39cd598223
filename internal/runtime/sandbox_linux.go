package runtime

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/cgroup"
	"tenement/internal/network"
)

// Sandbox is the "sandbox" runtime: each process has a kernel of its own, gVisor's, that
// is itself a process without rights on the host's. What it may see, its network and its
// user id are those of [Namespace].
type Sandbox struct {
	namespaces *Namespace
	host       *Host
	dir        string

	mu   sync.Mutex
	used map[string]bool // the bundles that belong to a process of ours
}

// NewSandbox makes the runtime; it shares with the others what both have to do alike. dir
// is made if need be. As with the host's no other live daemon may have it. runsc is looked
// for at each start. CodeUnavailable: not everybody may pass through what is above dir.
func NewSandbox(namespaces *Namespace, dir string) (*Sandbox, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	unavailable := func(err error, hint string) error {
		return &tenement.Error{Code: tenement.CodeUnavailable, Op: `isolate with "sandbox"`, Err: err, Hint: hint}
	}
	if err := errors.Join(os.MkdirAll(dir, 0o711), os.Chmod(dir, 0o711)); err != nil {
		return nil, unavailable(err, "make the directory for the daemon's user")
	}
	for above := dir; above != "/"; above = filepath.Dir(above) {
		info, err := os.Stat(above)
		if err != nil {
			return nil, unavailable(err, "")
		}
		if info.Mode()&0o001 == 0 {
			return nil, unavailable(fmt.Errorf("%s is closed to other users, as whom sandboxes run", above), "chmod o+x "+above)
		}
	}
	return &Sandbox{namespaces: namespaces, host: namespaces.host, dir: dir, used: make(map[string]bool)}, nil
}

// Close removes the directory, unless something lives that has a bundle in it.
func (b *Sandbox) Close() error {
	if err := os.Remove(b.dir); !errors.Is(err, fs.ErrExist) { // which is what ENOTEMPTY is
		return ignoreMissing(err)
	}
	return nil
}

// Start implements [Runtime].
func (b *Sandbox) Start(ctx context.Context, s Spec) (Process, error) {
	if s.UID <= 0 {
		return nil, &tenement.Error{Code: tenement.CodeInternal, Op: "start " + s.Instance.String(), Err: errors.New("it has no user id of its own")}
	}
	if s.passed() || s.notifies() {
		return nil, &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "start " + s.Instance.String(), Err: errors.New("a sandbox shares no socket with this machine"),
			Hint: `set listen = "port" and ready = "probe", or isolation = "namespace"`,
		}
	}
	at, err := b.newPlace(ctx, s)
	if err != nil {
		return nil, err
	}
	return b.host.startAt(ctx, s, at)
}

// newPlace is a sandbox that is made when something is started in it.
func (b *Sandbox) newPlace(ctx context.Context, s Spec) (place, error) {
	if b.host.cgroups == nil {
		return place{}, &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "start " + s.Instance.String(), Err: errors.New("a sandbox needs a cgroup, and there is none to be had"),
			Hint: "run the daemon as root on a machine with a cgroup v2 hierarchy",
		}
	}
	runsc, err := FindRunsc()
	if err != nil {
		return place{}, err
	}
	in, err := b.namespaces.network.Take(ctx, s.Service.Egress)
	if err != nil {
		return place{}, err
	}
	x := &box{runtime: b, in: in}
	at := x.place(s.UID)
	at.spawn = func(c command, files []*os.File, attr *syscall.SysProcAttr) (*handle, error) {
		ctx, cancel := context.WithTimeout(ctx, s.bootTime())
		defer cancel()
		return x.spawn(ctx, runsc, s, c, files, attr)
	}
	return at, nil
}

// Adopt implements [Runtime].
func (b *Sandbox) Adopt(ctx context.Context, s Spec, ref tenement.Ref) (Process, error) {
	found, err := adopt(ref)
	if err != nil {
		return nil, err
	}
	in, lost, err := b.namespaces.findNetwork(found, ref)
	if err != nil {
		found.close()
		return nil, err
	}
	x := &box{runtime: b, in: in}
	x.claim(bundleOf(ref.Stdout))
	x.isFrozen.Store(x.isMarked())
	return b.host.adoptAt(ctx, s, ref, found, x.place(s.UID), lost)
}

// Sweep removes what sandboxes of an earlier daemon have left that are gone. Call it when
// all that live were adopted.
func (b *Sandbox) Sweep() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	entries, err := os.ReadDir(b.dir)
	for _, entry := range entries {
		if dir := filepath.Join(b.dir, entry.Name()); !b.used[dir] {
			err = errors.Join(err, removeBundle(dir))
		}
	}
	return err
}

// box is one sandbox.
type box struct {
	runtime *Sandbox
	in      *network.Namespace // nil if it was not found again
	dir     string             // of its bundle; "" when it is not known
	started *control           // on which it was started, till wait has it
	over    atomic.Bool        // its main process has ended

	isFrozen atomic.Bool // or is about to be
}

const (
	containerID = "tenant" // within a directory of its own every sandbox has the same
	socketName  = "runsc-" + containerID + ".sock"
	pidName     = "pid"
	logName     = "log"
	frozenName  = "frozen" // is there while it is
)

// What a sandbox may take that works.
const (
	minBootTime = 60 * time.Second
	signalTime  = 2 * time.Second
)

// bootTime is what a sandbox, or a command in it, may take from nothing to its first
// instruction.
func (s *Spec) bootTime() time.Duration { return max(s.Service.Timeouts.Startup, minBootTime) }

func (x *box) place(uid int) place {
	at := place{
		isolation: tenement.IsolationSandbox,
		port:      tenantPort,
		uid:       uid,
		wait:      x.wait,
		signal:    x.signal,
		freeze:    x.freeze,
		thaw:      x.thaw,
		frozen:    x.isFrozen.Load,
		adapt:     x.adapt,
		leave:     x.leave,
	}
	if x.in != nil {
		at.network, at.slot, at.detach = x.in.Cookie(), x.in.Slot(), x.in.Detach
		at.dial = func(ctx context.Context) (net.Conn, error) { return x.in.Dial(ctx, tenantPort) }
	}
	return at
}

// bundleOf is the name of the bundle that belongs to a FIFO: both are unlike those of every
// other life. "": it is not one of ours, and what there is goes with the next sweep.
func bundleOf(fifo string) string {
	name, ok := strings.CutSuffix(filepath.Base(fifo), ".stdout")
	if !ok {
		return ""
	}
	return name
}

// claim gives the box the bundle with a name.
func (x *box) claim(name string) {
	if name == "" {
		return
	}
	x.dir = filepath.Join(x.runtime.dir, name)
	x.runtime.mu.Lock()
	defer x.runtime.mu.Unlock()
	x.runtime.used[x.dir] = true
}

// leave frees what the box held, once its processes are gone.
func (x *box) leave() error {
	var err error
	if x.in != nil {
		err = x.in.Close()
	}
	if x.started != nil {
		x.started.close()
	}
	if x.dir == "" {
		return err
	}
	err = errors.Join(err, removeBundle(x.dir))
	x.runtime.mu.Lock()
	defer x.runtime.mu.Unlock()
	delete(x.runtime.used, x.dir)
	return err
}

// spawn makes the sandbox, and then starts the program in it on a connection that is also
// asked how it ends: the sandbox stays until it has told.
func (x *box) spawn(ctx context.Context, runsc string, s Spec, c command, files []*os.File, attr *syscall.SysProcAttr) (_ *handle, err error) {
	t, err := x.runtime.namespaces.template(s, c)
	if err != nil {
		return nil, err
	}
	if c, err = c.prepared(); err != nil {
		return nil, err
	}
	name := bundleOf(files[1].Name())
	if s.Task != nil {
		name = taskBundle(s.Instance)
	}
	x.claim(name)
	if err := writeBundle(x.dir, s, c, t.view); err != nil {
		return nil, err
	}
	undo := cleanup{func() { x.runtime.host.warn("end a sandbox that was not started", endGroup(ctx, attr.CgroupFD)) }}
	defer undo.unless(&err)
	if err := x.create(ctx, runsc, s, t, files, attr); err != nil {
		return nil, err
	}
	h, err := x.find()
	if err != nil {
		return nil, err
	}
	undo.add(h.close)
	x.started, err = dialControl(ctx, filepath.Join(x.dir, socketName))
	if err != nil {
		return nil, err
	}
	if err := x.started.start(ctx); err != nil {
		return nil, x.failure(s, c, err)
	}
	return h, nil
}

// create has runsc make the sandbox, with everything but the program running.
func (x *box) create(ctx context.Context, runsc string, s Spec, t *template, files []*os.File, attr *syscall.SysProcAttr) error {
	cmd := exec.CommandContext(ctx, runsc,
		"--root="+x.dir,
		"--log="+filepath.Join(x.dir, logName), "--log-format=json",
		"--platform="+RunscPlatform,
		"--network=host",                 // of this thread, which is in the tenant's
		"--gofer-network-namespace=host", // any other is mounted below --root
		"--ignore-cgroups",               // it begins in the right one
		"--overlay2=none",                // nothing is written to the skeleton
		"create", "--bundle="+x.dir, "--pid-file="+filepath.Join(x.dir, pidName), containerID)
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	cmd.SysProcAttr = attr
	attr.Setctty = false // it would take the terminal with it when it ends
	err := onThread(func() error {
		if err := mountBundle(x.dir, s, t, x.runtime.namespaces.hidden); err != nil {
			return err
		}
		if err := x.in.Enter(); err != nil {
			return err
		}
		unix.Umask(0o077) // its control socket is nobody else's
		return withUsualSlice(cmd.Start)
	})
	if err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "make a sandbox for " + s.Instance.String(),
			Err:  cmp.Or(x.complaint(), err),
			Hint: "if it is about a file of the service: other users must be allowed to read it",
		}
	}
	return nil
}

// complaint is the first thing that runsc or a child of it has written down before they
// failed: what follows is only that the others miss it.
func (x *box) complaint() error {
	file, err := os.Open(filepath.Join(x.dir, logName))
	if err != nil {
		return nil
	}
	defer file.Close()
	var first struct{ Msg string }
	if err := json.NewDecoder(io.LimitReader(file, maxAnswers)).Decode(&first); err != nil {
		return nil
	}
	return errors.New(first.Msg)
}

// find gives the sandbox process. Whoever holds its handle before it has answered knows
// that the pid had not passed to another process.
func (x *box) find() (*handle, error) {
	text, err := os.ReadFile(filepath.Join(x.dir, pidName))
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open a pidfd of the sandbox: %w", err)
	}
	h := newHandle(pid, fd)
	stat, err := readStat(pid)
	if err != nil {
		h.close()
		return nil, err
	}
	h.startTime = stat.startTime
	return h, nil
}

// failure says why a program does not begin.
func (x *box) failure(s Spec, c command, err error) error {
	if s.Task != nil {
		return taskFailure(s, c, err)
	}
	return &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "start " + s.Instance.String(), Err: err,
		Hint: fmt.Sprintf("if it runs by hand in %s, then it, its interpreter or something else that it needs is not among what an isolated program sees: add that to `readable` of [service.%s]", c.dir, s.Instance.Service),
	}
}

// endGroup ends everything in a cgroup that is open as fd.
func endGroup(ctx context.Context, fd int) error {
	group := cgroup.At("/proc/self/fd/" + strconv.Itoa(fd))
	if err := group.Kill(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killWait)
	defer cancel()
	var err error
	gone := until(ctx, func() bool {
		var populated bool
		populated, err = group.Populated()
		return err == nil && !populated
	})
	if !gone {
		return errors.Join(err, errors.New("a sandbox survives SIGKILL"))
	}
	return nil
}

// wait asks the sandbox how its main process has ended. One that cannot tell was itself
// ended.
func (x *box) wait(h *handle) tenement.Exit {
	ctx := context.Background() //nolint:forbidigo // for as long as it lives
	c := x.started
	if c == nil {
		var err error
		if c, err = dialControl(ctx, filepath.Join(x.dir, socketName)); err != nil {
			return h.wait()
		}
	}
	status, err := c.wait(ctx)
	x.over.Store(true)
	c.close() // now it ends
	if err != nil {
		return h.wait()
	}
	h.until(ended)
	return exitOf(status)
}

// freeze goes on even if nobody waits for it any more: a sandbox that is told to resume
// before it has paused ends. So does one that is told to without need, as it counts; and it
// tells nobody whether it is paused. So that is written down for the next daemon, before
// and after: one that is killed in that very instant costs this life of the instance.
func (x *box) freeze() error {
	if x.isFrozen.Load() {
		return nil
	}
	if err := os.WriteFile(x.mark(), nil, 0o600); err != nil {
		return err
	}
	x.isFrozen.Store(true)
	told, err := x.ask((*control).pause)
	switch {
	case err == nil:
		return nil
	case told: // and may yet obey
		return errors.Join(err, x.thaw())
	}
	x.goesOn()
	return err
}

func (x *box) thaw() error {
	if !x.isFrozen.Load() {
		return nil
	}
	if _, err := x.ask((*control).resume); err != nil {
		return err
	}
	x.goesOn()
	return nil
}

func (x *box) goesOn() {
	x.isFrozen.Store(false)
	x.runtime.host.warn("remove the mark of what was frozen", ignoreMissing(os.Remove(x.mark())))
}

func (x *box) mark() string { return filepath.Join(x.dir, frozenName) }

func (x *box) isMarked() bool {
	_, err := os.Stat(x.mark())
	return err == nil
}

// ask has the sandbox do something. It is harmless once the main process has ended. Its
// program is never frozen by cgroup: what the sandbox and its helpers have to say to one
// another at that instant is lost, and it takes that for an attack and ends. Told: it may
// have heard, whatever the error says.
func (x *box) ask(what func(*control, context.Context) error) (told bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), signalTime) //nolint:forbidigo // the caller has none
	defer cancel()
	c, err := dialControl(ctx, filepath.Join(x.dir, socketName))
	if told = err == nil; told {
		defer c.close()
		err = what(c, ctx)
	}
	if x.over.Load() || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return told, nil
	}
	return told, err
}

// signal is for the main process, and harmless once it has ended.
func (x *box) signal(h *handle, sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), signalTime) //nolint:forbidigo // the caller has none
	defer cancel()
	c, err := dialControl(ctx, filepath.Join(x.dir, socketName))
	if err == nil {
		defer c.close()
		err = c.signal(ctx, sig, mainKey, toProcess)
	}
	if err == nil || x.over.Load() || errors.Is(err, unix.ECONNREFUSED) || h.hasEnded() {
		return nil // it listens until its main process has ended
	}
	if sig == syscall.SIGKILL { // then without its help
		return h.signal(sig)
	}
	return fmt.Errorf("signal %s: %w", sig, err)
}
