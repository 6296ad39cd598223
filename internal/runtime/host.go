package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"syscall"

	"tenement"
	"tenement/internal/cgroup"
	"tenement/internal/fault"
)

// Host is the "process" runtime: tenants are processes of the daemon's own user on
// the host itself, each with a process group and, where there is one to write to,
// a cgroup of its own. It keeps tenants' programs apart, not tenants from one another.
type Host struct {
	ports   *portPool
	outputs *outputDir
	cgroups *cgroup.Tree
	log     *slog.Logger
}

// NewHost makes the runtime. dir, which is made if need be, is for what tenants print:
// no other live daemon may have it, and the next one must, to adopt them. Without
// cgroups a process that leaves its process group survives the end of its instance.
// CodeUnavailable: this kernel is too old.
func NewHost(dir string, cgroups *cgroup.Tree, log *slog.Logger) (*Host, error) {
	if err := checkHandles(); err != nil {
		return nil, err
	}
	outputs, err := openOutputDir(dir)
	if err != nil {
		return nil, err
	}
	return &Host{ports: newPortPool(), outputs: outputs, cgroups: cgroups, log: log}, nil
}

// Start implements [Runtime].
func (h *Host) Start(_ context.Context, s Spec) (_ Process, err error) {
	port, err := h.ports.take()
	if err != nil {
		return nil, err
	}
	undo := cleanup{func() { h.ports.free(port) }}
	defer undo.unless(&err)

	c, err := s.command(port)
	if err != nil {
		return nil, err
	}
	ref, err := h.outputs.create(s.Instance)
	if err != nil {
		return nil, err
	}
	undo.add(func() { h.warn("remove FIFOs", h.outputs.remove(ref)) })
	files, out, err := openOutput(ref, s)
	if err != nil {
		return nil, err
	}
	defer closeAll(files)
	undo.add(out.close)

	group, attr, err := h.attributes(s.Instance)
	if err != nil {
		return nil, err
	}
	if group != nil {
		undo.add(func() { h.warn("remove cgroup", group.Remove()) })
		ref.Cgroup = group.Path()
	}
	fault.Point(fault.Prepared)
	child, err := startProcess(c, files, attr, group)
	if err != nil {
		return nil, &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "start " + s.Instance.String(), Err: err,
			Hint: fmt.Sprintf("run %s by hand in %s to see why", c.path, c.dir),
		}
	}
	ref.PID, ref.Port, ref.Isolation = child.pid, port, tenement.IsolationProcess
	ref.StartTime, ref.BootID = child.identify()
	p := h.process(child, ref)
	p.output = out
	out.start()
	go p.wait()
	return p, nil
}

// Adopt implements [Runtime]. What a process has printed since the earlier daemon was
// last able to store it reaches the sinks of s. Its exit status is known from Linux
// 6.15 on.
func (h *Host) Adopt(ctx context.Context, s Spec, ref tenement.Ref) (Process, error) {
	found, err := adopt(ref)
	if err != nil {
		return nil, err
	}
	p := h.process(found, ref)
	h.ports.claim(ref.Port)
	h.outputs.claim(ref)
	err = p.takeOver(s)
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
func (h *Host) process(handle *handle, ref tenement.Ref) *hostProcess {
	p := &hostProcess{
		host: h, handle: handle, output: &output{}, ref: ref,
		address: net.JoinHostPort("127.0.0.1", strconv.Itoa(ref.Port)),
		exited:  make(chan struct{}),
	}
	if ref.Cgroup != "" {
		p.group = cgroup.At(ref.Cgroup)
	}
	return p
}

func (h *Host) attributes(id tenement.InstanceID) (*cgroup.Group, *syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if h.cgroups == nil {
		return nil, attr, nil
	}
	group, err := h.cgroups.New(id.Service + "." + id.Name)
	return group, attr, err
}

func (h *Host) warn(op string, err error) {
	if err != nil {
		h.log.Warn("something of an ended process is left", "operation", op, "error", err)
	}
}

// startProcess clones straight into group, so that not even the first instruction
// of the tenant runs outside of it.
func startProcess(c command, files []*os.File, attr *syscall.SysProcAttr, group *cgroup.Group) (*handle, error) {
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
