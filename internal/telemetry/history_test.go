package telemetry

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

func TestLatencies(t *testing.T) {
	t.Parallel()
	var l latencies
	if median, p95 := l.take(); median != 0 || p95 != 0 {
		t.Errorf("of nothing: %v, %v", median, p95)
	}
	for n := range 100 {
		l.add(time.Duration(n+1) * time.Millisecond)
	}
	median, p95 := l.take()
	atMost(t, median, 50*time.Millisecond)
	atMost(t, p95, 95*time.Millisecond)
	if median, _ := l.take(); median != 0 {
		t.Errorf("what was taken counts again: %v", median)
	}
	for took := time.Microsecond; took < time.Minute; took = took*9/8 + 1 {
		l.add(took)
		median, p95 := l.take()
		atMost(t, median, took)
		if p95 != median {
			t.Errorf("of one request: %v, %v", median, p95)
		}
	}
	for _, extreme := range []time.Duration{-time.Second, 0, 1, time.Hour} {
		l.add(extreme)
		if median, _ := l.take(); median <= 0 {
			t.Errorf("%v counts as %v", extreme, median)
		}
	}
}

// atMost fails unless got is took rounded up, by no more than a quarter and a microsecond.
func atMost(t *testing.T, got, took time.Duration) {
	t.Helper()
	if got < took.Truncate(time.Microsecond) || got > took+took/4+time.Microsecond {
		t.Errorf("%v counts as %v", took, got)
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, h, since := NewLedger(), NewHistory(), time.Now()
		h.Changed(alice, tenement.Asleep, tenement.Starting)
		l.Served(alice, 200, 10*time.Microsecond, 0, 0)
		l.Served(alice, 502, 10*time.Microsecond, 0, 0)
		l.Served(alice, 101, time.Hour, 0, 0) // lasts as long as its client likes

		time.Sleep(SampleStep) // virtual
		l.see(process{alice, since, tenement.Usage{CPU: time.Second, Memory: 100}})
		if all, want := h.Step(l), (Total{Requests: 3, Errors: 1, CPU: time.Second}); all != want {
			t.Errorf("in all %+v, want %+v", all, want)
		}
		time.Sleep(SampleStep) // virtual
		l.see(process{alice, since, tenement.Usage{CPU: 1500 * time.Millisecond, Memory: 200}})
		h.Step(l)
		l.Ended(alice, since, tenement.Usage{CPU: 1500 * time.Millisecond})
		h.Changed(alice, tenement.Stopping, tenement.Asleep)
		time.Sleep(SampleStep) // virtual
		h.Step(l)
		want := tenement.Timeline{
			Step: SampleStep,
			Samples: []tenement.Sample{
				{At: since.Add(SampleStep), Requests: 3, Errors: 1, Median: 12 * time.Microsecond, P95: 12 * time.Microsecond, CPU: time.Second, Memory: 100},
				{At: since.Add(2 * SampleStep), CPU: 500 * time.Millisecond, Memory: 200},
			},
			Changes: []tenement.StateChange{
				{At: since, From: tenement.Asleep, To: tenement.Starting},
				{At: since.Add(2 * SampleStep), From: tenement.Stopping, To: tenement.Asleep},
			},
		}
		if diff := cmp.Diff(want, h.Timeline(alice)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if got := h.Timeline(bob); len(got.Samples)+len(got.Changes) != 0 {
			t.Errorf("another one: %+v", got)
		}
		h.Forget(alice)
		if got := h.Timeline(alice); len(got.Samples)+len(got.Changes) != 0 {
			t.Errorf("deleted: %+v", got)
		}
	})
}

// TestHistoryIsBounded in time, in changes, and in what sleeps.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, h, since := NewLedger(), NewHistory(), time.Now()
		for range 2 * maxSamples {
			time.Sleep(SampleStep) // virtual
			l.see(process{alice, since, tenement.Usage{}})
			h.Step(l)
			h.Changed(alice, tenement.Ready, tenement.Frozen)
		}
		if got := h.Timeline(alice); len(got.Samples) != maxSamples || len(got.Changes) != maxChanges || time.Since(got.Samples[0].At) > historySpan {
			t.Errorf("%d samples since %v, %d changes", len(got.Samples), time.Since(got.Samples[0].At), len(got.Changes))
		}
		for n := range maxResting + 10 {
			h.Changed(tenement.InstanceID{Service: "api", Name: fmt.Sprintf("sleeper-%d", n)}, tenement.Stopping, tenement.Asleep)
			time.Sleep(time.Millisecond) // virtual
		}
		h.Step(l)
		if len(h.lines) != maxResting+1 || h.lines[alice] == nil {
			t.Errorf("%d timelines are kept", len(h.lines))
		}
		if h.lines[tenement.InstanceID{Service: "api", Name: "sleeper-0"}] != nil {
			t.Error("not the one that has slept longest was let go")
		}
		time.Sleep(historySpan + time.Minute) // virtual
		h.Step(l)
		if len(h.lines) != 1 {
			t.Errorf("%d timelines are kept of what has slept for an hour", len(h.lines)-1)
		}
	})
}

// TestHistoryOfALateSample: what an account still has to tell of an instance that was
// deleted is not kept for ever.
func TestHistoryOfALateSample(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, h := NewLedger(), NewHistory()
		l.Served(alice, 200, time.Millisecond, 0, 0)
		h.Step(l)
		if len(h.Timeline(alice).Samples) != 1 {
			t.Error("no sample")
		}
		time.Sleep(historySpan + time.Minute) // virtual
		h.Step(l)
		if len(h.lines) != 0 {
			t.Errorf("%d timelines are kept", len(h.lines))
		}
	})
}

func BenchmarkStep(b *testing.B) {
	l, h, since := NewLedger(), NewHistory(), time.Now()
	var list []process
	for n := range 1000 {
		list = append(list, process{tenement.InstanceID{Service: "api", Name: fmt.Sprintf("tenant-%d", n)}, since, tenement.Usage{Memory: 1}})
	}
	l.see(list...)
	for b.Loop() {
		h.Step(l)
	}
}
