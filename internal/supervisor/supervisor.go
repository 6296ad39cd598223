// Package supervisor keeps each instance in the state that its goal and its traffic
// ask for; it is the only code that starts or stops processes.
//
// What is awake has one goroutine, its owner, which alone changes its state and is
// reached through an inbox. What sleeps is a row in the store and nothing else.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"tenement"
	"tenement/internal/disk"
	"tenement/internal/logs"
	tenruntime "tenement/internal/runtime"
	"tenement/internal/store"
)

// Config is what a supervisor works with. Every field but Recipe, Heed, Observer, Memory
// and Log is required.
type Config struct {
	Store    *store.Store
	Disk     *disk.Root
	Logs     *logs.Store
	Runtimes map[tenement.Isolation]tenruntime.Runtime
	Plan     Plan // the first one
	// Transport makes the connection pool of one process life.
	Transport func(dial func(context.Context) (net.Conn, error)) tenement.Transport
	// Heed answers what a process of an instance asks of us, until the listener is closed;
	// nil: they may ask nothing. It is called before Run is ready, too.
	Heed func(tenement.InstanceID, net.Listener)
	// Recipe is how id is started, given the recipe of its service, with further variables
	// that only its process is to see; nil: just so.
	Recipe func(ctx context.Context, id tenement.InstanceID, service *tenement.Service) (*tenement.Service, map[string]tenement.Secret, error)
	// Deleted is told when an instance is no longer registered.
	Deleted func(tenement.InstanceID)
	// Sweep ends what earlier daemons left running, except adopted. It is called once,
	// before anything is started.
	Sweep func(ctx context.Context, adopted []tenement.Ref)

	Observer    Observer
	MaxStarting int // processes being started at once; 0 = one per core, and one
	MaxWaiting  int // requests held at once, in all
	Memory      Memory
	Log         *slog.Logger
}

// Supervisor owns every awake instance. Its methods may be called concurrently.
type Supervisor struct {
	Config
	plan    atomic.Pointer[Plan]
	waiting atomic.Int64 // requests held, of all instances

	admission admission
	room      room
	measuring chan struct{} // one element while a data directory is measured

	behind atomic.Bool // the store was not told something that it is to know

	mu     sync.RWMutex
	awake  map[tenement.InstanceID]*instance
	closed bool
	// leaving: the instances pass to another daemon, and their processes live on.
	leaving atomic.Bool
	moved   map[tenement.InstanceID]*life // the processes that were left, once Run has ended

	owners sync.WaitGroup
	// lives ends when processes may no longer be started or kept: after Run has
	// stopped everything. It is not the context of any request or of Run.
	lives context.Context
	end   context.CancelFunc
}

// spareStarting is how many starts are under way beyond the number of cores: while one is
// made ready and does not compute yet, the cores have others. More would make the first
// answers late (decision 25).
const spareStarting = 1

// New allocates; nothing runs before [Supervisor.Run].
func New(c Config) *Supervisor {
	if c.MaxStarting == 0 {
		c.MaxStarting = runtime.NumCPU() + spareStarting
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Supervisor{
		Config: c,

		admission: admission{free: c.MaxStarting},
		measuring: make(chan struct{}, 1),

		awake: make(map[tenement.InstanceID]*instance),
		moved: make(map[tenement.InstanceID]*life),
	}
	s.plan.Store(&c.Plan)
	return s
}

// Run takes over what an earlier daemon left running, starts the pinned instances, and
// blocks until ctx ends; then it puts every instance to sleep, all at once, and waits
// for that, or leaves them all running if [Supervisor.Leave] was called. Call it once;
// other methods may be called when ready is closed.
func (s *Supervisor) Run(ctx context.Context, ready chan<- struct{}) error {
	s.lives, s.end = context.WithCancel(context.WithoutCancel(ctx))
	defer s.end()
	if err := s.takeOver(ctx); err != nil {
		return err
	}
	pinned := s.plan.Load().Pinned
	if err := s.registerPinned(ctx, pinned); err != nil {
		return err
	}
	close(ready)
	s.trim()
	s.startPinned(pinned) //nolint:contextcheck // as long as the supervisor
	s.goUnlessClosed(func() { s.relieve(ctx) })
	s.noteActivity(ctx)
	s.close()
	s.owners.Wait()
	return nil
}

func (s *Supervisor) registerPinned(ctx context.Context, pinned []tenement.InstanceID) error {
	for _, id := range pinned {
		if _, err := s.Store.Register(ctx, id, time.Now()); err != nil {
			return fmt.Errorf("register %s: %w", id, err)
		}
	}
	return nil
}

// startPinned waits for nothing. A failure is in the instance's own log and state.
func (s *Supervisor) startPinned(pinned []tenement.InstanceID) {
	for _, id := range pinned {
		s.goUnlessClosed(func() {
			ctx := tenement.WithAsker(s.lives, &tenement.Asker{Cause: tenement.CausePinned})
			if err := s.Start(ctx, id); err != nil {
				s.Log.Warn("pinned instance did not start", "instance", id, "error", err)
			}
		})
	}
}

// goUnlessClosed runs do in a goroutine that Run waits for.
func (s *Supervisor) goUnlessClosed(do func()) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.closed {
		s.owners.Go(do)
	}
}

// close asks every owner to end its instance and refuses new ones.
func (s *Supervisor) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, i := range s.awake {
		close(i.shutdown)
	}
}

