package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"syscall"

	"tenement"
	"tenement/internal/cgroup"
	"tenement/internal/fault"
	"tenement/internal/listening"
	"tenement/internal/network"
	"tenement/internal/rootless"
)

// Host is the "process" runtime: tenants are processes of the daemon's own user on
// the host itself, each with a session and, where there is one to write to,
// a cgroup of its own. It keeps tenants' programs apart, not tenants from one another.
type Host struct {
	ports   *portPool
	outputs *outputDir
	cgroups *cgroup.Tree
	within  *rootless.Namespaces
	events  *listening.Events
	network uint64 // the cookie of the daemon's own
	groups  groupTable
	log     *slog.Logger
}

// NewHost makes the runtime. dir, which is made if need be, is for what tenants print:
// no other live daemon may have it, and the next one must, to adopt them. Without
// cgroups a process that leaves its process group survives the end of its instance.
// Within are the namespaces of a daemon that is an ordinary user's, or nil. Events are of
// cgroups, or nil. CodeUnavailable: this kernel is too old.
func NewHost(dir string, cgroups *cgroup.Tree, within *rootless.Namespaces, events *listening.Events, log *slog.Logger) (*Host, error) {
	if err := errors.Join(checkHandles(), keepDescriptors()); err != nil {
		return nil, err
	}
	outputs, err := openOutputDir(dir)
	if err != nil {
		return nil, err
	}
	return &Host{
		ports: newPortPool(), outputs: outputs, cgroups: cgroups, within: within,
		events: events, network: network.Cookie(), log: log,
	}, nil
}

// spawner starts a command with its first descriptors, as spawn does.
type spawner func(command, []*os.File, *syscall.SysProcAttr) (*handle, error)

// place is where one process runs, as a degree of isolation has prepared it.
type place struct {
	isolation tenement.Isolation
	port      int
	network   uint64                   // the cookie of its network
	slot      int                      // of it
	uid       int                      // 0 = the daemon's own user
	within    func(func() error) error // does something on a thread in its network
	spawn     spawner
	dial      func(context.Context) (net.Conn, error)
	wait      func(*handle) tenement.Exit         // for the main process; nil: the handle knows
	signal    func(*handle, syscall.Signal) error // to the main process; nil: the handle can
	freeze    func() error                        // nil: the cgroup or the process group can
	thaw      func() error                        // as freeze
	frozen    func() bool                         // as freeze
	adapt     func(*Job, *handle)                 // of a task, how it is reached; nil: its handle knows
	leave     func() error                        // frees what it held, once the tree is gone
	detach    func()                              // leaves it to another daemon
}

// Start implements [Runtime].
func (h *Host) Start(ctx context.Context, s Spec) (Process, error) {
	port, err := h.ports.take()
	if err != nil {
		return nil, err
	}
	return h.startAt(ctx, s, h.onHost(port))
}

// onHost is a place among everything else on this machine.
func (h *Host) onHost(port int) place {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	return place{
		isolation: tenement.IsolationProcess,
		port:      port,
		network:   h.network,
		within:    func(do func() error) error { return do() },
		spawn: func(c command, files []*os.File, attr *syscall.SysProcAttr) (*handle, error) {
			if h.within != nil {
				h.within.AsUser(attr)
			}
			return spawn(c, files, attr)
		},
		dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp4", address)
		},
		leave:  func() error { h.ports.free(port); return nil },
		detach: func() {},
	}
}

// startAt starts s; on an error nothing is left of it, the place included.
func (h *Host) startAt(ctx context.Context, s Spec, at place) (_ Process, err error) {
	undo := cleanup{func() { h.warn("free the place of a process", at.leave()) }}
	defer undo.unless(&err)

	c, err := s.command(at.port)
	if err != nil {
		return nil, err
	}
	ref, err := h.outputs.create(s.Instance, at.uid)
	if err != nil {
		return nil, err
	}
	undo.add(func() { h.warn("remove FIFOs", h.outputs.remove(ref)) })
	files, out, err := openOutput(ref, s)
	if err != nil {
		return nil, err
	}
	defer func() { closeAll(files) }()
	undo.add(out.close)
	if files, err = at.passSocket(ctx, s, files); err != nil {
		return nil, err
	}
	said, err := at.hear(s, ref)
	if err != nil {
		return nil, err
	}
	undo.add(said.close)
	asked, err := at.heed(s, ref)
	if err != nil {
		return nil, err
	}
	undo.add(asked.close)
	c.env = append(c.env, append(said.environment(), asked.environment()...)...)

	group, attr, err := h.attributes(s)
	if err != nil {
		return nil, err
	}
	if group != nil {
		undo.add(func() { h.warn("remove cgroup", group.Remove()) })
		ref.Cgroup = group.Path()
	}
	fault.Point(fault.Prepared)
	child, err := startProcess(c, files, attr, group, at.spawn)
	if err != nil {
		return nil, startFailure(s, c, at, err)
	}
	ref.PID, ref.Port, ref.Slot, ref.Isolation = child.pid, at.port, at.slot, at.isolation
	ref.StartTime, ref.BootID = child.identify()
	p := h.process(child, ref, at)
	p.output, p.notices, p.wishes = out, said, asked
	out.start()
	said.start(p.has)
	asked.start(s.Heed, p.has)
	go p.wait()
	return p, nil
}

