package store

import (
	"context"

	"tenement"
)

// maxEvents is how many events are kept. They are trimmed once in trimEvery, so
// that there may be so many more.
const (
	maxEvents = 100_000
	trimEvery = 1000
)

const insertEvent = "INSERT INTO events (at, actor, action, target, outcome, detail) VALUES (?, ?, ?, ?, ?, ?)"

// AppendEvent adds a line to the audit log, which keeps the last 100,000.
func (s *Store) AppendEvent(ctx context.Context, e tenement.Event) error {
	const op = "append event"
	result, err := s.stmts.appendRow.ExecContext(ctx, nanos(e.At), e.Actor, e.Action, e.Target, e.Outcome, e.Detail)
	if err != nil {
		return s.wrote(ctx, op, err)
	}
	id, err := result.LastInsertId()
	if err == nil && id%trimEvery == 0 {
		// The ids have no gaps: only the oldest rows are ever deleted.
		_, err = s.write.ExecContext(ctx, "DELETE FROM events WHERE id <= ?", id-maxEvents)
	}
	return s.wrote(ctx, op, err)
}

// Events lists the newest events, newest first: at most limit of them; 0 = 1,000.
func (s *Store) Events(ctx context.Context, limit int) ([]tenement.Event, error) {
	const op = "list events"
	if limit <= 0 {
		limit = defaultLimit
	}
	rows, err := s.read.QueryContext(ctx,
		"SELECT at, actor, action, target, outcome, detail FROM events ORDER BY id DESC LIMIT ?", limit)
	if err != nil {
		return nil, failure(op, err)
	}
	list, err := collect(rows, func(r row) (e tenement.Event, err error) {
		var at int64
		err = r.Scan(&at, &e.Actor, &e.Action, &e.Target, &e.Outcome, &e.Detail)
		e.At = fromNanos(at)
		return e, err
	})
	return list, failure(op, err)
}