// Acquire gives a lease on id's process, waking it if need be. The caller must
// release it. The wait is bounded by ctx and by the service's wake timeout.
//
// Whom ctx names (see [tenement.WithAsker]) is told of the wake that it has waited for.
//
// Codes: not_found; suspended; unavailable, with RetryAfter, when it cannot be
// started now; full when too many requests are held, or when all that is awake is
// in use and leaves no room; timeout; canceled.
func (s *Supervisor) Acquire(ctx context.Context, id tenement.InstanceID) (tenement.Lease, error) {
	return s.acquire(ctx, id, true)
}

// AcquireLater is Acquire for what can wait: starts that a request waits for come first.
func (s *Supervisor) AcquireLater(ctx context.Context, id tenement.InstanceID) (tenement.Lease, error) {
	return s.acquire(ctx, id, false)
}

// thawPatience is how long Ready waits for a process to go on, which takes a millisecond.
const thawPatience = 100 * time.Millisecond

// Ready is Acquire for an instance that has a process that serves at this instant, or in
// the next: one that is frozen goes on. It starts nothing; false says that there is none.
func (s *Supervisor) Ready(ctx context.Context, id tenement.InstanceID) (tenement.Lease, bool) {
	i := s.owner(id)
	if i == nil {
		return nil, false
	}
	if lease, ok := i.lease(); ok {
		return lease, true
	}
	if st := i.published.Load(); st == nil || st.State != tenement.Frozen {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, thawPatience)
	defer cancel()
	lease, err := s.await(ctx, id, true)
	return lease, err == nil
}

// lease is to be had at this instant; false: it is not.
func (i *instance) lease() (tenement.Lease, bool) {
	l := i.serving.Load()
	if l == nil || !l.enter() {
		return nil, false
	}
	return l, true
}

// acquire is Acquire; request is false when only the operator waits.
func (s *Supervisor) acquire(ctx context.Context, id tenement.InstanceID, request bool) (tenement.Lease, error) {
	if i := s.owner(id); i != nil {
		if lease, ok := i.lease(); ok {
			return lease, nil
		}
	}
	return s.await(ctx, id, request)
}

// owner is the owner of id, or nil. It may end at any time: only summon holds it.
func (s *Supervisor) owner(id tenement.InstanceID) *instance {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.awake[id]
}

// await is the slow half of Acquire: the instance is not ready.
func (s *Supervisor) await(ctx context.Context, id tenement.InstanceID, request bool) (tenement.Lease, error) {
	service := s.service(id)
	if service == nil {
		return nil, Unknown(id)
	}
	if s.waiting.Add(1) > int64(s.MaxWaiting) {
		s.waiting.Add(-1)
		return nil, &tenement.Error{
			Code: tenement.CodeFull, Op: "wake " + id.String(),
			Err:        fmt.Errorf("%d requests are waiting for instances already", s.MaxWaiting),
			RetryAfter: time.Second,
		}
	}
	defer s.waiting.Add(-1)
	ctx, cancel := context.WithTimeoutCause(ctx, service.Timeouts.Wake, &tenement.Error{
		Code: tenement.CodeTimeout, Op: "wake " + id.String(),
		Err: fmt.Errorf("not ready within %s", service.Timeouts.Wake),
	})
	defer cancel()
	i, err := s.summon(id)
	if err != nil {
		return nil, err
	}
	defer i.dismiss()
	if request {
		i.requests.Add(1)
		defer i.requestGone()
	}
	return i.wait(ctx)
}

// summon returns the owner of id, started if there is none, and holds it: it does
// not end before dismiss. Whether id is registered at all is the owner's to find
// out, so that one actor alone reads and writes about an instance.
func (s *Supervisor) summon(id tenement.InstanceID) (*instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, s.stopped(id)
	}
	i := s.awake[id]
	if i == nil {
		i = newInstance(s, id)
		s.awake[id] = i
		s.owners.Go(i.run)
	}
	i.held.Add(1)
	return i, nil
}

// retire removes an owner nobody holds; false means that somebody came in between.
func (s *Supervisor) retire(i *instance) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i.held.Load() > 0 {
		return false
	}
	delete(s.awake, i.id)
	return true
}

// Unknown is the error about an instance that is not registered: CodeNotFound.
func Unknown(id tenement.InstanceID) error {
	return &tenement.Error{
		Code: tenement.CodeNotFound, Op: "find " + id.String(),
		Err:  errors.New("no such instance"),
		Hint: "register it: ten spawn " + id.String(),
	}
}

// Serves reports whether id has a process that is or was ready and lives, frozen or not.
// It costs one look-up.
func (s *Supervisor) Serves(id tenement.InstanceID) bool {
	i := s.owner(id)
	return i != nil && i.serving.Load() != nil
}

// countAwake is how many instances have an owner now.
func (s *Supervisor) countAwake() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.awake)
}

// Awake lists the instances that have an owner now, in no order.
func (s *Supervisor) Awake() []tenement.Status {
	s.mu.RLock()
	owners := make([]*instance, 0, len(s.awake))
	for _, i := range s.awake {
		owners = append(owners, i)
	}
	s.mu.RUnlock()
	list := make([]tenement.Status, 0, len(owners))
	for _, i := range owners {
		if st, ok := i.observe(); ok {
			list = append(list, st)
		}
	}
	return list
}

// Observe is the status of id as its owner last published it; false when it has no
// owner, in which case the registry says all there is.
func (s *Supervisor) Observe(id tenement.InstanceID) (tenement.Status, bool) {
	if i := s.owner(id); i != nil {
		return i.observe()
	}
	return tenement.Status{}, false
}
