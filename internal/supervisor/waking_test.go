package supervisor

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tenement"
	"tenement/internal/runtime/runtimetest"
)

// told is what an observer was told.
type told struct {
	mu      sync.Mutex
	started int
	wakes   []*tenement.WakeRecord
	ends    []EndReason
	changes []tenement.StateChange
}

func (o *told) option() option {
	return withConfig(func(c *Config) {
		c.Observer = Observer{
			Changed: func(_ tenement.InstanceID, from, to tenement.State) {
				o.mu.Lock()
				defer o.mu.Unlock()
				o.changes = append(o.changes, tenement.StateChange{From: from, To: to})
			},
			Started: func(tenement.InstanceID) { o.mu.Lock(); defer o.mu.Unlock(); o.started++ },
			Woken:   func(w *tenement.WakeRecord) { o.mu.Lock(); defer o.mu.Unlock(); o.wakes = append(o.wakes, w) },
			Ended:   func(_ tenement.InstanceID, e End) { o.mu.Lock(); defer o.mu.Unlock(); o.ends = append(o.ends, e.Why) },
		}
	})
}

// last is the last wake, once there are n in all.
func (o *told) last(t *testing.T, n int) *tenement.WakeRecord {
	t.Helper()
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.wakes) != n {
		t.Fatalf("%d wakes, want %d", len(o.wakes), n)
	}
	return o.wakes[n-1]
}

func (o *told) wantEnds(t *testing.T, want ...EndReason) {
	t.Helper()
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Equal(o.ends, want) {
		t.Errorf("ends %v, want %v", o.ends, want)
	}
}

// ask acquires and releases on behalf of asker.
func (w *world) ask(id tenement.InstanceID, asker *tenement.Asker) <-chan error {
	return async(func() error {
		lease, err := w.Acquire(tenement.WithAsker(w.t.Context(), asker), id)
		if err == nil {
			lease.Release()
		}
		return err
	})
}

func TestWakeRecord(t *testing.T) {
	var o told
	simulate(t, func(w *world) {
		asked := time.Now()
		first := &tenement.Asker{Cause: tenement.CauseRequest, Client: "public", Agent: "curl", Path: "/page"}
		second := &tenement.Asker{Cause: tenement.CauseRequest, Agent: "other"}
		answers := []<-chan error{w.ask(alice, first)}
		synctest.Wait()
		answers = append(answers, w.ask(alice, second), async(func() error { return w.Start(w.t.Context(), alice) }))
		for _, answer := range answers {
			if err := <-answer; err != nil {
				t.Error(err)
			}
		}
		r := o.last(t, 1)
		if r.Instance != alice || r.Cause != tenement.CauseRequest || r.Client != "public" || r.Agent != "curl" || r.Path != "/page" {
			t.Errorf("asked for by %+v", r)
		}
		if r.Shared != 2 || r.Outcome != tenement.WakeOK || !r.At.Equal(asked) {
			t.Errorf("the record is %+v", r)
		}
		if r.Queue != 0 || r.Spawn != 0 || r.Ready < time.Second {
			t.Errorf("phases %s, %s, %s", r.Queue, r.Spawn, r.Ready)
		}
		if first.Wake != r || second.Wake != r {
			t.Error("those who waited do not know for what")
		}
		third := &tenement.Asker{Cause: tenement.CauseRequest}
		if err := <-w.ask(alice, third); err != nil || third.Wake != nil {
			t.Errorf("%v, and who has not waited is told of %+v", err, third.Wake)
		}
		if o.started != 1 {
			t.Errorf("%d processes", o.started)
		}
	}, o.option(), booting(time.Second))
}

// TestEveryChangeIsTold, from one state to the next.
func TestEveryChangeIsTold(t *testing.T) {
	var o told
	simulate(t, func(w *world) {
		if err := w.Start(w.t.Context(), alice); err != nil {
			t.Error(err)
		}
		if err := w.Stop(w.t.Context(), alice); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		o.mu.Lock()
		defer o.mu.Unlock()
		states := []tenement.State{tenement.Asleep}
		for _, c := range o.changes {
			if c.From == c.To || c.From != states[len(states)-1] {
				t.Errorf("after %s it goes from %s to %s", states[len(states)-1], c.From, c.To)
			}
			states = append(states, c.To)
		}
		want := []tenement.State{tenement.Asleep, tenement.Starting, tenement.Ready, tenement.Draining, tenement.Stopping, tenement.Asleep}
		if !slices.Equal(states, want) {
			t.Errorf("it went through %v, want %v", states, want)
		}
	}, o.option(), booting(time.Second))
}

