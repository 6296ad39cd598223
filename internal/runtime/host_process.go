package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"tenement"
	"tenement/internal/cgroup"
)

// hostProcess is one process tree on the host.
type hostProcess struct {
	host    *Host
	handle  *handle
	output  *output
	notices *notices      // nil: it says nothing
	wishes  *wishes       // nil: it asks for nothing
	group   *cgroup.Group // nil without cgroups
	at      place
	ref     tenement.Ref

	exited chan struct{}
	exit   tenement.Exit // written before exited is closed
}

func (p *hostProcess) Ref() tenement.Ref       { return p.ref }
func (p *hostProcess) Exited() <-chan struct{} { return p.exited }
func (p *hostProcess) Exit() tenement.Exit     { return p.exit }

func (p *hostProcess) Dial(ctx context.Context) (net.Conn, error) {
	return p.at.dial(ctx)
}

// Notices implements [Process].
func (p *hostProcess) Notices() <-chan Notice {
	if p.notices == nil {
		return nil
	}
	return p.notices.said
}

// has reports whether the process with a pid is of the tree, as far as is known.
func (p *hostProcess) has(pid int) bool {
	if p.at.isolation != tenement.IsolationProcess {
		return true // nobody else is in its network
	}
	if p.group == nil {
		group, err := syscall.Getpgid(pid)
		return err == nil && group == p.ref.PID
	}
	now, err := cgroup.Of(pid)
	return err == nil && (now == p.ref.Cgroup || strings.HasPrefix(now, p.ref.Cgroup+"/"))
}

// Listening implements [Process].
func (p *hostProcess) Listening() (began <-chan struct{}, done func()) {
	return p.host.events.Await(p.at.network, p.at.port)
}

func (p *hostProcess) wait() {
	p.exit = p.at.wait(p.handle)
	if p.group != nil {
		kills, err := p.group.OOMKills()
		p.host.warn("count what was killed for want of memory", err)
		p.exit.OOM = kills > 0 && endedByKill(p.exit)
	}
	close(p.exited)
}

func exitOf(status syscall.WaitStatus) tenement.Exit {
	exit := tenement.Exit{Status: status.ExitStatus(), Known: true} // -1 when signaled
	if status.Signaled() {
		exit.Signal = status.Signal().String()
	}
	return exit
}

// takeOver makes sure that an adopted process is where it was started, and reads on
// where the earlier daemon stopped.
func (p *hostProcess) takeOver(s Spec) error {
	if p.group != nil {
		now, err := cgroup.Of(p.ref.PID)
		if err != nil {
			return err
		}
		if now != p.ref.Cgroup {
			return fmt.Errorf("it is in cgroup %s and not in its own, %s", now, p.ref.Cgroup)
		}
	}
	theirs, out, err := openOutput(p.ref, s)
	if err != nil {
		return err
	}
	closeAll(theirs)
	p.output = out
	out.start()
	p.hearAgain(s)
	p.heedAgain(s)
	return nil
}

// hearAgain takes what the process says from now on. That it is not heard harms it less
// than its end would.
func (p *hostProcess) hearAgain(s Spec) {
	said, err := p.at.hear(s, p.ref)
	if err != nil {
		p.host.warn("hear what an adopted process says of itself", err)
		return
	}
	p.notices = said
	said.start(p.has)
}

// heedAgain answers what the process asks from now on; as hearAgain.
func (p *hostProcess) heedAgain(s Spec) {
	asked, err := p.at.heed(s, p.ref)
	if err != nil {
		p.host.warn("heed what an adopted process asks", err)
		return
	}
	p.wishes = asked
	asked.start(s.Heed, p.has)
}

// end kills the tree, wherever in it the main process is, and releases it.
func (p *hostProcess) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	err := errors.Join(p.handle.signal(syscall.SIGKILL), ignoreGone(p.handle.signalGroup(syscall.SIGKILL)), p.Kill())
	select {
	case <-p.exited:
	case <-ctx.Done():
		return errors.Join(err, p.survives())
	}
	if !until(ctx, func() bool { return p.handle.signalGroup(0) != nil }) {
		err = errors.Join(err, p.survives())
	}
	cancel() // nothing of it is given more time
	return errors.Join(err, p.Release(ctx))
}

func (p *hostProcess) survives() error {
	return fmt.Errorf("processes of the tree of pid %d survive SIGKILL", p.ref.PID)
}

func (p *hostProcess) Signal(sig os.Signal) error {
	number, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("unsupported signal %v", sig)
	}
	return p.at.signal(p.handle, number)
}

// Kill ends the tree: everything in the cgroup, which nothing can leave, or
// everything in the process group, which a program can leave by setsid(2).
func (p *hostProcess) Kill() error {
	if p.group != nil {
		return p.group.Kill()
	}
	return ignoreGone(p.handle.signalGroup(syscall.SIGKILL))
}

// stragglers reports whether something of the tree is alive after its main process.
func (p *hostProcess) stragglers() bool {
	if p.group != nil {
		populated, err := p.group.Populated()
		return err == nil && populated
	}
	return p.handle.signalGroup(0) == nil
}

// killWait bounds the time from SIGKILL to the disappearance of a tree. Only
// processes in uninterruptible sleep take longer than an instant.
const killWait = 10 * time.Second

// Release implements [Process].
func (p *hostProcess) Release(ctx context.Context) error {
	err := p.endStragglers(ctx)
	p.output.close()
	p.notices.close()
	p.wishes.close()
	p.host.warn("remove FIFOs", p.host.outputs.remove(p.ref))
	if err != nil {
		return err // its port stays taken: something may still listen there
	}
	p.handle.close()
	err = p.at.leave()
	if p.group != nil {
		err = errors.Join(err, p.group.Remove())
	}
	return err
}

// Detach implements [Process].
func (p *hostProcess) Detach() {
	p.output.detach()
	p.notices.close()
	p.wishes.close()
	if p.group != nil {
		p.group.Close()
	}
	p.at.detach()
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
		return p.survives()
	}
	return nil
}

func (p *hostProcess) terminateStragglers() error {
	if p.group == nil {
		return ignoreGone(p.handle.signalGroup(syscall.SIGTERM))
	}
	pids, err := p.group.Processes()
	for _, pid := range pids {
		err = errors.Join(err, ignoreGone(syscall.Kill(pid, syscall.SIGTERM)))
	}
	return err
}

func ignoreGone(err error) error {
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

func (p *hostProcess) untilGone(ctx context.Context) bool {
	return until(ctx, func() bool { return !p.stragglers() })
}

// until polls for ok, and reports whether it came before the end of ctx.
func until(ctx context.Context, ok func() bool) bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return ok()
		case <-tick.C:
		}
	}
	return true
}
