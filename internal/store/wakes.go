package store

import (
	"context"
	"database/sql"
	"slices"
	"strings"

	"tenement"
)

// How many records of wakes are kept: of one instance, and in all. The latter is looked to
// once in trimEvery.
const (
	maxWakesOfOne = 100
	maxWakes      = 100_000
)

const (
	wakeColumns = "service, name, at, cause, client, agent, path, queue, spawn, ready, first_byte, outcome, shared"

	// What was deleted meanwhile has no records.
	insertWake = "INSERT INTO wakes (" + wakeColumns + ") SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13" +
		" WHERE EXISTS (SELECT 1 FROM instances WHERE service = ?1 AND name = ?2)"

	trimWakesOfOne = `DELETE FROM wakes WHERE service = ?1 AND name = ?2 AND id <=
		(SELECT id FROM wakes WHERE service = ?1 AND name = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)`
	trimWakes = "DELETE FROM wakes WHERE id <= (SELECT id FROM wakes ORDER BY id DESC LIMIT 1 OFFSET ?)"
)

// AppendWakes keeps records of wakes, whose ids are not looked at, and drops the oldest: the
// last 100 of an instance stay, and the last 100,000 in all.
func (s *Store) AppendWakes(ctx context.Context, list []tenement.WakeRecord) error {
	return s.wrote(ctx, "keep records of wakes", s.inTransaction(ctx, func(tx *sql.Tx) error {
		before, err := lastWake(ctx, tx)
		if err != nil {
			return err
		}
		touched := map[tenement.InstanceID]bool{}
		for _, w := range list {
			_, err := tx.ExecContext(ctx, insertWake, w.Instance.Service, w.Instance.Name, nanos(w.At), w.Cause, w.Client, w.Agent, w.Path,
				w.Queue, w.Spawn, w.Ready, w.FirstByte, w.Outcome, w.Shared)
			if err != nil {
				return err
			}
			touched[w.Instance] = true
		}
		for id := range touched {
			if _, err := tx.ExecContext(ctx, trimWakesOfOne, id.Service, id.Name, maxWakesOfOne); err != nil {
				return err
			}
		}
		after, err := lastWake(ctx, tx)
		if err == nil && after/trimEvery > before/trimEvery {
			_, err = tx.ExecContext(ctx, trimWakes, maxWakes)
		}
		return err
	}))
}

func lastWake(ctx context.Context, tx *sql.Tx) (id int64, err error) {
	err = tx.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM wakes").Scan(&id)
	return id, err
}

// Wakes lists the last records that q selects, oldest first: at most q.Limit; 0 = 1,000.
func (s *Store) Wakes(ctx context.Context, q tenement.WakeQuery) ([]tenement.WakeRecord, error) {
	const op = "list wakes"
	query, args := wakeQuery(q)
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, failure(op, err)
	}
	list, err := collect(rows, func(r row) (w tenement.WakeRecord, err error) {
		var at int64
		err = r.Scan(&w.ID, &w.Instance.Service, &w.Instance.Name, &at, &w.Cause, &w.Client, &w.Agent, &w.Path,
			&w.Queue, &w.Spawn, &w.Ready, &w.FirstByte, &w.Outcome, &w.Shared)
		w.At = fromNanos(at)
		return w, err
	})
	slices.Reverse(list)
	return list, failure(op, err)
}

func wakeQuery(q tenement.WakeQuery) (string, []any) {
	conditions, args := []string{"1"}, []any{}
	where := func(wanted bool, condition string, values ...any) {
		if wanted {
			conditions, args = append(conditions, condition), append(args, values...)
		}
	}
	where(!q.Instance.IsZero(), "service = ? AND name = ?", q.Instance.Service, q.Instance.Name)
	where(q.Tenant != "", "name = ?", q.Tenant)
	where(!q.Since.IsZero(), "at >= ?", nanos(q.Since))
	where(q.Before > 0, "id < ?", q.Before)
	limit := q.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	return "SELECT id, " + wakeColumns + " FROM wakes WHERE " + strings.Join(conditions, " AND ") + " ORDER BY id DESC LIMIT ?", append(args, limit)
}
