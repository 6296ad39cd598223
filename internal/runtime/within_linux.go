package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"tenement"
)

// Run implements [Runtime].
func (n *Namespace) Run(ctx context.Context, s Spec, within Process) (*Job, error) {
	if s.UID <= 0 {
		return nil, &tenement.Error{Code: tenement.CodeInternal, Op: "run a command in " + s.Instance.String(), Err: errors.New("it has no user id of its own")}
	}
	if within != nil {
		p, err := hostProcessOf(s, within)
		if err != nil {
			return nil, err
		}
		return n.host.runWithin(s, p, n.spawnWithin(s, p))
	}
	in, err := n.network.Take(ctx, s.Service.Egress)
	if err != nil {
		return nil, err
	}
	return n.host.runAt(s, n.place(s, in))
}

// spawnWithin starts a command in the namespaces that p has.
func (n *Namespace) spawnWithin(s Spec, p *hostProcess) spawner {
	return func(c command, files []*os.File, attr *syscall.SysProcAttr) (h *handle, err error) {
		attr.Credential = &syscall.Credential{Uid: uint32(s.UID), Gid: uint32(s.UID)}
		err = onThread(func() (err error) {
			if err := n.join(p); err != nil {
				return &tenement.Error{Code: tenement.CodeUnavailable, Op: "run a command in " + s.Instance.String(), Err: err}
			}
			h, err = spawn(c, files, attr)
			return err
		})
		return h, err
	}
}

// join makes the calling thread, which its caller throws away, what p is in all but its
// user id and the second wall: from behind one of its own, a command could neither see
// nor signal what it is there to look at, because Landlock takes them for strangers.
func (n *Namespace) join(p *hostProcess) error {
	if err := n.leaveHost(); err != nil {
		return err
	}
	const all = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	var err error
	if gone := p.handle.control(func(pidfd int) { err = unix.Setns(pidfd, all) }); gone != nil || err != nil {
		return fmt.Errorf("enter the namespaces of pid %d: %w", p.ref.PID, errors.Join(gone, err))
	}
	return confine(func() error { return nil })
}

// reopenable are those of files that a program can open again by their names: not
// anonymous pipes, for which Landlock takes no rule, nor asks.
func reopenable(files []*os.File) []*os.File {
	return slices.DeleteFunc(slices.Clone(files), func(f *os.File) bool {
		var fs unix.Statfs_t
		return unix.Fstatfs(int(f.Fd()), &fs) == nil && fs.Type == unix.PIPEFS_MAGIC
	})
}
