package runtime

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"syscall"

	"tenement"
	"tenement/internal/cgroup"
)

// Host is the "process" runtime: tenants are processes of the daemon's own user on
// the host itself, each with a process group and, where there is one to write to,
// a cgroup of its own. It keeps tenants' programs apart, not tenants from one another.
type Host struct {
	ports   *portPool
	cgroups *cgroup.Tree
	log     *slog.Logger
}

// NewHost makes the runtime. Without cgroups a process that leaves its process
// group survives the end of its instance.
func NewHost(cgroups *cgroup.Tree, log *slog.Logger) *Host {
	return &Host{ports: newPortPool(), cgroups: cgroups, log: log}
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
	files, out, err := openOutput(s.Stdout, s.Stderr)
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
	}
	child, err := startProcess(c, files, attr, group)
	if err != nil {
		return nil, &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "start " + s.Instance.String(), Err: err,
			Hint: fmt.Sprintf("run %s by hand in %s to see why", c.path, c.dir),
		}
	}
	p := &hostProcess{
		host: h, child: child, output: out, group: group,
		address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		ref:     tenement.Ref{PID: child.Pid, Port: port, Isolation: tenement.IsolationProcess},
		exited:  make(chan struct{}),
	}
	if group != nil {
		p.ref.Cgroup = group.Path()
	}
	p.ref.StartTime, p.ref.BootID = identify(child.Pid)
	out.start()
	go p.wait(waitFor(child.Pid))
	return p, nil
}

// Adopt implements [Runtime]. The output of an adopted process is lost until its
// next start, and its exit status is unknown: it is nobody's child any more.
func (h *Host) Adopt(_ context.Context, _ Spec, ref tenement.Ref) (Process, error) {
	wait, err := adopt(ref)
	if err != nil {
		return nil, &tenement.Error{Code: tenement.CodeNotFound, Op: "adopt process " + strconv.Itoa(ref.PID), Err: err}
	}
	h.ports.claim(ref.Port)
	p := &hostProcess{
		host: h, output: &output{}, ref: ref,
		address: net.JoinHostPort("127.0.0.1", strconv.Itoa(ref.Port)),
		exited:  make(chan struct{}),
	}
	if ref.Cgroup != "" {
		p.group = cgroup.At(ref.Cgroup)
	}
	go p.wait(wait)
	return p, nil
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
func startProcess(c command, files []*os.File, attr *syscall.SysProcAttr, group *cgroup.Group) (*os.Process, error) {
	if group != nil {
		dir, err := group.Open()
		if err != nil {
			return nil, err
		}
		defer closeAll([]*os.File{dir})
		cloneInto(attr, dir)
	}
	return os.StartProcess(c.path, c.args, &os.ProcAttr{Dir: c.dir, Env: c.env, Files: files, Sys: attr})
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
