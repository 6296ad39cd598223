package agenda

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"tenement"
	"tenement/internal/store"
)

// A cron line is run on every instance of its service, one after the other in the order of
// their names, spread over a time. How far it has come is one row, and in memory one line:
// instances that sleep cost nothing, whether or not they are due. A line that one instance has
// of its own is an alarm that is set anew before each run (own.go).

const (
	// catchUp is how late a run that was missed is made good, once, however many were missed:
	// no daemon ran, or the machine was switched off.
	catchUp = time.Hour

	// spreadShare: the instances are spread over at most that part of the time until the next
	// run.
	spreadShare = 10

	// roomPatience is how long a run waits for room where all that is awake is in use.
	roomPatience = time.Hour

	// batch is how many instances are read at once.
	batch = 100
)

// The header fields of a request that cron makes, which the proxy lets nobody else use.
const (
	cronHeader   = "X-Tenement-Cron"      // the name of the line
	cronAtHeader = "X-Tenement-Cron-Time" // for when the run was due (RFC 3339)
)

// line is a cron line and how far it has come; the goroutine's of Run.
type line struct {
	tenement.CronLine
	progress store.Cron
	next     time.Time     // when the next instance is due, unless the line is done
	pace     time.Duration // from one instance to the next
}

// runKey is one line on one instance.
type runKey struct {
	id   tenement.InstanceID
	line string
}

// Reconfigure puts other services in the place of those before. What is under way goes on.
func (a *Agenda) Reconfigure(services map[string]*tenement.Service) {
	a.services.Store(&services)
	a.Poke()
}

// readLines takes up the lines of the configuration in force. One that is new, or has other
// times than before, begins now.
func (a *Agenda) readLines(ctx context.Context, services map[string]*tenement.Service) error {
	known, err := a.Store.Crons(ctx)
	if err != nil {
		return err
	}
	before := make(map[[2]string]store.Cron, len(known))
	for _, c := range known {
		before[[2]string{c.Service, c.Line}] = c
	}
	a.lines = nil
	for name, service := range services {
		for _, c := range service.Cron {
			l := &line{CronLine: c}
			at, schedule := [2]string{name, c.Name}, c.Schedule+" "+c.Zone
			l.progress = before[at]
			if l.progress.Schedule != schedule || l.progress.Slot.After(time.Now()) { // the clock was wrong
				l.progress = store.Cron{Service: name, Line: c.Name, Schedule: schedule, Slot: time.Now(), Done: true}
				if err := a.Store.PutCron(ctx, l.progress); err != nil {
					return err
				}
			}
			delete(before, at)
			if err := a.beginSlot(ctx, l); err != nil {
				return err
			}
			a.lines = append(a.lines, l)
		}
	}
	for at := range before {
		if err := a.Store.DeleteCron(ctx, at[0], at[1]); err != nil {
			return err
		}
	}
	return nil
}

// runDue begins the runs that are due, and says when the next one is; the zero time: never.
func (a *Agenda) runDue(ctx context.Context) (next time.Time, err error) {
	if services := a.services.Load(); services != a.read {
		if err := a.readLines(ctx, *services); err != nil {
			return next, err
		}
		a.read = services
	}
	for _, l := range a.lines {
		if err := a.advance(ctx, l); err != nil {
			return next, err
		}
		next = earlier(next, l.due(time.Now()))
	}
	return next, nil
}

// due is when there is something to do for the line, which may be past; zero: never.
func (l *line) due(now time.Time) time.Time {
	if !l.progress.Done {
		return l.next
	}
	return upcoming(l.Times, l.progress.Slot, now)
}

// upcoming is the first of the times after one that is not too late to be made good, which
// may be past; zero: never.
func upcoming(times tenement.Times, after, now time.Time) time.Time {
	if earliest := now.Add(-catchUp); after.Before(earliest) {
		after = earliest
	}
	return times.Next(after)
}

// advance runs the line on as many instances as are due.
func (a *Agenda) advance(ctx context.Context, l *line) error {
	for {
		now := time.Now()
		due := l.due(now)
		if due.IsZero() || due.After(now) {
			return nil
		}
		if l.progress.Done {
			l.progress.Slot, l.progress.Reached, l.progress.Done = latest(l.Times, due, now), "", false
			if err := a.beginSlot(ctx, l); err != nil {
				return err
			}
		}
		if more, err := a.runSome(ctx, l, now); err != nil || !more {
			return err
		}
	}
}

// latest is the last of the times from due to now: of those that were missed only one is
// made good.
func latest(times tenement.Times, due, now time.Time) time.Time {
	for {
		next := times.Next(due)
		if next.IsZero() || next.After(now) {
			return due
		}
		due = next
	}
}

