package supervisor

import (
	"context"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"tenement"
	"tenement/internal/probe"
	tenruntime "tenement/internal/runtime"
)

// life is one process of an instance. It is the lease it hands out: taking one
// allocates nothing.
type life struct {
	service   *tenement.Service
	base      *tenement.Service // see instance
	process   tenruntime.Process
	transport tenement.Transport
	gate      gate
	startedAt time.Time
	wasReady  bool           // the owner's
	used      tenement.Usage // in all, before released receives
	frost     frost
	busy      busy
	notify    notify

	fate     atomic.Int32    // who sees to its end: nobody yet, watch, or another daemon
	noted    int64           // the last use that was written down; of noteActivity alone
	told     atomic.Bool     // it was told to end: its tree has until hurry to do so
	hurry    context.Context // ends when the tree must be gone
	hurryUp  context.CancelFunc
	probed   chan error // the verdict of the readiness probe
	checked  chan error // the verdict of one health check
	measured chan measurement
	turned   chan error // the outcome of freezing or thawing it
	released chan error // what Release said: all is over
}

var _ tenement.Lease = (*life)(nil)

func newLife(i *instance, p tenruntime.Process) *life {
	l := &life{
		service:   i.service,
		base:      i.base,
		process:   p,
		transport: i.sup.Transport(p.Dial),
		startedAt: time.Now(),
		probed:    make(chan error, 1),
		checked:   make(chan error, 1),
		measured:  make(chan measurement, 1),
		turned:    make(chan error, 1),
		released:  make(chan error, 1),
	}
	l.gate.init()
	l.notify.ready = make(chan struct{}, 1)
	l.hurry, l.hurryUp = context.WithCancel(i.sup.lives)
	return l
}

func (l *life) Service() *tenement.Service   { return l.service }
func (l *life) Transport() http.RoundTripper { return l.transport }
func (l *life) Gone() <-chan struct{}        { return l.process.Exited() }
func (l *life) PID() int                     { return l.process.Ref().PID }
func (l *life) Release()                     { l.gate.leave() }

func (l *life) Dial(ctx context.Context) (net.Conn, error) { return l.process.Dial(ctx) }

// enter takes a lease, unless no more are given. The process may of course end in
// the next instant: whoever holds a lease watches Gone.
func (l *life) enter() bool { return !l.hasExited() && l.gate.enter() }

func (l *life) hasExited() bool {
	select {
	case <-l.process.Exited():
		return true
	default:
		return false
	}
}

// probe finds out, in a goroutine of its own, whether the process becomes ready within
// limit, which the process may have extended. If a request waits, as urgent says, it is
// sent on the connection that was made to find out: the program has that one already.
func (l *life) probe(limit time.Duration, urgent func() bool) {
	ctx, cancel := context.WithCancelCause(l.hurry)
	l.notify.term = newTerm(limit)
	timer := time.AfterFunc(limit, func() { cancel(context.DeadlineExceeded) })
	l.notify.timer = timer
	go func() {
		defer cancel(nil)
		defer timer.Stop()
		l.probed <- l.becomesReady(ctx, urgent)
	}()
}

func (l *life) becomesReady(ctx context.Context, urgent func() bool) error {
	if l.service.Ready == tenement.ReadyNotify && !l.notify.missed {
		return l.notify.awaitReady(ctx)
	}
	began, done := l.process.Listening()
	defer done()
	return probe.Ready(ctx, probe.Target{
		Dial: l.process.Dial, Path: l.service.Health.Path, Began: began,
		Passed: l.service.Listen == tenement.ListenFD,
		Keep: func(conn net.Conn) {
			if urgent() {
				l.transport.Offer(conn)
			} else { // a program that serves one connection at a time would wait for us
				_ = conn.Close()
			}
		},
	})
}

// check asks the health path once.
func (l *life) check(limit time.Duration) {
	ctx, cancel := context.WithTimeout(l.hurry, limit)
	defer cancel()
	l.checked <- probe.Check(ctx, l.process.Dial, l.service.Health.Path)
}

// The values of fate.
const (
	fateOpen = iota
	fateOurs
	fateMoved
)

// watch sees the process out: no tree is left behind. One that ended by itself has
// nothing to save; one that was told to end has its time. One that another daemon has
// meanwhile is that one's to see out.
func (l *life) watch() {
	<-l.process.Exited()
	if !l.fate.CompareAndSwap(fateOpen, fateOurs) {
		l.transport.CloseIdleConnections()
		return
	}
	if !l.told.Load() {
		l.hurryUp()
	}
	l.transport.CloseIdleConnections()
	l.used = l.finalUsage()
	err := l.process.Release(l.hurry)
	l.hurryUp()
	l.released <- err
}

// finalUsage is what an ended process has used, as far as its cgroup tells: Release takes
// that away.
func (l *life) finalUsage() tenement.Usage {
	if l.process.Ref().Cgroup == "" {
		return tenement.Usage{}
	}
	u, err := l.process.Usage()
	if err != nil {
		return tenement.Usage{}
	}
	return u
}

// gate counts leases and can be closed to new ones, in one word, so that the
// decision to sleep and the arrival of a request exclude each other.
type gate struct {
	leases  atomic.Int64  // the count; closed adds math.MinInt64
	lastUse atomic.Int64  // nanoseconds on the clock of sinceStart, of the last leave
	drained chan struct{} // receives when the last lease of a closed gate is returned
}

const gateClosed = math.MinInt64

// processStart makes durations from the monotonic clock, which no change of the
// wall clock can make jump.
var processStart = time.Now()

func (g *gate) init() {
	g.drained = make(chan struct{}, 1)
	g.touch()
}

func (g *gate) touch() { g.lastUse.Store(int64(time.Since(processStart))) }

// usedAt sets the last use to an instant of the wall clock that is past.
func (g *gate) usedAt(at time.Time) {
	g.lastUse.Store(int64(time.Since(processStart) - max(time.Since(at), 0)))
}

// idle is how long nobody has held a lease; 0 while somebody does.
func (g *gate) idle() time.Duration {
	if g.count() > 0 {
		return 0
	}
	return time.Since(processStart) - time.Duration(g.lastUse.Load())
}

// lastActive is the end of the last use, or now while there is one.
func (g *gate) lastActive() time.Time { return time.Now().Add(-g.idle()) }

func (g *gate) count() int { return int(g.leases.Load() &^ gateClosed) }

func (g *gate) enter() bool {
	for {
		n := g.leases.Load()
		if n < 0 {
			return false
		}
		if g.leases.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// hold takes a lease though no more may be given. The caller decides on what is given.
func (g *gate) hold() { g.leases.Add(1) }

func (g *gate) leave() {
	g.touch()
	if g.leases.Add(-1) == gateClosed {
		g.signal()
	}
}

// close refuses new leases; drained receives once none is left. Closing again is harmless.
func (g *gate) close() {
	if g.leases.Or(gateClosed)&^gateClosed == 0 {
		g.signal()
	}
}

// closeIfIdle closes the gate only if nobody holds a lease at that instant.
func (g *gate) closeIfIdle() bool {
	if !g.leases.CompareAndSwap(0, gateClosed) {
		return false
	}
	g.signal()
	return true
}

func (g *gate) reopen() {
	g.leases.And(math.MaxInt64)
	select {
	case <-g.drained:
	default:
	}
}

func (g *gate) signal() {
	select {
	case g.drained <- struct{}{}:
	default:
	}
}
