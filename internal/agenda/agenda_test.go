package agenda

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tenement"
	"tenement/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	alice = tenement.InstanceID{Service: "api", Name: "alice"}
	bob   = tenement.InstanceID{Service: "api", Name: "bob"}
	carol = tenement.InstanceID{Service: "api", Name: "carol"}
)

// every is a schedule of times that are whole multiples of a duration.
type every time.Duration

// Next implements [tenement.Times].
func (e every) Next(t time.Time) time.Time { return t.Truncate(time.Duration(e)).Add(time.Duration(e)) }

// world is an agenda with a fake supervisor, in virtual time.
type world struct {
	*Agenda
	t        *testing.T
	dir      string
	services map[string]*tenement.Service
	stop     func()

	mu     sync.Mutex
	begun  time.Time
	did    []string      // "at api:alice" for each wake, "at api:alice METHOD path" for each request
	fails  error         // of Acquire
	answer time.Duration // how long a request takes
	held   int
	own    map[tenement.InstanceID][]tenement.CronLine
}

func simulate(t *testing.T, lines []tenement.CronLine, test func(w *world)) {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, dir: dir, begun: time.Now(), services: map[string]*tenement.Service{
			"api": {Name: "api", Cron: lines}, "other": {Name: "other"},
		}}
		w.start()
		for _, id := range []tenement.InstanceID{alice, bob, carol, {Service: "other", Name: "dave"}} {
			if _, err := w.Store.Register(t.Context(), id, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		test(w)
		w.stop()
		if w.held != 0 {
			t.Errorf("%d leases are held", w.held)
		}
	})
}

