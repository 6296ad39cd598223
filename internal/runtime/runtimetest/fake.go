// Package runtimetest has what tests of runtimes and of their users need: the
// conformance suite, a programmable fake, and a tenant program that misbehaves on
// request.
package runtimetest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"tenement"
	"tenement/internal/runtime"
)

// Behaviour is how one fake process behaves. The zero value is ready at once, serves
// "ok" on every path and ends at once on SIGTERM.
type Behaviour struct {
	StartError error
	Boot       time.Duration // before it accepts connections
	Handler    http.Handler
	ExitAfter  time.Duration // it ends by itself; 0 = it does not
	ExitStatus int
	TermTime   time.Duration // from SIGTERM to its end; < 0 = it ignores SIGTERM
	Release    time.Duration // that the rest of its tree takes to end

	FreezeTime  time.Duration // that it takes to stand still; < 0 = it never does
	Stubborn    bool          // a freeze cannot be called off
	FreezeError error
	ThawTime    time.Duration
	ThawError   error
}

// Fake is a runtime whose processes are goroutines, for tests in virtual time. Its
// methods may be called concurrently.
type Fake struct {
	// Script decides how the nth start (from 1) of an instance behaves; nil: all
	// behave like the zero Behaviour.
	Script func(id tenement.InstanceID, n int) Behaviour

	mu       sync.Mutex
	starts   map[tenement.InstanceID]int
	live     map[tenement.InstanceID][]*FakeProcess
	doubled  []tenement.InstanceID
	starting int // processes started and not yet up
	peak     int // the most of them at any time
	nextPID  int
}

// Starts is how often id was started.
func (f *Fake) Starts(id tenement.InstanceID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.starts[id]
}

// Live is the processes of id that have not been released.
func (f *Fake) Live(id tenement.InstanceID) []*FakeProcess {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*FakeProcess(nil), f.live[id]...)
}

// LiveTotal counts the processes of all instances that have not been released.
func (f *Fake) LiveTotal() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	total := 0
	for _, list := range f.live {
		total += len(list)
	}
	return total
}

// Doubled lists instances that ever had two processes at once.
func (f *Fake) Doubled() []tenement.InstanceID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.doubled
}

// PeakStarting is the most processes that were booting at the same time.
func (f *Fake) PeakStarting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.peak
}

// Start implements runtime.Runtime.
func (f *Fake) Start(_ context.Context, s runtime.Spec) (runtime.Process, error) {
	f.mu.Lock()
	if f.starts == nil {
		f.starts = make(map[tenement.InstanceID]int)
		f.live = make(map[tenement.InstanceID][]*FakeProcess)
	}
	f.starts[s.Instance]++
	var b Behaviour
	if f.Script != nil {
		b = f.Script(s.Instance, f.starts[s.Instance])
	}
	if b.StartError != nil {
		f.mu.Unlock()
		return nil, b.StartError
	}
	if b.Handler == nil {
		b.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	}
	f.nextPID++
	p := &FakeProcess{
		fake: f, id: s.Instance, behaviour: b, pid: f.nextPID,
		up: make(chan struct{}), exited: make(chan struct{}), conns: make(chan net.Conn), notices: make(chan runtime.Notice),
	}
	f.live[s.Instance] = append(f.live[s.Instance], p)
	if len(f.live[s.Instance]) > 1 {
		f.doubled = append(f.doubled, s.Instance)
	}
	f.starting++
	f.peak = max(f.peak, f.starting)
	f.mu.Unlock()
	p.run()
	return p, nil
}

// Adopt implements runtime.Runtime. A fake process lives on until it ends, whoever
// started it.
func (f *Fake) Adopt(_ context.Context, s runtime.Spec, ref tenement.Ref) (runtime.Process, error) {
	for _, p := range f.Live(s.Instance) {
		if p.Ref() == ref && !p.hasEnded() {
			return p, nil
		}
	}
	return nil, &tenement.Error{Code: tenement.CodeNotFound, Op: "adopt", Err: errors.New("no such process")}
}

// Run implements runtime.Runtime: it fails.
func (f *Fake) Run(context.Context, runtime.Spec, runtime.Process) (*runtime.Job, error) {
	return nil, &tenement.Error{Code: tenement.CodeUnavailable, Op: "run", Err: errors.New("a fake runs no commands")}
}

// FakeProcess is one process of a [Fake].
type FakeProcess struct {
	fake      *Fake
	id        tenement.InstanceID
	behaviour Behaviour
	pid       int
	up        chan struct{}
	exited    chan struct{}
	conns     chan net.Conn
	notices   chan runtime.Notice

	mu     sync.Mutex
	exit   tenement.Exit
	ended  bool
	booted bool
	Terms  int           // SIGTERMs received
	frozen chan struct{} // closed when it goes on; nil while it runs

	Detached, Released, Freezes atomic.Int32 // how often
}

