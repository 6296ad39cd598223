package supervisor

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tenement"
	"tenement/internal/runtime/runtimetest"
)

var (
	carol = tenement.InstanceID{Service: "api", Name: "carol"}
	dave  = tenement.InstanceID{Service: "api", Name: "dave"}
)

const megabyte = 1 << 20

func maxAwake(n int) option {
	return withConfig(func(c *Config) { c.Plan.MaxAwake = n })
}

// scarcity is a machine whose memory is what its processes leave of it.
type scarcity struct {
	total   atomic.Int64
	each    int64 // what a process takes
	stalled chan func()
}

// scarce has a supervisor keep 100 MB of 1,000, of which each process takes 250.
func scarce(s *scarcity) option {
	s.total.Store(1000 * megabyte)
	s.each = 250 * megabyte
	s.stalled = make(chan func(), 1)
	return func(w *world, c *Config) {
		c.Plan.MemoryReserve = 100 * megabyte
		c.Memory = Memory{
			Available: func() (tenement.Bytes, error) {
				return tenement.Bytes(s.total.Load() - s.each*int64(w.fake.LiveTotal())), nil
			},
			Stalls: func(ctx context.Context, stalled func()) error {
				s.stalled <- stalled
				<-ctx.Done()
				return nil
			},
		}
	}
}

// populate wakes instances one after the other, so that the first is unused for longest.
func (w *world) populate(ids ...tenement.InstanceID) {
	w.t.Helper()
	for _, id := range ids {
		w.register(id)
		w.wake(id)
		pass(2 * activityPace)
	}
}

// wantAwake wants these instances, and no others, to have a process.
func (w *world) wantAwake(want ...tenement.InstanceID) {
	w.t.Helper()
	synctest.Wait()
	if n := w.fake.LiveTotal(); n != len(want) {
		w.t.Errorf("%d processes live, want %d", n, len(want))
	}
	for _, id := range want {
		if len(w.fake.Live(id)) != 1 {
			w.t.Errorf("%s is %s, want it awake", id, w.state(id))
		}
	}
}

func (w *world) wantRefusal(id tenement.InstanceID, part string) {
	w.t.Helper()
	begin := time.Now()
	err := w.refusal(id)
	if err.Code != tenement.CodeFull || !strings.Contains(err.Error(), part) || err.Hint == "" || err.RetryAfter == 0 {
		w.t.Errorf("refused with %v, code %s, hint %q, retry after %s; want a text with %q", err, err.Code, err.Hint, err.RetryAfter, part)
	}
	if took := time.Since(begin); took != 0 {
		w.t.Errorf("refused after %s", took)
	}
	w.wantState(id, tenement.Asleep)
}

func TestMaxAwakeEndsWhatIsUnusedLongest(t *testing.T) {
	simulate(t, func(w *world) {
		w.populate(alice, bob)
		w.wake(alice)
		pass(time.Second)
		w.populate(carol)
		w.wantAwake(alice, carol)
		w.populate(bob)
		w.wantAwake(bob, carol)
	}, maxAwake(2))
}

func TestStartWaitsForTheEndOfWhatItReplaces(t *testing.T) {
	simulate(t, func(w *world) {
		w.populate(alice)
		begin := time.Now()
		w.wake(bob)
		if took := time.Since(begin); took.Truncate(100*time.Millisecond) != 3*time.Second {
			t.Errorf("ready after %s", took)
		}
		w.wantAwake(bob)
	}, maxAwake(1), always(runtimetest.Behaviour{TermTime: 2 * time.Second, Release: time.Second}))
}

func TestWhatIsInUseIsNotEndedForOthers(t *testing.T) {
	simulate(t, func(w *world) {
		leases := []tenement.Lease{w.acquire(alice), w.acquire(bob)}
		w.register(carol)
		w.wantRefusal(carol, "max_awake = 2 is reached")
		w.wantAwake(alice, bob)
		leases[1].Release()
		w.wake(carol)
		w.wantAwake(alice, carol)
		leases[0].Release()
	}, maxAwake(2))
}

func TestStartsCountAgainstMaxAwake(t *testing.T) {
	simulate(t, func(w *world) {
		first := async(func() error { return w.request(alice) })
		pass(time.Second)
		w.wantRefusal(bob, "max_awake = 1")
		if err := <-first; err != nil {
			t.Error(err)
		}
		w.wake(bob)
		w.wantAwake(bob)
	}, maxAwake(1), booting(3*time.Second))
}

func TestEachOfManyWakesEndsAnother(t *testing.T) {
	simulate(t, func(w *world) {
		w.populate(alice, bob)
		w.register(carol)
		w.register(dave)
		both := []<-chan error{
			async(func() error { return w.request(carol) }),
			async(func() error { return w.request(dave) }),
		}
		for _, err := range both {
			if err := <-err; err != nil {
				t.Error(err)
			}
		}
		w.wantAwake(carol, dave)
	}, maxAwake(2), always(runtimetest.Behaviour{TermTime: time.Second}))
}

