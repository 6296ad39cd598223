package store

import (
	"context"
	"time"

	"tenement"
)

// Cron is how far a cron line has come.
type Cron struct {
	Service, Line string
	Schedule      string    // whose times Slot is one of
	Slot          time.Time // for which the line was run last, or when it was first seen
	Reached       string    // the last instance that it was run on for Slot, in the order of names
	Done          bool      // it was run on all of them
}

// PutCron notes how far a line has come, in the place of what was noted before.
func (s *Store) PutCron(ctx context.Context, c Cron) error {
	_, err := s.write.ExecContext(ctx, "INSERT OR REPLACE INTO cron (service, line, schedule, slot, reached, done) VALUES (?, ?, ?, ?, ?, ?)",
		c.Service, c.Line, c.Schedule, nanos(c.Slot), c.Reached, c.Done)
	return s.wrote(ctx, "note a cron line of "+c.Service, err)
}

// DeleteCron forgets a line. It is no error if it is not known.
func (s *Store) DeleteCron(ctx context.Context, service, line string) error {
	_, err := s.write.ExecContext(ctx, "DELETE FROM cron WHERE service = ? AND line = ?", service, line)
	return s.wrote(ctx, "forget a cron line of "+service, err)
}

// Crons lists all lines that are known, in no order.
func (s *Store) Crons(ctx context.Context) ([]Cron, error) {
	const op = "list cron lines"
	rows, err := s.read.QueryContext(ctx, "SELECT service, line, schedule, slot, reached, done FROM cron")
	if err != nil {
		return nil, failure(op, err)
	}
	list, err := collect(rows, func(r row) (c Cron, err error) {
		var slot int64
		err = r.Scan(&c.Service, &c.Line, &c.Schedule, &slot, &c.Reached, &c.Done)
		c.Slot = fromNanos(slot)
		return c, err
	})
	return list, failure(op, err)
}

// CountAfter is how many instances of id's service follow it in the order of names.
func (s *Store) CountAfter(ctx context.Context, id tenement.InstanceID) (n int, err error) {
	err = s.read.QueryRowContext(ctx, "SELECT count(*) FROM instances WHERE service = ? AND name > ?", id.Service, id.Name).Scan(&n)
	return n, failure("count instances of "+id.Service, err)
}