func (p *FakeProcess) run() {
	boot := time.AfterFunc(p.behaviour.Boot, func() {
		p.bootedNow()
		close(p.up)
	})
	var exit *time.Timer
	if p.behaviour.ExitAfter > 0 {
		exit = time.AfterFunc(p.behaviour.ExitAfter, func() {
			p.End(tenement.Exit{Status: p.behaviour.ExitStatus, Known: true})
		})
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.awaitThaw()
		p.behaviour.Handler.ServeHTTP(w, r)
	})
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Hour}
	go func() { _ = server.Serve(connListener{p}) }()
	go func() {
		<-p.exited
		boot.Stop()
		if exit != nil {
			exit.Stop()
		}
		p.bootedNow()
		_ = server.Close()
	}()
}

func (p *FakeProcess) bootedNow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.booted {
		return
	}
	p.booted = true
	p.fake.mu.Lock()
	p.fake.starting--
	p.fake.mu.Unlock()
}

// End makes the process end as if by itself.
func (p *FakeProcess) End(exit tenement.Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended = true
		p.exit = exit
		close(p.exited)
	}
}

// Ref implements runtime.Process.
func (p *FakeProcess) Ref() tenement.Ref {
	return tenement.Ref{PID: p.pid, BootID: runtime.BootID(), Isolation: tenement.IsolationProcess}
}

// Exited implements runtime.Process.
func (p *FakeProcess) Exited() <-chan struct{} { return p.exited }

// Exit implements runtime.Process.
func (p *FakeProcess) Exit() tenement.Exit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit
}

// Dial implements runtime.Process.
func (p *FakeProcess) Dial(ctx context.Context) (net.Conn, error) {
	select {
	case <-p.exited:
		return nil, syscall.ECONNREFUSED
	case <-p.up:
	default:
		return nil, syscall.ECONNREFUSED
	}
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.exited:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Listening implements runtime.Process; nobody tells.
func (p *FakeProcess) Listening() (began <-chan struct{}, done func()) { return nil, func() {} }

// Notices implements runtime.Process; see [FakeProcess.Say].
func (p *FakeProcess) Notices() <-chan runtime.Notice { return p.notices }

// Say makes the process say something of itself. It returns when that was taken.
func (p *FakeProcess) Say(n runtime.Notice) { p.notices <- n }

// Signal implements runtime.Process; only SIGTERM means anything.
func (p *FakeProcess) Signal(sig os.Signal) error {
	if sig != syscall.SIGTERM {
		return nil
	}
	p.mu.Lock()
	p.Terms++
	p.mu.Unlock()
	if p.behaviour.TermTime >= 0 {
		go func() {
			p.awaitThaw()
			time.AfterFunc(p.behaviour.TermTime, func() { p.End(tenement.Exit{Known: true}) })
		}()
	}
	return nil
}

// Kill implements runtime.Process.
func (p *FakeProcess) Kill() error {
	p.End(tenement.Exit{Status: -1, Signal: "killed", Known: true})
	return nil
}

// Freeze implements runtime.Process: no request is answered and no SIGTERM heard until
// Thaw. What the Behaviour says of its end comes all the same, as an OOM kill does.
func (p *FakeProcess) Freeze(ctx context.Context) error {
	p.Freezes.Add(1)
	if p.behaviour.Stubborn {
		ctx = context.WithoutCancel(ctx)
	}
	if err := p.behaviour.FreezeError; err != nil {
		return err
	}
	var stands <-chan time.Time
	if p.behaviour.FreezeTime >= 0 {
		stands = time.After(p.behaviour.FreezeTime)
	}
	select {
	case <-stands:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.exited:
		return errors.New("it has ended")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == nil {
		p.frozen = make(chan struct{})
	}
	return nil
}

// Thaw implements runtime.Process.
func (p *FakeProcess) Thaw() error {
	if err := p.behaviour.ThawError; err != nil {
		return err
	}
	select {
	case <-time.After(p.behaviour.ThawTime):
	case <-p.exited:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen != nil {
		close(p.frozen)
		p.frozen = nil
	}
	return nil
}

// Frozen implements runtime.Process.
func (p *FakeProcess) Frozen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frozen != nil
}

// awaitThaw returns when p runs, or has ended.
func (p *FakeProcess) awaitThaw() {
	p.mu.Lock()
	frozen := p.frozen
	p.mu.Unlock()
	if frozen == nil {
		return
	}
	select {
	case <-frozen:
	case <-p.exited:
	}
}

// Usage implements runtime.Process.
func (p *FakeProcess) Usage() (tenement.Usage, error) { return tenement.Usage{}, nil }

func (p *FakeProcess) hasEnded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// Detach implements runtime.Process.
func (p *FakeProcess) Detach() { p.Detached.Add(1) }

// Release implements runtime.Process.
func (p *FakeProcess) Release(ctx context.Context) error {
	p.Released.Add(1)
	if p.behaviour.Release > 0 {
		timer := time.NewTimer(p.behaviour.Release)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	f := p.fake
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.live[p.id] {
		if other == p {
			f.live[p.id] = append(f.live[p.id][:i:i], f.live[p.id][i+1:]...)
		}
	}
	return nil
}

// connListener hands the connections of Dial to the process's HTTP server.
type connListener struct{ p *FakeProcess }

func (l connListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.p.conns:
		return c, nil
	case <-l.p.exited:
		return nil, net.ErrClosed
	}
}

func (l connListener) Close() error   { return nil }
func (l connListener) Addr() net.Addr { return &net.UnixAddr{Name: "fake", Net: "unix"} }
