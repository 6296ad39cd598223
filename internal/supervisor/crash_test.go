package supervisor

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tenement"
	"tenement/internal/logs"
	"tenement/internal/runtime/runtimetest"
)

// bootTime is enough for a process that boots at once to be found ready.
const bootTime = 2 * eagerProbe

// Readiness is probed every eagerProbe during the first second, then every slowProbe.
const (
	eagerProbe = time.Millisecond
	slowProbe  = 10 * time.Millisecond
)

var crash = tenement.Exit{Status: 1, Known: true}

func TestCrashIsSeenAtOnceAndRestarted(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice).End(crash)
		pass(bootTime)
		w.wantState(alice, tenement.Ready)
		w.wantStarts(alice, 2)
	})
}

func TestRequestDuringCrashIsServed(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice).End(tenement.Exit{Status: -1, Signal: "killed", Known: true})
		begin := time.Now()
		lease := w.acquire(alice)
		defer lease.Release()
		select {
		case <-lease.Gone():
			t.Error("the lease is on the dead process")
		default:
		}
		if took := time.Since(begin); took > 1100*time.Millisecond {
			t.Errorf("took %s for a boot of 1 s", took)
		}
	}, booting(time.Second))
}

func TestBackoffGrowsAndTheBudgetEnds(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		for n, delay := range []time.Duration{0, time.Second, 2 * time.Second} {
			w.fake.Live(alice)[0].End(crash)
			if delay > 0 {
				pass(delay - time.Millisecond)
				w.wantState(alice, tenement.Backoff)
			}
			pass(time.Millisecond + bootTime)
			w.wantState(alice, tenement.Ready)
			w.wantStarts(alice, n+2)
		}
		w.fake.Live(alice)[0].End(crash)
		pass(0)
		w.wantState(alice, tenement.Failed)
		if n := w.owners(); n != 0 {
			t.Errorf("%d owners: what failed must cost no memory", n)
		}
		err := w.refusal(alice)
		if err.Code != tenement.CodeUnavailable || err.RetryAfter != 8*time.Second {
			t.Errorf("retry after %s", err.RetryAfter)
		}
		pass(err.RetryAfter)
		w.wake(alice)
		w.wantStarts(alice, 5)
	})
}

func TestRequestDoesNotSitOutTheBackoffOfWhatHasServed(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		for range 3 {
			w.fake.Live(alice)[0].End(crash)
			begin := time.Now()
			w.acquire(alice).Release()
			if took := time.Since(begin); took > 110*time.Millisecond {
				t.Errorf("held for %s beside a boot of 100 ms", took)
			}
		}
		w.fake.Live(alice)[0].End(crash)
		synctest.Wait()
		w.refused(alice, tenement.CodeUnavailable) // the budget bounds it
		w.wantStarts(alice, 4)
	}, booting(100*time.Millisecond))
}

func TestRequestDuringBackoffEndsIt(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice).End(crash)
		pass(bootTime)
		w.fake.Live(alice)[0].End(crash)
		pass(100 * time.Millisecond)
		w.wantState(alice, tenement.Backoff)
		begin := time.Now()
		w.acquire(alice).Release()
		if took := time.Since(begin); took > bootTime {
			t.Errorf("held for %s", took)
		}
	})
}

func TestRequestDuringBackoffOfAFailedStartJoinsTheNext(t *testing.T) {
	simulate(t, func(w *world) {
		w.refused(alice, tenement.CodeUnavailable)
		w.refused(alice, tenement.CodeUnavailable)
		w.wantState(alice, tenement.Backoff)
		begin := time.Now()
		w.acquire(alice).Release()
		if took := time.Since(begin).Truncate(10 * time.Millisecond); took != time.Second {
			t.Errorf("held for %s, want the back-off of 1 s", took)
		}
		w.wantStarts(alice, 3)
	}, withScript(func(_ tenement.InstanceID, n int) runtimetest.Behaviour {
		if n < 3 {
			return runtimetest.Behaviour{StartError: &tenement.Error{Code: tenement.CodeUnavailable, Op: "start"}}
		}
		return runtimetest.Behaviour{}
	}))
}

