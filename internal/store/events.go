package store

import (
	"context"
	"strings"
	"sync"
	"time"

	"tenement"
)

// Two rings: what strangers try cannot push out what anybody else did. They are
// trimmed once in trimEvery events, so that there may be so many more.
const (
	maxEvents         = 100_000
	maxStrangerEvents = 10_000
	trimEvery         = 1000
)

const (
	eventColumns = "id, at, actor, client, action, target, outcome, detail"
	insertEvent  = "INSERT INTO events (at, actor, client, action, target, outcome, detail) VALUES (?, ?, ?, ?, ?, ?, ?)"

	trimEvents = `DELETE FROM events WHERE actor <> 'stranger' AND id <=
		(SELECT id FROM events WHERE actor <> 'stranger' ORDER BY id DESC LIMIT 1 OFFSET ?)`
	trimStrangerEvents = `DELETE FROM events WHERE actor = 'stranger' AND id <=
		(SELECT id FROM events WHERE actor = 'stranger' ORDER BY id DESC LIMIT 1 OFFSET ?)`
)

// AppendEvent adds a line to the audit log, which keeps the last 100,000, and besides
// the last 10,000 of strangers. e's id is not looked at.
func (s *Store) AppendEvent(ctx context.Context, e tenement.Event) error {
	const op = "append event"
	result, err := s.stmts.appendRow.ExecContext(ctx, nanos(e.At), e.Actor, e.From, e.Action, e.Target, e.Outcome, e.Detail)
	if err != nil {
		return s.wrote(ctx, op, err)
	}
	id, err := result.LastInsertId()
	if err == nil {
		s.appended.set(id)
	}
	if err == nil && id%trimEvery == 0 {
		err = s.trim(ctx)
	}
	return s.wrote(ctx, op, err)
}

func (s *Store) trim(ctx context.Context) error {
	if _, err := s.write.ExecContext(ctx, trimEvents, maxEvents); err != nil {
		return err
	}
	_, err := s.write.ExecContext(ctx, trimStrangerEvents, maxStrangerEvents)
	return err
}

// Events lists the last events that q selects, or with q.After the first ones, in the
// order of their ids: at most q.Limit of them; 0 = 1,000.
func (s *Store) Events(ctx context.Context, q tenement.EventQuery) ([]tenement.Event, error) {
	const op = "list events"
	query, args := eventQuery(q)
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, failure(op, err)
	}
	list, err := collect(rows, func(r row) (e tenement.Event, err error) {
		var at int64
		err = r.Scan(&e.ID, &at, &e.Actor, &e.From, &e.Action, &e.Target, &e.Outcome, &e.Detail)
		e.At = fromNanos(at)
		return e, err
	})
	return list, failure(op, err)
}

// ofTenant is what a tenant may know of: what became of its instances. What was refused
// at the door is the business of whoever tried.
const ofTenant = `target LIKE '%:%' AND substr(target, instr(target, ':') + 1) = ? AND
	(actor = ? OR outcome NOT IN ('invalid', 'unauthenticated', 'forbidden', 'not_found'))`

func eventQuery(q tenement.EventQuery) (string, []any) {
	conditions, args := []string{"1"}, []any{}
	where := func(wanted bool, condition string, values ...any) {
		if wanted {
			conditions, args = append(conditions, condition), append(args, values...)
		}
	}
	where(q.Target != "", "target = ?", q.Target)
	where(q.Actor != "", "actor = ?", q.Actor)
	where(q.Action != "", "action = ?", q.Action)
	where(!q.Since.IsZero(), "at >= ?", nanos(q.Since))
	where(!q.Until.IsZero(), "at < ?", nanos(q.Until))
	where(q.After > 0, "id > ?", q.After)
	where(q.Before > 0, "id < ?", q.Before)
	where(q.Tenant != "", ofTenant, q.Tenant, q.Caller)
	limit := q.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	query := "SELECT " + eventColumns + " FROM events WHERE " + strings.Join(conditions, " AND ")
	if q.After > 0 {
		return query + " ORDER BY id LIMIT ?", append(args, limit)
	}
	return "SELECT * FROM (" + query + " ORDER BY id DESC LIMIT ?) ORDER BY id", append(args, limit)
}

// appended is up to where the audit log goes.
type appended struct {
	mu      sync.Mutex
	last    int64         // id
	changed chan struct{} // closed when last changes
}

func (a *appended) set(id int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if id <= a.last {
		return // a later one was quicker to say so
	}
	a.last = id
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *appended) progress() (last int64, changed <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last, a.changed
}

// EventFollower gives events as they are appended. It holds nothing but its place; what
// is trimmed before it comes there, it misses. Its calls come one after the other.
type EventFollower struct {
	store *Store
	query tenement.EventQuery
	after int64 // the last id that was looked at
}

// eventPage is how many events a follower is given at once.
const eventPage = 500

// FollowEvents follows the events that q selects. With q.After it begins right after
// that id; without, with the last q.Limit there are, and if that is 0 with the next one.
// Until and Before are not looked at.
func (s *Store) FollowEvents(q tenement.EventQuery) *EventFollower {
	q.Until, q.Before = time.Time{}, 0
	f := &EventFollower{store: s, query: q, after: q.After}
	if f.after == 0 && q.Limit <= 0 {
		f.after, _ = s.appended.progress()
	}
	return f
}

// UpTo is the id up to which all events that match have been returned.
func (f *EventFollower) UpTo() int64 { return f.after }

// Next returns the next events, at least one, and waits for them. Every one that
// matches is returned once, in the order of ids. An error is CodeCanceled or
// CodeTimeout when ctx has ended, and Next may be called again.
func (f *EventFollower) Next(ctx context.Context) ([]tenement.Event, error) {
	for {
		last, changed := f.store.appended.progress()
		events, err := f.upTo(ctx, last)
		if err != nil {
			return nil, err
		}
		if len(events) > 0 {
			return events, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, failure("follow events", ctx.Err())
		}
	}
}

// upTo is what there is up to the event last.
func (f *EventFollower) upTo(ctx context.Context, last int64) ([]tenement.Event, error) {
	if last <= f.after {
		return nil, nil
	}
	q := f.query
	q.Before = last + 1
	if f.after > 0 { // not the first time
		q.After, q.Limit = f.after, eventPage
	}
	events, err := f.store.Events(ctx, q)
	if err != nil {
		return nil, err
	}
	f.after = last
	if q.After > 0 && len(events) == eventPage { // there may be more
		f.after = events[len(events)-1].ID
	}
	return events, nil
}