// TestFrozenMakesRoom: an instance that stands still is idle, too.
func TestFrozenMakesRoom(t *testing.T) {
	simulate(t, func(w *world) {
		w.frozen(alice)
		w.populate(bob, carol)
		w.wantAwake(bob, carol)
		w.wantState(alice, tenement.Asleep)
		pass(time.Minute)
		w.wantState(bob, tenement.Frozen)
		w.wake(bob) // thawed, and now used later than carol
		w.wake(alice)
		w.wantAwake(alice, bob)
		w.wantStarts(bob, 1)
	}, maxAwake(2), freezing())
}

// engage keeps id's owner from looking at anything until the func that it returns is called.
func (w *world) engage(id tenement.InstanceID) (release func()) {
	w.t.Helper()
	free := make(chan struct{})
	if err := w.owner(id).send(w.t.Context(), func() { <-free }); err != nil {
		w.t.Fatal(err)
	}
	return func() { close(free) }
}

func TestNobodyIsPutToSleepForTwo(t *testing.T) {
	simulate(t, func(w *world) {
		w.populate(alice, bob)
		release := w.engage(alice)
		first, second := w.evict("test"), w.evict("test")
		if first == nil || second == nil || w.evict("test") != nil {
			t.Fatalf("claims %v and %v, and a third one", first, second)
		}
		if gone := <-second.gone; !gone {
			t.Error("bob was in use")
		}
		w.wantAwake(alice)
		release()
		if gone := <-first.gone; !gone {
			t.Error("alice was in use")
		}
		w.wantAwake()
	})
}

// TestClaimThatComesTooLateIsAnswered: the owner ends before it sees it.
func TestClaimThatComesTooLateIsAnswered(t *testing.T) {
	simulate(t, func(w *world) {
		i, c := newInstance(w.Supervisor, carol), &claim{gone: make(chan bool, 1)}
		i.claimed.Store(c)
		i.goOn()
		if <-c.gone {
			t.Error("it says that a process has ended")
		}
	})
}

func TestRequestThatComesFirstKeepsItsInstance(t *testing.T) {
	simulate(t, func(w *world) {
		w.populate(alice, bob)
		w.register(carol)
		release := w.engage(alice)
		woken := async(func() error { return w.request(carol) })
		synctest.Wait()
		lease := w.acquire(alice)
		release()
		if err := <-woken; err != nil {
			t.Error(err)
		}
		w.wantAwake(alice, carol)
		w.wantStarts(alice, 1)
		lease.Release()
	}, maxAwake(2))
}

func TestWakeThatGaveUpEndsNothingMore(t *testing.T) {
	s := &scarcity{}
	simulate(t, func(w *world) {
		w.populate(alice, bob, carol)
		w.register(dave)
		s.total.Store(599 * megabyte) // two take 500, and 100 is to be kept: two must end
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		if _, err := w.Acquire(ctx, dave); tenement.CodeOf(err) != tenement.CodeTimeout {
			t.Errorf("error %v", err)
		}
		pass(time.Minute)
		w.wantAwake(bob, carol)
		w.wantState(dave, tenement.Asleep)
	}, scarce(s), always(runtimetest.Behaviour{TermTime: 2 * time.Second}))
}

func TestMemoryReserve(t *testing.T) {
	s := &scarcity{}
	simulate(t, func(w *world) {
		lease := w.acquire(alice)
		pass(time.Second)
		w.populate(bob, carol)
		s.total.Store(599 * megabyte)
		w.populate(dave)
		w.wantAwake(alice, dave)
		busy := w.acquire(dave)
		w.wantRefusal(bob, "memory_reserve_mb = 100")
		w.wantAwake(alice, dave)
		busy.Release()
		lease.Release()
	}, scarce(s))
}

func TestMemoryThatCannotBeMeasuredRefusesStarts(t *testing.T) {
	simulate(t, func(w *world) {
		w.refused(alice, tenement.CodeUnavailable)
		w.wantState(alice, tenement.Asleep)
	}, withConfig(func(c *Config) {
		c.Plan.MemoryReserve = megabyte
		c.Memory.Available = func() (tenement.Bytes, error) { return 0, errors.New("no /proc") }
	}))
}

// TestMemoryIsLookedAtWhenAStartBegins: while it was queued, others took what there was.
func TestMemoryIsLookedAtWhenAStartBegins(t *testing.T) {
	s := &scarcity{}
	simulate(t, func(w *world) {
		s.total.Store(349 * megabyte)
		first, second := async(func() error { return w.request(alice) }), async(func() error { return w.request(bob) })
		refused := 0
		for _, err := range []error{<-first, <-second} {
			if tenement.CodeOf(err) == tenement.CodeFull {
				refused++
			}
		}
		if n := w.fake.LiveTotal(); n != 1 || refused != 1 {
			t.Errorf("%d processes live, %d requests were refused", n, refused)
		}
	}, scarce(s), booting(300*time.Millisecond), withConfig(func(c *Config) { c.MaxStarting = 1 }))
}

