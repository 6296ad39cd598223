package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tenement"
	"tenement/internal/disk"
	"tenement/internal/logs"
	tenruntime "tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
	"tenement/internal/store"
)

var (
	alice = tenement.InstanceID{Service: "api", Name: "alice"}
	bob   = tenement.InstanceID{Service: "api", Name: "bob"}
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a supervisor with a fake runtime and everything else real.
type world struct {
	*Supervisor
	t       *testing.T
	fake    *runtimetest.Fake
	service *tenement.Service
	dir     string
	cancel  context.CancelFunc
	done    chan error
	closers []func() error

	unregistered bool // alice and bob are not in the registry
}

type option func(*world, *Config)

func withService(change func(*tenement.Service)) option {
	return func(w *world, _ *Config) { change(w.service) }
}

func withScript(script func(id tenement.InstanceID, n int) runtimetest.Behaviour) option {
	return func(w *world, _ *Config) { w.fake.Script = script }
}

func withConfig(change func(*Config)) option {
	return func(_ *world, c *Config) { change(c) }
}

func withoutRegistration() option {
	return func(w *world, _ *Config) { w.unregistered = true }
}

func always(b runtimetest.Behaviour) option {
	return withScript(func(tenement.InstanceID, int) runtimetest.Behaviour { return b })
}

// simulate runs test in virtual time against a world whose registry knows alice and
// bob, and checks the invariants when it ends.
func simulate(t *testing.T, test func(w *world), options ...option) {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dir, options...)
		if !w.unregistered {
			w.register(alice)
			w.register(bob)
		}
		test(w)
		if !w.leaving.Load() { // else its successor was shut down
			w.shutDown()
		}
	})
}

func newWorld(t *testing.T, dir string, options ...option) *world {
	t.Helper()
	w := &world{t: t, fake: &runtimetest.Fake{}, dir: dir, service: &tenement.Service{
		Name: "api", Isolation: tenement.IsolationProcess, Persist: true,
		Command: []tenement.Template{tenement.MustTemplate("api")},
		DataDir: filepath.Join(dir, "api"),
		Create:  tenement.CreateExplicit,
		Timeouts: tenement.Timeouts{
			Idle: 5 * time.Minute, Startup: 10 * time.Second, Wake: 40 * time.Second,
			Request: 30 * time.Second, Drain: 10 * time.Second, Stop: 10 * time.Second,
		},
		Restart: tenement.RestartPolicy{
			Mode: tenement.RestartOnFailure, Max: 3, Window: 5 * time.Minute,
			BackoffBase: time.Second, BackoffMax: time.Minute,
		},
		Health: tenement.HealthCheck{Interval: 10 * time.Second},
	}}
	root, err := disk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), filepath.Join(dir, ".tenement"))
	if err != nil {
		t.Fatal(err)
	}
	captured, err := logs.Open(t.Context(), filepath.Join(dir, ".tenement"), logs.Limits{}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	w.closers = []func() error{captured.Close, db.Close, root.Close}
	c := Config{
		Store: db, Disk: root, Logs: captured,
		Plan:       Plan{Services: map[string]*tenement.Service{"api": w.service}},
		Runtimes:   map[tenement.Isolation]tenruntime.Runtime{tenement.IsolationProcess: w.fake},
		Transport:  testTransport,
		Deleted:    func(tenement.InstanceID) {},
		MaxWaiting: 1000,
		Log:        slog.New(failOnError{t: t, Handler: slog.NewTextHandler(t.Output(), nil)}),
	}
	for _, o := range options {
		o(w, &c)
	}
	w.run(c)
	return w
}

func (w *world) run(c Config) {
	w.t.Helper()
	w.Supervisor = New(c)
	ctx, cancel := context.WithCancel(w.t.Context())
	w.cancel = cancel
	w.done = make(chan error, 1)
	ready := make(chan struct{})
	go func() { w.done <- w.Run(ctx, ready) }()
	select {
	case <-ready:
	case err := <-w.done:
		w.t.Fatal(err)
	}
}

// handOver ends w's supervisor and gives all it had to another one.
func (w *world) handOver() *world {
	w.t.Helper()
	w.Leave()
	w.cancel()
	if err := <-w.done; err != nil {
		w.t.Fatal(err)
	}
	next := *w
	next.run(w.Config)
	return &next
}

// failOnError makes a test fail when the supervisor reports a fault of its own.
type failOnError struct {
	t *testing.T
	slog.Handler
}

func (h failOnError) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		h.t.Errorf("logged: %s", r.Message)
	}
	return h.Handler.Handle(ctx, r)
}

func testTransport(dial func(context.Context) (net.Conn, error)) tenement.Transport {
	return testPool{&http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}}
}

