package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"tenement"
	"tenement/internal/cgroup"
)

// Task is a command that is started beside an instance's own, or while that sleeps.
type Task struct {
	Args     []string   // the program, looked up as execvp(3) does, and its arguments
	Files    []*os.File // its first three descriptors, which stay the caller's
	Terminal bool       // they are one, by which it is controlled from then on
}

// Job is a task that was started. Its methods may be called concurrently.
type Job struct {
	pid    int // of its main process, as its place counts them
	wait   func() tenement.Exit
	signal func(syscall.Signal) error // to its process group; harmless once that is gone
	keys   func(syscall.Signal) error // to whom its terminal is now; nil: the kernel does it
	group  *cgroup.Group              // its own; nil if it has none
	leave  func() error               // frees what it held

	exited chan struct{}
	exit   tenement.Exit // written before exited is closed
}

// start has j wait for the end of its main process.
func (j *Job) start() *Job {
	j.exited = make(chan struct{})
	go func() {
		j.exit = j.wait()
		close(j.exited)
	}()
	return j
}

// newJob is a task whose main process is a child.
func newJob(child *handle, at place, group *cgroup.Group) *Job {
	j := &Job{
		pid: child.pid, group: group, wait: child.wait,
		signal: func(sig syscall.Signal) error { return ignoreGone(child.signalGroup(sig)) },
		leave: func() error {
			child.close()
			return at.leave()
		},
	}
	if at.adapt != nil {
		at.adapt(j, child)
	}
	return j.start()
}

// Wait waits for the end of its main process and gives the status that a shell would: 128
// and the number of the signal that ended it.
func (j *Job) Wait() int {
	<-j.exited
	if j.exit.Signal == "" {
		return j.exit.Status
	}
	for number := range syscall.Signal(65) {
		if number.String() == j.exit.Signal {
			return 128 + int(number)
		}
	}
	return 255
}

// Signal is for its process group, and harmless once that is gone.
func (j *Job) Signal(sig syscall.Signal) error { return j.signal(sig) }

// Key is for whom its terminal is at that moment, where the kernel sends nobody what a key
// or a new size of the terminal means; otherwise it does nothing.
func (j *Job) Key(sig syscall.Signal) error {
	if j.keys == nil {
		return nil
	}
	return j.keys(sig)
}

// Close ends what is left of it, waits for that and frees what it held. What it has moved
// to another session, within the place of its instance's process, ends with that one. Call
// it once.
func (j *Job) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), killWait) //nolint:forbidigo // whoever closes it has gone
	defer cancel()
	err := j.Signal(syscall.SIGKILL)
	if j.group != nil {
		err = errors.Join(err, j.group.Kill())
	}
	select {
	case <-j.exited:
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("pid %d survives SIGKILL", j.pid))
	}
	if j.group != nil {
		gone := until(ctx, func() bool { populated, err := j.group.Populated(); return err == nil && !populated })
		if !gone {
			return errors.Join(err, fmt.Errorf("processes of the tree of pid %d survive SIGKILL", j.pid))
		}
		err = errors.Join(err, j.group.Remove())
	}
	return errors.Join(err, j.leave())
}

// Run implements [Runtime].
func (h *Host) Run(_ context.Context, s Spec, within Process) (*Job, error) {
	if within != nil {
		p, err := hostProcessOf(s, within)
		if err != nil {
			return nil, err
		}
		return h.runWithin(s, p, h.onHost(p.ref.Port).spawn)
	}
	port, err := h.ports.take()
	if err != nil {
		return nil, err
	}
	return h.runAt(s, h.onHost(port))
}

func hostProcessOf(s Spec, p Process) (*hostProcess, error) {
	found, ok := p.(*hostProcess)
	if !ok {
		return nil, &tenement.Error{Code: tenement.CodeInternal, Op: "run a command in " + s.Instance.String(), Err: errors.New("its process is of another kind")}
	}
	return found, nil
}

// runAt starts the task of s in a place of its own; on an error nothing is left of it.
func (h *Host) runAt(s Spec, at place) (_ *Job, err error) {
	undo := cleanup{func() { h.warn("free the place of a command", at.leave()) }}
	defer undo.unless(&err)
	c, err := s.command(at.port)
	if err != nil {
		return nil, err
	}
	group, attr, err := h.attributes(s)
	if err != nil {
		return nil, err
	}
	if group != nil {
		undo.add(func() { h.warn("remove cgroup", group.Remove()) })
	}
	child, err := startProcess(c, s.Task.Files, s.Task.attributes(attr), group, at.spawn)
	if err != nil {
		return nil, taskFailure(s, c, err)
	}
	return newJob(child, at, group), nil
}

// runWithin starts the task of s where p is, which ends it when it ends itself.
func (h *Host) runWithin(s Spec, p *hostProcess, spawn spawner) (*Job, error) {
	c, err := s.command(p.ref.Port)
	if err != nil {
		return nil, err
	}
	attr := &syscall.SysProcAttr{Setsid: true}
	child, err := startProcess(c, s.Task.Files, s.Task.attributes(attr), p.group, spawn)
	if err != nil {
		return nil, taskFailure(s, c, err)
	}
	return newJob(child, place{leave: func() error { return nil }}, nil), nil
}

func (t *Task) attributes(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
	attr.Setctty, attr.Ctty = t.Terminal, 0
	return attr
}

func taskFailure(s Spec, c command, err error) error {
	if known := (*tenement.Error)(nil); errors.As(err, &known) {
		return err
	}
	return &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "run a command in " + s.Instance.String(), Err: err,
		Hint: fmt.Sprintf("%s or its interpreter is not among what this instance's programs see: `readable` of [service.%s]", c.path, s.Instance.Service),
	}
}

// own is s without its task: what the service's own program is started with.
func (s Spec) own() Spec {
	s.Task = nil
	return s
}

// arguments are those of the task, or the service's.
func (s Spec) arguments(vars tenement.Vars) []string {
	if s.Task != nil {
		return slices.Clone(s.Task.Args)
	}
	var args []string
	for _, word := range s.Service.Command {
		args = append(args, word.Expand(vars))
	}
	return args
}
