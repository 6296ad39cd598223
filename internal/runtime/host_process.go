package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"tenement"
	"tenement/internal/cgroup"
)

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