func TestOldCrashesAreForgottenAtSleep(t *testing.T) {
	simulate(t, func(w *world) {
		crashes := func() int {
			row, err := w.Store.Instance(w.t.Context(), alice)
			if err != nil {
				t.Fatal(err)
			}
			return len(row.Failure.Crashes)
		}
		w.wake(alice).End(crash)
		pass(time.Minute)
		if err := w.Stop(w.t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		if n := crashes(); n != 1 {
			t.Errorf("%d crashes are remembered, want 1", n)
		}
		w.wake(alice)
		pass(6 * time.Minute)
		w.wantState(alice, tenement.Asleep)
		if n := crashes(); n != 0 {
			t.Errorf("%d crashes are remembered after the window", n)
		}
	})
}

func TestCrashesDecay(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		for range 10 {
			w.fake.Live(alice)[0].End(crash)
			pass(6 * time.Minute)
			w.wantState(alice, tenement.Ready)
		}
	}, withService(func(s *tenement.Service) { s.Timeouts.Idle = 0 }))
}

func TestFailureIsRememberedAcrossSleep(t *testing.T) {
	simulate(t, func(w *world) {
		for range 3 {
			w.refused(alice, tenement.CodeUnavailable)
		}
		begin := time.Now()
		w.refused(alice, tenement.CodeUnavailable) // the fourth spends the budget
		if took := time.Since(begin).Truncate(time.Second); took != 2*time.Second {
			t.Errorf("the third back-off took %s", took)
		}
		w.wantState(alice, tenement.Failed)
		starts := w.fake.Starts(alice)
		for range 100 {
			w.refused(alice, tenement.CodeUnavailable)
		}
		w.wantStarts(alice, starts)
		if err := w.Stop(w.t.Context(), alice); err != nil { // the operator forgives
			t.Fatal(err)
		}
		w.wantState(alice, tenement.Asleep)
	}, always(runtimetest.Behaviour{Boot: time.Hour, ExitAfter: time.Millisecond, ExitStatus: 3}))
}

func TestRestartModes(t *testing.T) {
	for _, test := range []struct {
		mode   tenement.RestartMode
		status int
		want   tenement.State
	}{
		{tenement.RestartAlways, 0, tenement.Ready},
		{tenement.RestartAlways, 1, tenement.Ready},
		{tenement.RestartOnFailure, 0, tenement.Asleep},
		{tenement.RestartOnFailure, 1, tenement.Ready},
		{tenement.RestartNever, 0, tenement.Asleep},
		{tenement.RestartNever, 1, tenement.Asleep},
	} {
		t.Run(string(test.mode)+" "+string(rune('0'+test.status)), func(t *testing.T) {
			simulate(t, func(w *world) {
				w.wake(alice).End(tenement.Exit{Status: test.status, Known: true})
				pass(bootTime)
				w.wantState(alice, test.want)
				pass(3 * time.Second)
				w.acquire(alice).Release() // a request wakes it in any mode
			}, withService(func(s *tenement.Service) { s.Restart.Mode = test.mode }))
		})
	}
}

// sick answers health checks with status, and everything else with 200.
func sick(status *atomic.Int64) runtimetest.Behaviour {
	return runtimetest.Behaviour{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			rw.WriteHeader(int(status.Load()))
		}
	})}
}

func withHealth(s *tenement.Service) { s.Health.Path = "/health" }

func TestHealthDegradedUnhealthyRestart(t *testing.T) {
	var status atomic.Int64
	status.Store(200)
	simulate(t, func(w *world) {
		w.wake(alice)
		health := func(want tenement.Health, state tenement.State) {
			t.Helper()
			if st, _ := w.Observe(alice); st.Health != want || st.State != state {
				t.Errorf("%s and %s, want %s and %s", st.Health, st.State, want, state)
			}
		}
		pass(10*time.Second + time.Millisecond)
		health(tenement.HealthHealthy, tenement.Ready)
		status.Store(500)
		w.acquire(alice).Release()
		pass(10 * time.Second)
		health(tenement.HealthDegraded, tenement.Ready)
		status.Store(204)
		pass(10 * time.Second)
		health(tenement.HealthHealthy, tenement.Ready)
		status.Store(500)
		w.acquire(alice).Release()
		pass(20 * time.Second)
		health(tenement.HealthDegraded, tenement.Ready)
		status.Store(200) // the next process is well, the third check of this one is due
		w.wantStarts(alice, 1)
		status.Store(503)
		time.AfterFunc(10*time.Second+time.Millisecond, func() { status.Store(200) })
		pass(10*time.Second + 10*time.Millisecond)
		w.wantStarts(alice, 2)
		health(tenement.HealthHealthy, tenement.Ready)
	}, withService(withHealth), withScript(func(tenement.InstanceID, int) runtimetest.Behaviour { return sick(&status) }))
}

