package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

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
		ref:     tenement.Ref{PID: child.Pid, Port: port},
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
func (h *Host) Adopt(_ context.Context, ref tenement.Ref) (Process, error) {
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

// hostProcess is one process tree on the host.
type hostProcess struct {
	host    *Host
	child   *os.Process // nil when adopted
	output  *output
	group   *cgroup.Group // nil without cgroups
	address string
	ref     tenement.Ref

	exited chan struct{}
	exit   tenement.Exit // written before exited is closed
}

func (p *hostProcess) Ref() tenement.Ref       { return p.ref }
func (p *hostProcess) Exited() <-chan struct{} { return p.exited }
func (p *hostProcess) Exit() tenement.Exit     { return p.exit }

func (p *hostProcess) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp4", p.address)
}

// wait blocks without holding a thread where the kernel has pidfds, then reaps.
func (p *hostProcess) wait(ended func()) {
	ended()
	if p.child != nil {
		p.exit = exitOf(p.child.Wait())
	}
	close(p.exited)
}

func exitOf(state *os.ProcessState, err error) tenement.Exit {
	if err != nil {
		return tenement.Exit{Status: -1}
	}
	exit := tenement.Exit{Status: state.ExitCode(), Known: true}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		exit.Signal = status.Signal().String()
	}
	return exit
}

func (p *hostProcess) Signal(sig os.Signal) error {
	if p.hasExited() {
		return nil
	}
	var err error
	if p.child != nil {
		err = p.child.Signal(sig)
	} else {
		err = signalAdopted(p.ref, sig)
	}
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

func (p *hostProcess) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// Kill ends the tree: everything in the cgroup, which nothing can leave, or
// everything in the process group, which a program can leave by setsid(2).
func (p *hostProcess) Kill() error {
	if p.group != nil {
		return p.group.Kill()
	}
	return p.signalGroup(syscall.SIGKILL)
}

func (p *hostProcess) signalGroup(sig syscall.Signal) error {
	if err := syscall.Kill(-p.ref.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// stragglers reports whether something of the tree is alive after its main process.
func (p *hostProcess) stragglers() bool {
	if p.group != nil {
		populated, err := p.group.Populated()
		return err == nil && populated
	}
	return syscall.Kill(-p.ref.PID, 0) == nil
}

// killWait bounds the time from SIGKILL to the disappearance of a tree. Only
// processes in uninterruptible sleep take longer than an instant.
const killWait = 10 * time.Second

// Release implements [Process].
func (p *hostProcess) Release(ctx context.Context) error {
	err := p.endStragglers(ctx)
	p.output.close()
	if err != nil {
		return err // its port stays taken: something may still listen there
	}
	p.host.ports.free(p.ref.Port)
	if p.group != nil {
		return p.group.Remove()
	}
	return nil
}

func (p *hostProcess) endStragglers(ctx context.Context) error {
	if !p.stragglers() {
		return nil
	}
	if ctx.Err() == nil {
		p.host.warn("terminate the rest of a tree", p.terminateStragglers())
		if p.untilGone(ctx) {
			return nil
		}
	}
	if err := p.Kill(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killWait)
	defer cancel()
	if !p.untilGone(ctx) {
		return fmt.Errorf("processes of the tree of pid %d survive SIGKILL", p.ref.PID)
	}
	return nil
}

func (p *hostProcess) terminateStragglers() error {
	if p.group == nil {
		return p.signalGroup(syscall.SIGTERM)
	}
	pids, err := p.group.Processes()
	for _, pid := range pids {
		err = errors.Join(err, ignoreGone(syscall.Kill(pid, syscall.SIGTERM)))
	}
	return err
}

func ignoreGone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

func (p *hostProcess) untilGone(ctx context.Context) bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for p.stragglers() {
		select {
		case <-ctx.Done():
			return !p.stragglers()
		case <-tick.C:
		}
	}
	return true
}

// output carries what a process prints to the writers of its Spec.
type output struct {
	pipes []pipe
	done  sync.WaitGroup
}

type pipe struct {
	from *os.File
	to   io.Writer
}

// openOutput gives the child's first three descriptors and our ends of the pipes.
func openOutput(stdout, stderr io.Writer) (child []*os.File, _ *output, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	child = []*os.File{null}
	out := &output{}
	for _, to := range []io.Writer{stdout, stderr} {
		ours, theirs, err := os.Pipe()
		if err != nil {
			closeAll(child)
			out.close()
			return nil, nil, err
		}
		child = append(child, theirs)
		out.pipes = append(out.pipes, pipe{ours, to})
	}
	return child, out, nil
}

func (o *output) start() {
	for _, p := range o.pipes {
		o.done.Go(p.copy)
	}
}

// copy has a small buffer: there are two of them per awake instance.
func (p pipe) copy() {
	buf := make([]byte, 4<<10)
	for {
		n, err := p.from.Read(buf)
		if n > 0 {
			if _, werr := p.to.Write(buf[:n]); werr != nil {
				p.to = io.Discard // the tenant must never block on our log
			}
		}
		if err != nil {
			return
		}
	}
}

// lastWords is how long output may go on after the tree is gone. It ends at once,
// with the last writer, unless a descriptor was handed to a stranger.
const lastWords = 100 * time.Millisecond

func (o *output) close() {
	for _, p := range o.pipes {
		_ = p.from.SetReadDeadline(time.Now().Add(lastWords)) // fails only on a closed pipe
	}
	o.done.Wait()
	for _, p := range o.pipes {
		_ = p.from.Close() // read ends: nothing to lose
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // duplicates that the child has its own of
	}
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