// passSocket adds the listening socket to files, if the program is to have it.
func (at place) passSocket(ctx context.Context, s Spec, files []*os.File) ([]*os.File, error) {
	if !s.passed() {
		return files, nil
	}
	err := at.within(func() error {
		socket, err := network.ListenHere(ctx, at.port)
		if err == nil {
			files = append(files, socket)
		}
		return err
	})
	return files, err
}

func startFailure(s Spec, c command, at place, err error) error {
	if known := (*tenement.Error)(nil); errors.As(err, &known) {
		return err
	}
	hint := fmt.Sprintf("run %s by hand in %s to see why", c.path, c.dir)
	if at.isolation != tenement.IsolationProcess && errors.Is(err, fs.ErrNotExist) {
		hint = fmt.Sprintf("%s, its interpreter or %s is not among what an isolated program sees: add it to `readable` of [service.%s]", c.path, c.dir, s.Instance.Service)
	}
	return &tenement.Error{Code: tenement.CodeUnavailable, Op: "start " + s.Instance.String(), Err: err, Hint: hint}
}

// Adopt implements [Runtime]. What a process has printed since the earlier daemon was
// last able to store it reaches the sinks of s. Its exit status is known unless somebody
// else has reaped it before Linux 6.15.
func (h *Host) Adopt(ctx context.Context, s Spec, ref tenement.Ref) (Process, error) {
	found, err := adopt(ref)
	if err != nil {
		return nil, explainEnd(err, ref)
	}
	h.ports.claim(ref.Port)
	return h.adoptAt(ctx, s, ref, found, h.onHost(ref.Port), nil)
}

// adoptAt takes over what was found, or ends it if its place could not be found again.
func (h *Host) adoptAt(ctx context.Context, s Spec, ref tenement.Ref, found *handle, at place, err error) (Process, error) {
	p := h.process(found, ref, at)
	h.outputs.claim(ref)
	if err == nil {
		err = p.takeOver(s)
	}
	go p.wait()
	if err == nil {
		return p, nil
	}
	failure := &tenement.Error{Code: tenement.CodeUnavailable, Op: "adopt " + s.Instance.String(), Err: err}
	if err := p.end(ctx); err != nil {
		failure.Code, failure.Err = tenement.CodeInternal, errors.Join(failure.Err, err)
	}
	return nil, failure
}

// Sweep removes the FIFOs of processes that an earlier daemon left and that are gone.
// Call it when all that live were adopted. Nothing in them is lost: what nobody has
// open is empty.
func (h *Host) Sweep() error { return h.outputs.sweep() }

// process is one that lives; the caller lets it wait.
func (h *Host) process(found *handle, ref tenement.Ref, at place) *hostProcess {
	if at.wait == nil {
		at.wait = (*handle).wait
	}
	if at.signal == nil {
		at.signal = (*handle).signal
	}
	p := &hostProcess{
		host: h, handle: found, output: &output{}, ref: ref,
		at: at, exited: make(chan struct{}),
	}
	if ref.Cgroup != "" {
		p.group = cgroup.At(ref.Cgroup)
	}
	return p
}

func (h *Host) attributes(s Spec) (*cgroup.Group, *syscall.SysProcAttr, error) {
	// A session of its own is a process group of its own, too; and the terminal that the
	// daemon may have been started from is not the tenant's: it could type there (TIOCSTI).
	attr := &syscall.SysProcAttr{Setsid: true}
	limits := s.Service.Limits
	if h.cgroups == nil {
		return nil, attr, withoutCgroups(limits)
	}
	group, err := h.cgroups.New(s.Instance.Service+"."+s.Instance.Name, limits)
	return group, attr, err
}

// withoutCgroups refuses the limits that only a cgroup can keep.
func withoutCgroups(l tenement.Limits) error {
	l.OpenFiles, l.Storage = 0, 0
	if l == (tenement.Limits{}) {
		return nil
	}
	return &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "set limits", Err: errors.New("there is no cgroup to keep them"),
		Hint: "see what is missing: ten doctor",
	}
}

func (h *Host) warn(op string, err error) {
	if err != nil {
		h.log.Warn("something of an ended process is left", "operation", op, "error", err)
	}
}

// startProcess clones straight into group, so that not even the first instruction
// of the tenant runs outside of it.
func startProcess(c command, files []*os.File, attr *syscall.SysProcAttr, group *cgroup.Group, spawn spawner) (*handle, error) {
	if group != nil {
		dir, err := group.Open()
		if err != nil {
			return nil, err
		}
		defer closeAll([]*os.File{dir})
		cloneInto(attr, dir)
	}
	return spawn(c, files, attr)
}

// cleanup undoes, in reverse order, what was acquired so far.
type cleanup []func()

func (c *cleanup) add(undo func()) { *c = append(*c, undo) }

func (c *cleanup) unless(err *error) {
	if *err == nil {
		return
	}
	for i := len(*c) - 1; i >= 0; i-- {
		(*c)[i]()
	}
}