// start begins with what the daemon before has left.
func (w *world) start() {
	w.t.Helper()
	db, err := store.Open(w.t.Context(), filepath.Join(w.dir, ".tenement"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.Agenda = New(Config{
		Store: db, Services: w.services, Acquire: w.acquire,
		SetBusy:   func(context.Context, tenement.InstanceID, time.Time) error { return nil },
		BusyUntil: func(tenement.InstanceID) time.Time { return time.Time{} },
		Host:      func(id tenement.InstanceID) string { return id.Name + ".test" },
		Lines:     w.lines,
		Note:      func(id tenement.InstanceID, text string) { w.note(id, text) },
		Log:       slog.New(slog.NewTextHandler(w.t.Output(), nil)),
	})
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	agenda := w.Agenda
	go func() { defer close(ended); agenda.Run(ctx) }()
	w.stop = func() {
		cancel()
		<-ended
		agenda.Wait()
		if err := errors.Join(agenda.Close(w.t.Context()), db.Close()); err != nil {
			w.t.Error(err)
		}
	}
	synctest.Wait()
}

func (w *world) note(id tenement.InstanceID, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.did = append(w.did, fmt.Sprintf("%v %s %s", time.Since(w.begun), id.Name, text))
}

func (w *world) acquire(_ context.Context, id tenement.InstanceID) (tenement.Lease, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fails != nil {
		return nil, w.fails
	}
	w.held++
	return &fakeLease{world: w, id: id}, nil
}

func (w *world) failWith(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fails = err
}

// wantDone compares what was done since it was asked last.
func (w *world) wantDone(want ...string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.did)
	slices.Sort(want)
	if !slices.Equal(w.did, want) {
		w.t.Errorf("done:\n%s\nwant:\n%s", strings.Join(w.did, "\n"), strings.Join(want, "\n"))
	}
	w.did = nil
}

type fakeLease struct {
	tenement.Lease
	world *world
	id    tenement.InstanceID
}

func (l *fakeLease) Transport() http.RoundTripper { return l }

func (l *fakeLease) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Host != l.id.Name+".test" || r.Header.Get(cronHeader) == "" || r.Header.Get(cronAtHeader) == "" {
		l.world.t.Errorf("asked %s for %s with %v", l.id, r.Host, r.Header)
	}
	l.world.mu.Lock()
	answer := l.world.answer
	l.world.mu.Unlock()
	select {
	case <-time.After(answer):
		return &http.Response{Status: "204 No Content", Body: io.NopCloser(strings.NewReader("done"))}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func (l *fakeLease) Release() {
	l.world.mu.Lock()
	defer l.world.mu.Unlock()
	l.world.held--
}

// pass lets virtual time go by.
func pass(d time.Duration) {
	time.Sleep(d) // virtual
	synctest.Wait()
}

// nightly is a line that runs every so often, its instances spread over that time.
func nightly(often, spread time.Duration) []tenement.CronLine {
	return []tenement.CronLine{{
		Name: "nightly", Schedule: often.String(), Method: "POST", Path: "/run", Spread: spread, Timeout: time.Hour, Times: every(often),
	}}
}

const ran = " cron nightly: POST /run: 204 No Content, after 0s"

// TestCron: the first instance is asked on time, the last one when the spread is over.
func TestCron(t *testing.T) {
	simulate(t, nightly(24*time.Hour, 3*time.Minute), func(w *world) {
		pass(24*time.Hour - time.Second)
		w.wantDone()
		pass(time.Second)
		w.wantDone("24h0m0s alice" + ran)
		pass(3 * time.Minute)
		w.wantDone("24h1m0s bob"+ran, "24h2m0s carol"+ran)
		if err := w.Store.SetSuspended(w.t.Context(), bob, true); err != nil {
			t.Fatal(err)
		}
		pass(24 * time.Hour)
		w.wantDone("48h0m0s alice"+ran, "48h2m0s carol"+ran)
	})
}

// TestCronSpreadIsShort where runs follow closely.
func TestCronSpreadIsShort(t *testing.T) {
	simulate(t, nightly(10*time.Minute, time.Hour), func(w *world) {
		pass(11 * time.Minute)
		w.wantDone("10m0s alice"+ran, "10m20s bob"+ran, "10m40s carol"+ran)
	})
}

// TestCronAcrossDaemons: a run that was begun is gone on with; of those that were missed one
// is made good, unless it is too old.
func TestCronAcrossDaemons(t *testing.T) {
	simulate(t, nightly(4*time.Hour, 3*time.Minute), func(w *world) {
		pass(4*time.Hour + 30*time.Second)
		w.stop()
		w.wantDone("4h0m0s alice" + ran)
		pass(30 * time.Second)
		w.start()
		pass(time.Hour)
		w.wantDone("4h1m0s bob"+ran, "4h2m30s carol"+ran)
		w.stop()
		pass(7*time.Hour + 30*time.Minute) // until 12:31
		w.start()
		pass(time.Hour)
		w.wantDone("12h31m0s alice"+ran, "12h32m0s bob"+ran, "12h33m0s carol"+ran)
		w.stop()
		pass(4 * time.Hour) // until 17:31
		w.start()
		pass(2 * time.Hour)
		w.wantDone()
		pass(time.Hour)
		w.wantDone("20h0m0s alice"+ran, "20h1m0s bob"+ran, "20h2m0s carol"+ran)
	})
}

// TestCronIsReconfigured: other times begin anew, and a line that is gone is forgotten.
func TestCronIsReconfigured(t *testing.T) {
	simulate(t, nightly(24*time.Hour, 0), func(w *world) {
		pass(90 * time.Minute)
		w.Reconfigure(map[string]*tenement.Service{"api": {Name: "api", Cron: nightly(time.Hour, 0)}})
		pass(0)
		w.wantDone() // not for one o'clock
		pass(30 * time.Minute)
		w.wantDone("2h0m0s alice"+ran, "2h0m0s bob"+ran, "2h0m0s carol"+ran)
		w.Reconfigure(map[string]*tenement.Service{})
		pass(time.Hour)
		w.wantDone()
		if list, err := w.Store.Crons(w.t.Context()); len(list) != 0 || err != nil {
			t.Errorf("known are %v, %v", list, err)
		}
	})
}

// TestCronDoesNotOverlap: what still runs is not begun anew, and what lasts too long ends.
func TestCronDoesNotOverlap(t *testing.T) {
	lines := nightly(time.Hour, 0)
	lines[0].Timeout = 90 * time.Minute
	simulate(t, lines, func(w *world) {
		w.mu.Lock()
		w.answer = 3 * time.Hour
		w.mu.Unlock()
		pass(2 * time.Hour)
		left := " cron nightly: left out, because the run before still goes on"
		w.wantDone("2h0m0s alice"+left, "2h0m0s bob"+left, "2h0m0s carol"+left)
		pass(30 * time.Minute)
		late := " cron nightly: POST /run: no whole answer within 1h30m0s, after 1h30m0s"
		w.wantDone("2h30m0s alice"+late, "2h30m0s bob"+late, "2h30m0s carol"+late)
	})
}

// TestCronWaitsForRoom, and reports what keeps it from running.
func TestCronWaitsForRoom(t *testing.T) {
	simulate(t, nightly(24*time.Hour, 0), func(w *world) {
		w.failWith(&tenement.Error{Code: tenement.CodeFull, Op: "start", RetryAfter: 2 * time.Second})
		pass(24*time.Hour + 5*time.Second)
		w.wantDone()
		w.failWith(nil)
		pass(time.Second)
		after := " cron nightly: POST /run: 204 No Content, after 6s"
		w.wantDone("24h0m6s alice"+after, "24h0m6s bob"+after, "24h0m6s carol"+after)
		w.failWith(&tenement.Error{Code: tenement.CodeUnavailable, Op: "start api:alice", Err: errors.New("it crashes")})
		pass(24 * time.Hour)
		failed := " cron nightly: POST /run: start api:alice: it crashes, after 0s"
		w.wantDone("48h0m0s alice"+failed, "48h0m0s bob"+failed, "48h0m0s carol"+failed)
	})
}

// alarm has an instance woken in so long.
func (w *world) alarm(id tenement.InstanceID, name string, in time.Duration) {
	w.t.Helper()
	if err := w.Store.SetAlarm(w.t.Context(), id, name, time.Now().Add(in)); err != nil {
		w.t.Fatal(err)
	}
	w.Poke()
}

// alarms counts those that are set.
func (w *world) alarms(id tenement.InstanceID) int {
	w.t.Helper()
	list, err := w.Store.Alarms(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(list)
}

// TestAlarms: one that cannot wake is tried again, for an hour and no longer, and by the next
// daemon.
func TestAlarms(t *testing.T) {
	simulate(t, nil, func(w *world) {
		w.alarm(alice, "a", time.Hour)
		w.alarm(bob, "b", 2*time.Hour)
		pass(time.Hour - time.Second)
		if n := w.alarms(alice); n != 1 {
			t.Errorf("%d alarms a second before", n)
		}
		pass(time.Second)
		if n := w.alarms(alice); n != 0 {
			t.Errorf("%d alarms when it is time", n)
		}
		w.failWith(&tenement.Error{Code: tenement.CodeUnavailable, Op: "start", RetryAfter: 10 * time.Minute})
		pass(time.Hour + 9*time.Minute)
		w.stop()
		w.failWith(nil)
		w.start()
		if n := w.alarms(bob); n != 1 {
			t.Errorf("%d alarms before the next attempt", n)
		}
		pass(time.Minute)
		if n := w.alarms(bob); n != 0 {
			t.Errorf("%d alarms after it", n)
		}
		w.failWith(errors.New("never"))
		w.alarm(carol, "c", 0)
		pass(time.Hour)
		if n := w.alarms(carol); n != 1 {
			t.Errorf("it is given up after an hour's patience only, and %d are left", n)
		}
		pass(2 * time.Minute)
		if n := w.alarms(carol); n != 0 {
			t.Errorf("%d alarms are left", n)
		}
	})
}

func TestMoments(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"+10m": 10 * time.Minute, " 10m": 10 * time.Minute, "90": 90 * time.Second, "1h30m": 90 * time.Minute,
		"2026-03-01T12:30:00Z": 30 * time.Minute, "2026-03-01T14:30:00 02:00": 30 * time.Minute, "2026-03-01T11:00:00Z": -time.Hour,
		"": -1, "-10m": -1, "noon": -1, "+": -1, "99999999999999": -1, "1e9h": -1,
	} {
		if at, ok := moment(text, now); ok != (want != -1) || ok && !at.Equal(now.Add(want)) {
			t.Errorf("%q is %v, %v", text, at, ok)
		}
	}
}
