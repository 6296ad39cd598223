package supervisor

import (
	"testing"
	"testing/synctest"
	"time"

	"tenement"
	tenruntime "tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
)

var speaks = withService(func(s *tenement.Service) { s.Ready = tenement.ReadyNotify })

// starting is alice's process while a request waits for it. After synctest.Wait the
// request has been answered, or not.
func (w *world) starting() (p *runtimetest.FakeProcess, answered <-chan error) {
	w.t.Helper()
	answer := make(chan error, 1)
	go func() {
		lease, err := w.Acquire(w.t.Context(), alice)
		if err == nil {
			lease.Release()
		}
		answer <- err
	}()
	synctest.Wait()
	live := w.fake.Live(alice)
	if len(live) != 1 {
		w.t.Fatalf("%d processes", len(live))
	}
	return live[0], answer
}

// speaking is alice's process once it has said that it is ready.
func (w *world) speaking() *runtimetest.FakeProcess {
	w.t.Helper()
	p, answered := w.starting()
	p.Say(tenruntime.Notice{Ready: true})
	if err := <-answered; err != nil {
		w.t.Fatal(err)
	}
	return p
}

func TestReadyWhenItSaysSo(t *testing.T) {
	simulate(t, func(w *world) {
		p, answered := w.starting()
		pass(7 * time.Second)
		w.wantState(alice, tenement.Starting) // though it accepts connections
		p.Say(tenruntime.Notice{Ready: true})
		p.Say(tenruntime.Notice{Ready: true}) // again
		if err := <-answered; err != nil {
			t.Error(err)
		}
		w.wantState(alice, tenement.Ready)
	}, speaks)
}

func TestNeverSaysThatItIsReady(t *testing.T) {
	simulate(t, func(w *world) {
		begun := time.Now()
		_, answered := w.starting()
		if err := <-answered; tenement.CodeOf(err) != tenement.CodeUnavailable {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begun); took != w.service.Timeouts.Startup {
			t.Errorf("after %s", took)
		}
	}, speaks)
}

func TestStartIsExtended(t *testing.T) {
	simulate(t, func(w *world) {
		p, answered := w.starting()
		pass(9 * time.Second)
		p.Say(tenruntime.Notice{Extend: 20 * time.Second})
		p.Say(tenruntime.Notice{Extend: time.Second}) // takes nothing back
		pass(19 * time.Second)
		w.wantState(alice, tenement.Starting)
		p.Say(tenruntime.Notice{Ready: true})
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}, speaks)
}

func TestStartIsNotExtendedForEver(t *testing.T) {
	simulate(t, func(w *world) {
		p, answered := w.starting()
		p.Say(tenruntime.Notice{Extend: 24 * time.Hour})
		if err := <-answered; tenement.CodeOf(err) != tenement.CodeTimeout { // of the request
			t.Errorf("error %v", err)
		}
		pass(99*time.Second - w.service.Timeouts.Wake)
		w.wantState(alice, tenement.Starting)
		pass(time.Second)
		synctest.Wait()
		if p.Terms != 1 {
			t.Errorf("%d SIGTERMs", p.Terms)
		}
	}, speaks)
}

// TestEndsByItself: what is under way ends, what comes waits for the next process, and
// the one that ends is not told to.
func TestEndsByItself(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.speaking()
		lease := w.acquire(alice)
		p.Say(tenruntime.Notice{Stopping: true})
		synctest.Wait()
		w.wantState(alice, tenement.Draining)
		next := make(chan error, 1)
		go func() { next <- w.Start(w.t.Context(), alice) }()
		pass(time.Second)
		w.wantStarts(alice, 1)
		lease.Release()
		synctest.Wait()
		w.wantState(alice, tenement.Stopping)
		p.End(tenement.Exit{Known: true})
		synctest.Wait()
		w.wantStarts(alice, 2)
		w.fake.Live(alice)[0].Say(tenruntime.Notice{Ready: true})
		if err := <-next; err != nil {
			t.Error(err)
		}
		if st, _ := w.Observe(alice); p.Terms != 0 || st.Restarts != 0 {
			t.Errorf("%d SIGTERMs, %d restarts", p.Terms, st.Restarts)
		}
	}, speaks)
}

func TestOnlySaysThatItEnds(t *testing.T) {
	simulate(t, func(w *world) {
		p := w.speaking()
		p.Say(tenruntime.Notice{Stopping: true})
		pass(w.service.Timeouts.Stop)
		synctest.Wait()
		if exit := p.Exit(); exit.Signal != "killed" || p.Terms != 0 {
			t.Errorf("%+v after %d SIGTERMs", exit, p.Terms)
		}
	}, speaks)
}

func TestStopIsExtended(t *testing.T) {
	for name, test := range map[string]struct {
		ask, takes time.Duration
		signal     string
	}{
		"enough":    {ask: 30 * time.Second, takes: 34 * time.Second},
		"too short": {ask: 20 * time.Second, takes: 34 * time.Second, signal: "killed"},
		"for ever":  {ask: 24 * time.Hour, takes: 101 * time.Second, signal: "killed"},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				p := w.speaking()
				go func() {
					pass(5 * time.Second)
					p.Say(tenruntime.Notice{Extend: test.ask})
				}()
				if err := w.Stop(w.t.Context(), alice); err != nil {
					t.Error(err)
				}
				if exit := p.Exit(); exit.Signal != test.signal {
					t.Errorf("ended as %+v", exit)
				}
			}, speaks, always(runtimetest.Behaviour{TermTime: test.takes}))
		})
	}
}

// TestAdoptedWhileStarting: what it said while there was no daemon is not waited for.
func TestAdoptedWhileStarting(t *testing.T) {
	simulate(t, func(w *world) {
		w.starting()
		next := w.handOver()
		if err := next.Start(w.t.Context(), alice); err != nil {
			t.Error(err)
		}
		next.shutDown()
	}, speaks)
}