// beginSlot spreads the instances that the line is still to be run on, unless it is done.
func (a *Agenda) beginSlot(ctx context.Context, l *line) error {
	p := &l.progress
	if p.Done {
		return nil
	}
	left, err := a.Store.CountAfter(ctx, tenement.InstanceID{Service: p.Service, Name: p.Reached})
	if err != nil {
		return err
	}
	spread := l.Spread
	if next := l.Times.Next(p.Slot); !next.IsZero() {
		spread = min(spread, next.Sub(p.Slot)/spreadShare)
	}
	l.pace = spread / time.Duration(max(left, 1))
	l.next = time.Now()
	return nil
}

// runSome runs the line on the instances that are due by now, at most a batch of them. More
// says that others may be due as well. An instance is noted as reached before it is asked: it
// is asked at most once, whatever becomes of the daemon.
func (a *Agenda) runSome(ctx context.Context, l *line, now time.Time) (more bool, err error) {
	p := l.progress
	n := batch
	if l.pace > 0 {
		n = int(min(int64(now.Sub(l.next)/l.pace)+1, batch))
	}
	if n = min(n, cap(a.full)-len(a.full)); n == 0 {
		return false, errFull
	}
	rows, err := a.Store.Instances(ctx, store.Filter{Service: p.Service, After: tenement.InstanceID{Service: p.Service, Name: p.Reached}, Limit: n})
	if err != nil {
		return false, err
	}
	var own map[string]bool
	if len(rows) > 0 {
		p.Reached = rows[len(rows)-1].ID.Name
		if own, err = a.Store.WithSetting(ctx, p.Service, CronSetting+p.Line, l.progress.Reached, p.Reached); err != nil {
			return false, err
		}
	}
	p.Done = len(rows) < n
	if err := a.Store.PutCron(ctx, p); err != nil {
		return false, err
	}
	l.progress = p
	l.next = l.next.Add(time.Duration(len(rows)) * l.pace)
	for _, row := range rows {
		if !row.Suspended && !own[row.ID.Name] {
			a.begin(ctx, l.CronLine, row.ID, p.Slot)
		}
	}
	return true, nil
}

// begin runs a line on one instance, in a goroutine, unless the run before still goes on.
func (a *Agenda) begin(ctx context.Context, c tenement.CronLine, id tenement.InstanceID, slot time.Time) {
	key := runKey{id, c.Name}
	if _, running := a.underWay.LoadOrStore(key, nil); running {
		a.Note(id, "cron "+c.Name+": left out, because the run before still goes on")
		return
	}
	a.full <- struct{}{} // runSome has seen that there is room, and nobody else takes it
	a.runs.Go(func() {
		defer a.leave()
		defer a.underWay.Delete(key)
		begun := time.Now()
		// The end of the daemon ends it as it ends a request: with its process.
		outcome, err := a.run(context.WithoutCancel(ctx), c, id, slot)
		if err != nil {
			outcome = err.Error()
		}
		a.Note(id, fmt.Sprintf("cron %s: %s %s: %s, after %s", c.Name, c.Method, c.Path, outcome, time.Since(begun).Round(time.Millisecond)))
	})
}

// run makes the request and reads the whole answer, whose status is the outcome.
func (a *Agenda) run(ctx context.Context, c tenement.CronLine, id tenement.InstanceID, slot time.Time) (outcome string, err error) {
	lease, err := a.acquirePatiently(ctx, id)
	if err != nil {
		return "", err
	}
	defer lease.Release()
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("no whole answer within %s", c.Timeout))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, c.Method, "http://"+a.Host(id)+c.Path, nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("User-Agent", "tenement")
	request.Header.Set(cronHeader, c.Name)
	request.Header.Set(cronAtHeader, slot.UTC().Format(time.RFC3339))
	response, err := lease.Transport().RoundTrip(request)
	if err == nil {
		defer func() { _ = response.Body.Close() }() // its end was read, or the connection is given up
		_, err = io.Copy(io.Discard, response.Body)
		outcome = response.Status
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return outcome, err
}

// acquirePatiently wakes id, and waits for room while all that is awake is in use.
func (a *Agenda) acquirePatiently(ctx context.Context, id tenement.InstanceID) (tenement.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, roomPatience)
	defer cancel()
	for {
		lease, err := a.Acquire(ctx, id)
		if tenement.CodeOf(err) != tenement.CodeFull {
			return lease, err
		}
		select {
		case <-time.After(max(retryAfter(err), time.Second)):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Wait returns when no run is under way any more.
func (a *Agenda) Wait() { a.runs.Wait() }

// NextCron is when one of the lines is run next, or begins to be; zero: never.
func NextCron(lines []tenement.CronLine, now time.Time) (next time.Time) {
	for _, c := range lines {
		next = earlier(next, c.Times.Next(now))
	}
	return next
}

// earlier is the first of two times; zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

var errFull = errors.New("as many instances as may be are under way")