// testPool makes each connection itself.
type testPool struct{ *http.Transport }

func (testPool) Offer(conn net.Conn) { _ = conn.Close() }

// shutDown ends the daemon and checks that nothing is left of it.
func (w *world) shutDown() {
	w.t.Helper()
	w.cancel()
	if err := <-w.done; err != nil {
		w.t.Error(err)
	}
	w.invariants()
	if n := w.fake.LiveTotal(); n != 0 {
		w.t.Errorf("%d processes are left", n)
	}
	refs, err := w.Store.Processes(context.Background())
	if err != nil || len(refs) != 0 {
		w.t.Errorf("the store still knows processes %v, error %v", refs, err)
	}
	if n := w.waiting.Load(); n != 0 {
		w.t.Errorf("%d requests are still counted as waiting", n)
	}
	w.admission.wantEmpty(w.t, w.MaxStarting)
	if n := w.room.taken.Load(); n != 0 {
		w.t.Errorf("%d places are still taken", n)
	}
	for _, closer := range w.closers {
		if err := closer(); err != nil {
			w.t.Error(err)
		}
	}
}

// invariants hold at every instant.
func (w *world) invariants() {
	w.t.Helper()
	if doubled := w.fake.Doubled(); len(doubled) > 0 {
		w.t.Errorf("more than one live process at a time: %v", doubled)
	}
	if most, n := w.plan.Load().MaxAwake, w.fake.LiveTotal(); most > 0 && n > most {
		w.t.Errorf("%d processes live, and max_awake is %d", n, most)
	}
	for _, st := range w.Awake() {
		if st.Leases < 0 || st.Waiting < 0 {
			w.t.Errorf("%s: %d leases, %d waiting", st.ID, st.Leases, st.Waiting)
		}
		if st.Leases > 0 && !st.State.HasProcess() {
			w.t.Errorf("%s is %s with %d leases", st.ID, st.State, st.Leases)
		}
		for _, p := range w.fake.Live(st.ID) {
			if st.Leases > 0 && p.Frozen() {
				w.t.Errorf("%s is %s with %d leases on what is frozen", st.ID, st.State, st.Leases)
			}
		}
	}
}

func (w *world) register(id tenement.InstanceID) {
	w.t.Helper()
	if _, err := w.Register(w.t.Context(), id); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) acquire(id tenement.InstanceID) tenement.Lease {
	w.t.Helper()
	lease, err := w.Acquire(w.t.Context(), id)
	if err != nil {
		w.t.Fatalf("acquire %s: %v", id, err)
	}
	return lease
}

// wake makes id ready and leaves it without a lease.
func (w *world) wake(id tenement.InstanceID) *runtimetest.FakeProcess {
	w.t.Helper()
	w.acquire(id).Release()
	live := w.fake.Live(id)
	if len(live) != 1 {
		w.t.Fatalf("%d processes of %s", len(live), id)
	}
	return live[0]
}

// refused acquires id and wants an error with code.
func (w *world) refused(id tenement.InstanceID, code tenement.Code) {
	w.t.Helper()
	if got := w.refusal(id).Code; got != code {
		w.t.Fatalf("acquire %s: code %s, want %s", id, got, code)
	}
}

// refusal acquires id and wants an error of ours.
func (w *world) refusal(id tenement.InstanceID) *tenement.Error {
	w.t.Helper()
	lease, err := w.Acquire(w.t.Context(), id)
	if err == nil {
		lease.Release()
	}
	var ours *tenement.Error
	if !errors.As(err, &ours) {
		w.t.Fatalf("acquire %s: error %v, want one with a code", id, err)
	}
	return ours
}

// state is id's, from its owner or from the registry.
func (w *world) state(id tenement.InstanceID) tenement.State {
	w.t.Helper()
	if st, ok := w.Observe(id); ok {
		return st.State
	}
	row, err := w.Store.Instance(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return RestingState(row)
}

func (w *world) wantState(id tenement.InstanceID, want tenement.State) {
	w.t.Helper()
	synctest.Wait()
	if got := w.state(id); got != want {
		w.t.Errorf("%s is %s, want %s", id, got, want)
	}
}

func (w *world) wantStarts(id tenement.InstanceID, want int) {
	w.t.Helper()
	if got := w.fake.Starts(id); got != want {
		w.t.Errorf("%s was started %d times, want %d", id, got, want)
	}
}

// owners counts the instances that cost memory.
func (w *world) owners() int {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return len(w.awake)
}

// async runs do and gives what it returned.
func async[T any](do func() T) <-chan T {
	c := make(chan T, 1)
	go func() { c <- do() }()
	return c
}

// pass lets virtual time go by; everything due is done when it returns.
func pass(d time.Duration) {
	time.Sleep(d) // virtual
	synctest.Wait()
}
