package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"tenement"
)

// maxUsageAge is how long it is known what an instance has used: a year and a bit more, so
// that years can be compared.
const maxUsageAge = 400 * 24 * time.Hour

const (
	usageColumns = "hour, service, name, awake, cpu, memory, requests, bytes_in, bytes_out, storage"

	addUsage = "INSERT INTO usage (" + usageColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)" +
		" ON CONFLICT DO UPDATE SET awake = awake + excluded.awake, cpu = cpu + excluded.cpu, memory = memory + excluded.memory," +
		" requests = requests + excluded.requests, bytes_in = bytes_in + excluded.bytes_in, bytes_out = bytes_out + excluded.bytes_out," +
		" storage = iif(excluded.storage > 0, excluded.storage, storage)"
)

// AddUsage adds rows to what is known of their hours, where what they say of storage holds, all or none, and forgets what is older
// than 400 days.
func (s *Store) AddUsage(ctx context.Context, rows []tenement.UsageHour) error {
	return s.wrote(ctx, "note what was used", s.inTransaction(ctx, func(tx *sql.Tx) error {
		add, err := tx.PrepareContext(ctx, addUsage)
		if err != nil {
			return err
		}
		defer add.Close()
		var newest time.Time
		for _, u := range rows {
			if _, err := add.ExecContext(ctx, nanos(u.Hour), u.Instance.Service, u.Instance.Name, u.Awake, u.CPU, u.MemoryByteSeconds, u.Requests, u.BytesIn, u.BytesOut, u.Storage); err != nil {
				return err
			}
			if u.Hour.After(newest) {
				newest = u.Hour
			}
		}
		_, err = tx.ExecContext(ctx, "DELETE FROM usage WHERE hour < ?", nanos(newest.Add(-maxUsageAge)))
		return err
	}))
}

// usagePage is how many rows a page has, or, if more than these are of one hour, all of that.
const usagePage = 10_000

// Usage lists the hours that q selects, by hour, service and name. A page has whole hours:
// unless next is zero, there are more from that one on.
func (s *Store) Usage(ctx context.Context, q tenement.UsageQuery) (list []tenement.UsageHour, next time.Time, err error) {
	return s.usage(ctx, q, usagePage)
}

func (s *Store) usage(ctx context.Context, q tenement.UsageQuery, page int) (list []tenement.UsageHour, next time.Time, err error) {
	const op = "list what was used"
	if next, err = s.nextUsage(ctx, q, page); err != nil {
		return nil, next, failure(op, err)
	}
	if !next.IsZero() {
		q.Until = next
	}
	condition, args := usageCondition(q)
	rows, err := s.read.QueryContext(ctx, "SELECT "+usageColumns+" FROM usage WHERE "+condition+" ORDER BY hour, service, name", args...)
	if err != nil {
		return nil, next, failure(op, err)
	}
	list, err = collect(rows, scanUsage)
	return list, next, failure(op, err)
}

// nextUsage is the first hour that the page before it has no room for; zero: it has all.
func (s *Store) nextUsage(ctx context.Context, q tenement.UsageQuery, page int) (time.Time, error) {
	condition, args := usageCondition(q)
	var hours [2]int64 // the first one, and the one of the first row that is too much
	for i, offset := range []int{0, page} {
		err := s.read.QueryRowContext(ctx, "SELECT hour FROM usage WHERE "+condition+" ORDER BY hour LIMIT 1 OFFSET ?", append(args, offset)...).Scan(&hours[i])
		if errors.Is(err, sql.ErrNoRows) {
			return time.Time{}, nil
		}
		if err != nil {
			return time.Time{}, err
		}
	}
	if hours[0] < hours[1] {
		return fromNanos(hours[1]), nil
	}
	err := s.read.QueryRowContext(ctx, "SELECT coalesce(min(hour), 0) FROM usage WHERE "+condition+" AND hour > ?", append(args, hours[0])...).Scan(&hours[1])
	return fromNanos(hours[1]), err
}

func usageCondition(q tenement.UsageQuery) (string, []any) {
	conditions, args := []string{"1"}, []any{}
	where := func(wanted bool, condition string, values ...any) {
		if wanted {
			conditions, args = append(conditions, condition), append(args, values...)
		}
	}
	where(!q.Instance.IsZero(), "service = ? AND name = ?", q.Instance.Service, q.Instance.Name)
	where(q.Tenant != "", "name = ?", q.Tenant)
	where(!q.Since.IsZero(), "hour >= ?", nanos(q.Since))
	where(!q.Until.IsZero(), "hour < ?", nanos(q.Until))
	return strings.Join(conditions, " AND "), args
}

func scanUsage(r row) (u tenement.UsageHour, err error) {
	var hour int64
	err = r.Scan(&hour, &u.Instance.Service, &u.Instance.Name, &u.Awake, &u.CPU, &u.MemoryByteSeconds, &u.Requests, &u.BytesIn, &u.BytesOut, &u.Storage)
	u.Hour = fromNanos(hour).UTC()
	return u, err
}
