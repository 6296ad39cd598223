package daemon

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/runtime"
	"tenement/internal/supervisor"
)

// Exec implements [api.Backend].
func (b *backend) Exec(ctx context.Context, id tenement.InstanceID, r api.ExecRequest) (*api.Session, error) {
	return b.session(ctx, id, r, b.supervisor.Exec)
}

// Run implements [api.Backend].
func (b *backend) Run(ctx context.Context, id tenement.InstanceID, r api.ExecRequest) (*api.Session, error) {
	return b.session(ctx, id, r, b.supervisor.RunTask)
}

type startTask func(context.Context, tenement.InstanceID, supervisor.MakeTask) (*runtime.Job, func(), error)

// session starts a command, which ends with the daemon at the latest.
func (b *backend) session(ctx context.Context, id tenement.InstanceID, r api.ExecRequest, start startTask) (*api.Session, error) {
	if _, err := b.row(ctx, id); err != nil {
		return nil, err
	}
	var ends *ends
	job, release, err := start(ctx, id, func(uid int) (_ *runtime.Task, err error) {
		if ends, err = openEnds(r.Size, uid); err != nil {
			return nil, err
		}
		return &runtime.Task{Args: r.Command, Files: ends.theirs, Terminal: r.Size != nil}, nil
	})
	if ends != nil {
		closeFiles(ends.theirs)
	}
	if err != nil {
		if ends != nil {
			closeFiles(ends.ours)
		}
		return nil, err
	}
	session := ends.session
	session.Wait = job.Wait
	if ends.terminal != nil {
		session.Stdin, session.Resize = typing{ends.terminal, job}, resizing(ends.terminal, job)
	}
	session.Signal = func(number int) error { return job.Signal(syscall.Signal(number)) }
	var once sync.Once
	closeAll := func() { //nolint:contextcheck // whoever asked has gone by then
		once.Do(func() {
			if err := job.Close(); err != nil {
				b.daemon.Log.Error("end a command in an instance", "instance", id, "error", err)
			}
			closeFiles(ends.ours)
			release()
		})
	}
	stop := context.AfterFunc(b.serving, closeAll) //nolint:contextcheck // the daemon's end ends it
	session.Close = func() { stop(); closeAll() }
	return &session, nil
}

// ends are both ends of what a command is connected to.
type ends struct {
	session  api.Session
	terminal *runtime.Terminal // or nil
	theirs   []*os.File        // its first three descriptors; some may be the same
	ours     []*os.File
}

// openEnds makes pipes, or a terminal of a size that belongs to uid.
func openEnds(size *api.TermSize, uid int) (*ends, error) {
	if size != nil {
		return openTerminal(*size, uid)
	}
	e := &ends{}
	for n := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			closeFiles(append(e.theirs, e.ours...))
			return nil, err
		}
		if n == 0 {
			r, w = w, r
		}
		e.theirs, e.ours = append(e.theirs, w), append(e.ours, r)
	}
	e.session = api.Session{Stdin: e.ours[0], Stdout: e.ours[1], Stderr: e.ours[2], Resize: func(api.TermSize) error { return nil }}
	return e, nil
}

func openTerminal(size api.TermSize, uid int) (*ends, error) {
	t, err := runtime.OpenTerminal(uid)
	if err != nil {
		return nil, err
	}
	if err := t.Resize(size.Rows, size.Columns); err != nil {
		closeFiles([]*os.File{t.File, t.Other})
		return nil, err
	}
	return &ends{
		session: api.Session{Stdout: t}, terminal: t,
		theirs: []*os.File{t.Other, t.Other, t.Other}, ours: []*os.File{t.File},
	}, nil
}

// typing is the input of a terminal, which has an end only as a key.
type typing struct {
	terminal *runtime.Terminal
	job      *runtime.Job
}

func (t typing) Write(text []byte) (int, error) {
	signals := t.terminal.Keys(text)
	n, err := t.terminal.Write(text)
	for _, signal := range signals {
		err = errors.Join(err, t.job.Key(signal))
	}
	return n, err
}

const endOfTransmission = 4 // Ctrl-D, VEOF (termios(3))

func (t typing) Close() error {
	_, err := t.terminal.Write([]byte{endOfTransmission})
	return err
}

func resizing(t *runtime.Terminal, job *runtime.Job) func(api.TermSize) error {
	return func(s api.TermSize) error {
		return errors.Join(t.Resize(s.Rows, s.Columns), job.Key(syscall.SIGWINCH))
	}
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // some are closed already; nothing of them is to be written
	}
}
