package runtime

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"tenement"
)

// The first process of a sandbox.
const (
	mainPID = 1
	mainKey = 0 // what it is found by where it is a process that is asked for, not a group
)

// Run implements [Runtime].
func (b *Sandbox) Run(ctx context.Context, s Spec, within Process) (*Job, error) {
	if s.UID <= 0 {
		return nil, &tenement.Error{Code: tenement.CodeInternal, Op: "run a command in " + s.Instance.String(), Err: errors.New("it has no user id of its own")}
	}
	if within != nil {
		p, err := hostProcessOf(s, within)
		if err != nil {
			return nil, err
		}
		return b.runWithin(ctx, s, p)
	}
	at, err := b.newPlace(ctx, s)
	if err != nil {
		return nil, err
	}
	return b.host.runAt(s, at)
}

// taskBundle is the name of a bundle that belongs to no FIFO.
func taskBundle(id tenement.InstanceID) string {
	return id.Service + "." + id.Name + "." + rand.Text() + ".task"
}

// runWithin starts the task of s in the sandbox of p. The sandbox is asked how it ends on
// the connection on which it was started, as of its main process.
func (b *Sandbox) runWithin(ctx context.Context, s Spec, p *hostProcess) (*Job, error) {
	c, err := s.command(p.ref.Port)
	if err != nil {
		return nil, err
	}
	program, err := c.prepared()
	if err != nil {
		return nil, err
	}
	// Once it is asked for, the answer is awaited: otherwise nobody could end it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.bootTime())
	defer cancel()
	socket := filepath.Join(b.dir, bundleOf(p.ref.Stdout), socketName)
	conn, err := dialControl(ctx, socket)
	if err != nil {
		return nil, taskFailure(s, c, err)
	}
	pid, err := conn.execute(ctx, s.UID, program, s.Task.Files, s.Task.Terminal)
	if err != nil {
		conn.close()
		return nil, taskFailure(s, c, err)
	}
	j := &Job{
		pid: pid,
		wait: func() tenement.Exit { //nolint:contextcheck // for as long as it lives
			status, err := conn.waitFor(context.Background(), pid) //nolint:forbidigo // as above
			conn.close()                                           // which the sandbox waits for at its own end
			if err != nil {
				status = syscall.WaitStatus(unix.SIGKILL) // as all that was in it
			}
			return exitOf(status)
		},
		signal: func(sig syscall.Signal) error { return tell(socket, sig, pid, toGroup) },      //nolint:contextcheck // whoever signals has none
		keys:   func(sig syscall.Signal) error { return tell(socket, sig, pid, toForeground) }, //nolint:contextcheck // as above
		leave:  func() error { return nil },
	}
	return j.start(), nil
}

// adapt is for a task that is the main process of x.
func (x *box) adapt(j *Job, h *handle) {
	socket := filepath.Join(x.dir, socketName)
	j.wait = func() tenement.Exit { return x.wait(h) }
	j.signal = func(sig syscall.Signal) error { return tell(socket, sig, mainPID, toGroup) }
	j.keys = func(sig syscall.Signal) error { return tell(socket, sig, mainKey, toForeground) }
	j.leave = func() error {
		h.close()
		return x.leave()
	}
}

// tell sends a signal into a sandbox. It is harmless once there is nobody, or no sandbox.
func tell(socket string, sig syscall.Signal, pid int, to whom) error {
	ctx, cancel := context.WithTimeout(context.Background(), signalTime) //nolint:forbidigo // the caller has none
	defer cancel()
	c, err := dialControl(ctx, socket)
	if err == nil {
		defer c.close()
		err = c.signal(ctx, sig, pid, to)
	}
	if refused := refusal(""); errors.As(err, &refused) {
		return nil
	}
	for _, gone := range []error{fs.ErrNotExist, unix.ECONNREFUSED, unix.ECONNRESET, unix.EPIPE, io.EOF} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}
