package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tenement"
	"tenement/internal/runtime/runtimetest"
)

// starts records in which order instances are started. A name's letter is its service.
type starts struct {
	mu    sync.Mutex
	order []string
}

func (s *starts) script(id tenement.InstanceID, _ int) runtimetest.Behaviour {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order = append(s.order, id.Name)
	return runtimetest.Behaviour{Boot: 100 * time.Millisecond}
}

func (s *starts) want(t *testing.T, want string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := strings.Join(s.order, " "); got != want {
		t.Errorf("started in the order\n%s, want\n%s", got, want)
	}
}

// oneAtATime simulates services a, b and c with one slot.
func oneAtATime(t *testing.T, test func(w *world, order *starts)) {
	t.Helper()
	order := &starts{}
	simulate(t, func(w *world) { test(w, order) },
		withScript(order.script),
		withConfig(func(c *Config) { c.MaxStarting = 1 }),
		func(w *world, c *Config) {
			for _, name := range []string{"a", "b", "c"} {
				service := *w.service
				service.Name = name
				c.Plan.Services[name] = &service
			}
		})
}

// crowd registers instances and has do done to each, one after the other has come to
// rest; the end of all is waited for by the func that it returns.
func (w *world) crowd(names string, do func(id tenement.InstanceID) error) (wait func()) {
	var group sync.WaitGroup
	for name := range strings.FieldsSeq(names) {
		id := tenement.InstanceID{Service: name[:1], Name: name}
		w.register(id)
		group.Go(func() {
			if err := do(id); err != nil {
				w.t.Errorf("%s: %v", id, err)
			}
		})
		synctest.Wait()
	}
	return group.Wait
}

func (w *world) request(id tenement.InstanceID) error {
	lease, err := w.Acquire(w.t.Context(), id)
	if err == nil {
		lease.Release()
	}
	return err
}

func (w *world) operator(id tenement.InstanceID) error { return w.Start(w.t.Context(), id) }

func TestServicesTakeTurns(t *testing.T) {
	oneAtATime(t, func(w *world, order *starts) {
		w.crowd("a1 a2 a3 a4 b1 c1 c2", w.request)()
		order.want(t, "a1 a2 b1 c1 a3 c2 a4")
	})
}

func TestRequestsGoBeforeTheOperator(t *testing.T) {
	oneAtATime(t, func(w *world, order *starts) {
		started, served := w.crowd("a1 a2 b1", w.operator), w.crowd("c1 c2", w.request)
		started()
		served()
		order.want(t, "a1 c1 c2 a2 b1")
	})
}

func TestOperatorIsLateAndNotNever(t *testing.T) {
	oneAtATime(t, func(w *world, order *starts) {
		first := w.crowd("a0", w.request)
		started := w.crowd("b1 b2", w.operator)
		served := w.crowd("a1 a2 a3 a4 a5 a6 a7 a8 a9 aa ab ac ad ae af", w.request)
		first()
		started()
		served()
		order.want(t, "a0 a1 a2 a3 a4 a5 a6 a7 b1 a8 a9 aa ab ac ad ae b2 af")
	})
}

func TestStartThatARequestJoinsGoesBefore(t *testing.T) {
	oneAtATime(t, func(w *world, order *starts) {
		started := w.crowd("a1 a2 a3 a4", w.operator)
		served := async(func() error { return w.request(tenement.InstanceID{Service: "a", Name: "a4"}) })
		if err := <-served; err != nil {
			t.Error(err)
		}
		started()
		order.want(t, "a1 a4 a2 a3")
	})
}

func TestStartThatRequestsGaveUpFallsBackAndKeepsItsAge(t *testing.T) {
	oneAtATime(t, func(w *world, order *starts) {
		first := w.crowd("a1", w.request)
		started := w.crowd("a2 a3", w.operator)
		ctx, giveUp := context.WithCancel(w.t.Context())
		impatient := w.crowd("a2 a3", func(id tenement.InstanceID) error {
			_, err := w.Acquire(ctx, id)
			if tenement.CodeOf(err) != tenement.CodeCanceled {
				return fmt.Errorf("did not give up: %w", err)
			}
			return nil
		})
		patient := w.crowd("b1 b2 a4", w.request)
		giveUp()
		impatient()
		again := w.crowd("a3", w.request)
		for _, wait := range []func(){first, started, patient, again} {
			wait()
		}
		order.want(t, "a1 a3 b1 a4 b2 a2")
	})
}

func TestStartThatIsCalledOffLeavesTheQueue(t *testing.T) {
	oneAtATime(t, func(w *world, order *starts) {
		first := w.crowd("a1", w.request)
		second := tenement.InstanceID{Service: "a", Name: "a2"}
		w.register(second)
		refused := async(func() error { return w.Start(w.t.Context(), second) })
		synctest.Wait()
		if err := w.Suspend(w.t.Context(), second); err != nil {
			t.Error(err)
		}
		if err := <-refused; tenement.CodeOf(err) != tenement.CodeSuspended {
			t.Errorf("error %v", err)
		}
		first()
		w.crowd("a3", w.request)()
		order.want(t, "a1 a3")
	})
}

// TestAdmissionKeepsItsCount has tickets come and go at random from all sides.
func TestAdmissionKeepsItsCount(t *testing.T) {
	t.Parallel()
	const slots = 3
	a := &admission{free: slots}
	var group sync.WaitGroup
	for n := range 40 {
		group.Go(func() {
			service := string(rune('a' + n%4))
			for round := range 100 {
				ticket := a.ticket(service)
				ticket.enter(n%2 == 0)
				ticket.prefer(round%2 == 0)
				if (n+round)%3 > 0 {
					<-ticket.granted
				}
				ticket.leave()
				ticket.leave()
			}
		})
	}
	group.Wait()
	a.wantEmpty(t, slots)
}

func (a *admission) wantEmpty(t *testing.T, slots int) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.free != slots || len(a.urgent.turns)+len(a.urgent.waiting)+len(a.background.turns)+len(a.background.waiting) > 0 {
		t.Errorf("%d of %d slots are free, %v and %v wait", a.free, slots, a.urgent.turns, a.background.turns)
	}
}

func TestLineForgetsWhoeverIsGone(t *testing.T) {
	t.Parallel()
	a, l := &admission{}, line{}
	var all []*ticket
	for n := range 100 {
		all = append(all, a.ticket(string(rune('a'+n%5))))
		l.add(all[n])
	}
	for _, n := range []int{99, 0, 50} {
		l.remove(all[n])
		l.remove(all[n])
	}
	var got []uint64
	for t := l.pop(); t != nil; t = l.pop() {
		got = append(got, t.serial)
	}
	if len(got) != 97 || len(l.waiting) > 0 || !slices.Equal(got[:5], []uint64{6, 2, 3, 4, 5}) {
		t.Errorf("%d came out, beginning with %v; %d services are kept", len(got), got[:5], len(l.waiting))
	}
}