// TestHealthChecksFallTogether: of instances that became ready one shortly after the other,
// and answer each in its own time.
func TestHealthChecksFallTogether(t *testing.T) {
	asked := map[tenement.InstanceID][]time.Time{}
	var mu sync.Mutex
	simulate(t, func(w *world) {
		begin := time.Now()
		defer w.acquire(alice).Release() // in use all the time
		pass(130 * time.Millisecond)
		defer w.acquire(bob).Release()
		pass(35 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		for _, id := range []tenement.InstanceID{alice, bob} {
			if len(asked[id]) != 4 { // the first is the probe
				t.Fatalf("%s was asked at %v", id, asked[id])
			}
			for n, at := range asked[id][1:] {
				if at.Sub(begin) != time.Duration(n+1)*10*time.Second {
					t.Errorf("check %d of %s came after %s", n+1, id, at.Sub(begin))
				}
			}
		}
	}, withService(withHealth), withScript(func(id tenement.InstanceID, _ int) runtimetest.Behaviour {
		return runtimetest.Behaviour{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			mu.Lock()
			asked[id] = append(asked[id], time.Now())
			mu.Unlock()
			if id == alice {
				<-time.After(70 * time.Millisecond)
			}
		})}
	}))
}

// TestHealthOfWhatNobodyAsks is looked at every sixth time, until somebody asks.
func TestHealthOfWhatNobodyAsks(t *testing.T) {
	var checks atomic.Int64
	simulate(t, func(w *world) {
		w.wake(alice)
		want := func(n int64) {
			t.Helper()
			if got := checks.Load() - 1; got != n { // the first is the probe
				t.Errorf("%d checks, want %d", got, n)
			}
		}
		pass(59 * time.Second)
		want(0)
		pass(2 * time.Second)
		want(1)
		w.acquire(alice).Release() // after 61 s
		pass(8 * time.Second)
		want(1)
		pass(2 * time.Second)
		want(2)
		pass(50 * time.Second)
		want(2)
		lease := w.acquire(alice)
		pass(30 * time.Second)
		want(5)
		lease.Release()
	}, withService(withHealth), always(runtimetest.Behaviour{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { checks.Add(1) })}))
}

// TestHealthOfMany: where many are awake whom nobody asks, all of them together are checked
// no more often than if they were some hundred, and each once in a while all the same.
func TestHealthOfMany(t *testing.T) {
	var checks atomic.Int64
	const awake = 720 // of which each is checked every 90 s, give or take 30
	simulate(t, func(w *world) {
		for n := range awake {
			id := tenement.InstanceID{Service: alice.Service, Name: "t" + strconv.Itoa(n)}
			w.register(id)
			w.wake(id)
		}
		pass(50 * time.Second)
		if n := checks.Load(); n != awake {
			t.Errorf("%d probes and checks of %d instances", n, awake)
		}
		pass(40 * time.Second)
		if n := checks.Load(); n < awake*5/4 || n > awake*7/4 {
			t.Errorf("%d probes and checks of %d instances, when half are due", n, awake)
		}
		pass(40 * time.Second)
		if n := checks.Load(); n < 2*awake || n > awake*9/4 {
			t.Errorf("%d probes and checks of %d instances, when all are", n, awake)
		}
	}, withService(withHealth), withService(func(s *tenement.Service) { s.Timeouts.Idle = 0 }),
		always(runtimetest.Behaviour{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { checks.Add(1) })}))
}

func TestQuietChecksAreBounded(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		awake               int
		interval            time.Duration
		least, median, most time.Duration
	}{
		{1, 10 * time.Second, time.Minute, time.Minute, time.Minute},
		{480, 10 * time.Second, time.Minute, time.Minute, time.Minute},
		{960, 10 * time.Second, time.Minute, 2 * time.Minute, 3 * time.Minute},
		{100_000, 10 * time.Second, time.Minute, 5 * time.Minute, 9 * time.Minute},
		{960, time.Second, 6 * time.Second, 30 * time.Second, 54 * time.Second},
		{960, time.Minute, 6 * time.Minute, 6 * time.Minute, 6 * time.Minute},
	} {
		for chance, want := range map[float64]time.Duration{0: test.least, 0.5: test.median, 1: test.most} {
			if got := quietFor(test.awake, test.interval, chance); got != want {
				t.Errorf("%d awake, every %s, %.1f: %s, want %s", test.awake, test.interval, chance, got, want)
			}
		}
	}
}