// TestQueuePhase: a start that waits for another one's slot.
func TestQueuePhase(t *testing.T) {
	var o told
	simulate(t, func(w *world) {
		one, two := w.ask(alice, &tenement.Asker{Cause: tenement.CauseRequest}), w.ask(bob, &tenement.Asker{Cause: tenement.CauseRequest})
		if err := <-one; err != nil {
			t.Error(err)
		}
		if err := <-two; err != nil {
			t.Error(err)
		}
		r := o.last(t, 2)
		if r.Queue < 300*time.Millisecond || r.Ready < 300*time.Millisecond {
			t.Errorf("queue %s, ready %s", r.Queue, r.Ready)
		}
		if all := r.Queue + r.Spawn + r.Ready; all != time.Since(r.At) {
			t.Errorf("queue %s, spawn %s and ready %s are not the %s that it took", r.Queue, r.Spawn, r.Ready, time.Since(r.At))
		}
	}, o.option(), booting(300*time.Millisecond), withConfig(func(c *Config) { c.MaxStarting = 1 }))
}

func TestWakesThatFail(t *testing.T) {
	var o told
	simulate(t, func(w *world) {
		w.refused(alice, tenement.CodeUnavailable)
		if r := o.last(t, 1); r.Outcome != string(tenement.CodeUnavailable) || r.Cause != tenement.CauseOperator || r.Shared != 0 {
			t.Errorf("the record is %+v", r)
		}
		pass(time.Hour)
		gaveUp := w.ask(alice, &tenement.Asker{Cause: tenement.CauseRequest})
		pass(time.Second)
		if err := w.Stop(w.t.Context(), alice); err != nil {
			t.Error(err)
		}
		if r := o.last(t, 2); r.Outcome != string(tenement.CodeCanceled) || r.Shared != 1 {
			t.Errorf("the record is %+v", r)
		}
		if err := <-gaveUp; err != nil {
			t.Error(err) // the stop was waited for, and then it was woken
		}
		o.last(t, 3)
	}, o.option(), withScript(func(_ tenement.InstanceID, n int) runtimetest.Behaviour {
		if n == 1 {
			return runtimetest.Behaviour{StartError: &tenement.Error{Code: tenement.CodeUnavailable, Op: "start"}}
		}
		return runtimetest.Behaviour{Boot: 3 * time.Second}
	}))
}

func TestWhyProcessesEnd(t *testing.T) {
	var o told
	simulate(t, func(w *world) {
		w.wake(alice)
		pass(6 * time.Minute)
		o.wantEnds(t, EndIdle)
		w.wake(alice)
		if err := w.Restart(w.t.Context(), alice); err != nil {
			t.Error(err)
		}
		o.wantEnds(t, EndIdle, EndRestart)
		w.wake(alice).End(crash)
		pass(time.Second)
		o.wantEnds(t, EndIdle, EndRestart, EndCrash)
		if r := o.last(t, 4); r.Cause != tenement.CauseRestart {
			t.Errorf("the record is %+v", r)
		}
		if err := w.Stop(w.t.Context(), alice); err != nil {
			t.Error(err)
		}
		o.wantEnds(t, EndIdle, EndRestart, EndCrash, EndStopped)
		w.wake(alice)
		w.wake(bob) // for which there is no room
		o.wantEnds(t, EndIdle, EndRestart, EndCrash, EndStopped, EndEvicted)
		if err := w.Suspend(w.t.Context(), bob); err != nil {
			t.Error(err)
		}
		o.wantEnds(t, EndIdle, EndRestart, EndCrash, EndStopped, EndEvicted, EndSuspended)
	}, o.option(), withConfig(func(c *Config) { c.Plan.MaxAwake = 1 }))
}