// replan changes the plan in force.
func (w *world) replan(change func(*Plan)) {
	w.t.Helper()
	p := *w.plan.Load()
	change(&p)
	if err := w.Reconfigure(w.t.Context(), p); err != nil {
		w.t.Fatal(err)
	}
}

func TestPinnedFindsRoomLaterAndIsNotEnded(t *testing.T) {
	simulate(t, func(w *world) {
		lease := w.acquire(bob)
		w.replan(func(p *Plan) { p.Pinned = []tenement.InstanceID{alice} })
		w.wantState(alice, tenement.Backoff)
		w.refused(alice, tenement.CodeFull)
		pass(time.Minute)
		w.wantAwake(bob)
		lease.Release()
		pass(roomPause)
		w.wantAwake(alice)
		w.wantRefusal(bob, "max_awake")
		w.wantAwake(alice)
	}, maxAwake(1))
}

func TestReloadOfMaxAwake(t *testing.T) {
	simulate(t, func(w *world) {
		w.populate(alice, bob, carol)
		w.replan(func(p *Plan) { p.MaxAwake = 2 })
		w.wantAwake(bob, carol)
		w.replan(func(p *Plan) { p.MaxAwake = 3 })
		w.wake(alice)
		w.wantAwake(alice, bob, carol)
	})
}

func TestMaxAwakeHoldsForWhatAnEarlierDaemonLeft(t *testing.T) {
	simulate(t, func(w *world) {
		w.populate(alice, bob, carol)
		w.Plan.MaxAwake = 2
		next := w.handOver()
		next.wantAwake(bob, carol)
		next.wake(alice)
		next.wantAwake(alice, carol)
		next.shutDown()
	})
}

func TestCrashThatFindsNoRoomSleeps(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		w.replan(func(p *Plan) { p.MaxAwake = 2 })
		for range 2 { // the second restart waits for its back-off
			w.fake.Live(alice)[0].End(crash)
			synctest.Wait()
		}
		w.wantState(alice, tenement.Backoff)
		w.register(carol)
		leases := []tenement.Lease{w.acquire(bob), w.acquire(carol)}
		pass(time.Minute)
		w.wantState(alice, tenement.Asleep)
		w.wantAwake(bob, carol)
		for _, lease := range leases {
			lease.Release()
		}
	})
}

func TestStallEndsOneAndThenWhatTheReserveAsksFor(t *testing.T) {
	s := &scarcity{}
	simulate(t, func(w *world) {
		stalled := <-s.stalled
		w.populate(alice, bob, carol)
		stalled()
		w.wantAwake(bob, carol)
		lease := w.acquire(carol)
		s.total.Store(300 * megabyte)
		begin := time.Now()
		stalled()
		w.wantAwake(carol)
		if took := time.Since(begin); took != reliefPause {
			t.Errorf("the stall was over after %s", took)
		}
		stalled() // all is in use
		w.wantAwake(carol)
		lease.Release()
	}, scarce(s))
}

func TestStallsThatNobodyCanTell(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
	}, withConfig(func(c *Config) {
		c.Memory.Stalls = func(context.Context, func()) error {
			return &tenement.Error{Code: tenement.CodeUnavailable, Op: "watch"}
		}
	}))
}

// TestReasonIsKept: why it was put to sleep is in its status, its log and the audit log,
// until it is awake again.
func TestReasonIsKept(t *testing.T) {
	simulate(t, func(w *world) {
		w.populate(alice, bob)
		const want = "put to sleep: max_awake = 1 is reached"
		row, err := w.Store.Instance(w.t.Context(), alice)
		if err != nil || row.Failure.Reason != want || RestingState(row) != tenement.Asleep {
			t.Errorf("the registry says %+v, %v", row.Failure, err)
		}
		events, err := w.Store.Events(w.t.Context(), tenement.EventQuery{Limit: 1})
		if err != nil || len(events) != 1 || events[0].Target != alice.String() || events[0].Action != "sleep" || events[0].Detail != "max_awake = 1 is reached" {
			t.Errorf("the audit log says %+v, %v", events, err)
		}
		if text := w.logged(alice); !strings.Contains(text, want) {
			t.Errorf("her own log says %q", text)
		}
		w.replan(func(p *Plan) { p.MaxAwake = 0 })
		w.wake(alice)
		if st, _ := w.Observe(alice); st.Reason != "" {
			t.Errorf("awake for the reason %q", st.Reason)
		}
		if err := w.Stop(w.t.Context(), alice); err != nil {
			t.Error(err)
		}
		if row, err := w.Store.Instance(w.t.Context(), alice); err != nil || row.Failure.Reason != "" {
			t.Errorf("afterwards the registry says %+v, %v", row.Failure, err)
		}
	}, maxAwake(1))
}