func TestUnhealthyForGoodFails(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		pass(6 * time.Minute)
		w.wantState(alice, tenement.Failed)
	}, withService(withHealth), withService(func(s *tenement.Service) { s.Timeouts.Idle = 0 }),
		withScript(func(tenement.InstanceID, int) runtimetest.Behaviour {
			var asked atomic.Int64
			return runtimetest.Behaviour{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) > 1 { // well when it starts, ill ever after
					rw.WriteHeader(http.StatusInternalServerError)
				}
			})}
		}))
}

func TestHangingHealthCheckDelaysNobody(t *testing.T) {
	simulate(t, func(w *world) {
		w.wake(alice)
		w.wake(bob)
		pass(time.Second)
		w.acquire(alice).Release()
		pass(58 * time.Second)
		if st, _ := w.Observe(bob); st.Health != tenement.HealthHealthy {
			t.Errorf("bob is %s", st.Health)
		}
		w.wantStarts(bob, 1)
		begin := time.Now()
		w.acquire(bob).Release()
		if time.Since(begin) != 0 {
			t.Errorf("bob waited %s", time.Since(begin))
		}
		if w.fake.Starts(alice) < 2 {
			t.Error("alice, who hangs, was not restarted")
		}
	}, withService(withHealth), withScript(func(id tenement.InstanceID, _ int) runtimetest.Behaviour {
		var asked atomic.Int64
		return runtimetest.Behaviour{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if id == alice && asked.Add(1) > 1 {
				<-r.Context().Done()
			}
		})}
	}))
}

func TestWithoutHealthPathNothingIsChecked(t *testing.T) {
	var requests atomic.Int64
	simulate(t, func(w *world) {
		w.wake(alice)
		pass(4 * time.Minute)
		w.wantStarts(alice, 1)
		if st, _ := w.Observe(alice); st.Health != tenement.HealthUnchecked || requests.Load() != 0 {
			t.Errorf("health %s, %d requests", st.Health, requests.Load())
		}
	}, always(runtimetest.Behaviour{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) })}))
}

// TestReasonIsThereBeforeTheAnswer: whoever was told that a start failed finds out why
// from the instance's status, at once.
func TestReasonIsThereBeforeTheAnswer(t *testing.T) {
	simulate(t, func(w *world) {
		for n := range 50 {
			id := tenement.InstanceID{Service: "api", Name: fmt.Sprint("t", n)}
			w.register(id)
			w.refused(id, tenement.CodeUnavailable)
			st, awake := w.Observe(id)
			if !awake {
				row, err := w.Store.Instance(w.t.Context(), id)
				if err != nil {
					w.t.Fatal(err)
				}
				st.Reason = row.Failure.Reason
			}
			if st.Reason == "" {
				w.t.Fatalf("start %d failed for no reason, awake: %v", n, awake)
			}
		}
	}, always(runtimetest.Behaviour{StartError: errors.New("broken")}))
}

func TestEndForWantOfMemoryIsCounted(t *testing.T) {
	simulate(t, func(w *world) {
		for n := range 2 {
			w.wake(alice).End(tenement.Exit{Status: -1, Signal: "killed", Known: true, OOM: true})
			pass(0)
			st, _ := w.Observe(alice)
			if want := "out of memory: ended by the kernel (memory_limit_mb = 64)"; n == 1 && st.Reason != want {
				t.Errorf("the reason is %q, want %q", st.Reason, want)
			}
			pass(time.Minute)
			w.wantState(alice, tenement.Ready)
			if st, _ := w.Observe(alice); st.OOMKills != n+1 || st.Reason != "" {
				t.Errorf("counted %d times, reason %q", st.OOMKills, st.Reason)
			}
		}
		row, err := w.Store.Instance(w.t.Context(), alice)
		if err != nil || row.OOMKills != 2 || len(row.Failure.Crashes) != 2 {
			t.Errorf("on record: %+v, %v", row, err)
		}
		lines, err := w.Logs.Query(w.t.Context(), logs.Query{Instance: alice})
		if err != nil || len(lines) == 0 || !strings.Contains(lines[0].Text, "tenement: out of memory") {
			t.Errorf("its own log says %v, %v", lines, err)
		}
	}, withService(func(s *tenement.Service) { s.Limits.Memory = 64 << 20 }))
}
