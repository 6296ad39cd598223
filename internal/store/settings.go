package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"tenement"
)

const selectSettings = "SELECT key, value FROM settings WHERE service = ? AND name = ?"

// Settings is what is kept for id by [Store.PutSettings]; empty if that is nothing, or if
// id is not registered.
func (s *Store) Settings(ctx context.Context, id tenement.InstanceID) (map[string][]byte, error) {
	op := "read settings of " + id.String()
	if err := ctx.Err(); err != nil {
		return nil, failure(op, err)
	}
	rows, err := s.stmts.settings.QueryContext(context.WithoutCancel(ctx), id.Service, id.Name) // as in lookUp
	if err != nil {
		return nil, failure(op, err)
	}
	type pair struct {
		key   string
		value []byte
	}
	list, err := collect(rows, func(r row) (p pair, err error) {
		err = r.Scan(&p.key, &p.value)
		return p, err
	})
	settings := make(map[string][]byte, len(list))
	for _, p := range list {
		settings[p.key] = p.value
	}
	return settings, failure(op, err)
}

// PutSettings changes all of the settings that are named, or none; a nil value takes one
// away. With them goes when cron lines of its own are next due, by their name; the zero time
// is never. All that goes with the instance. It is CodeNotFound if id is not registered.
func (s *Store) PutSettings(ctx context.Context, id tenement.InstanceID, changes map[string][]byte, due map[string]time.Time) error {
	return s.wrote(ctx, "keep settings of "+id.String(), s.durable(s.inTransaction(ctx, func(tx *sql.Tx) error {
		var known int
		if err := tx.QueryRowContext(ctx, "SELECT 1 FROM instances WHERE service = ? AND name = ?", id.Service, id.Name).Scan(&known); err != nil {
			return err
		}
		for key, value := range changes {
			if err := putSetting(ctx, tx, id, key, value); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
		for line, at := range due {
			if err := putDue(ctx, tx, id, cronLabel+line, at); err != nil {
				return fmt.Errorf("cron line %s: %w", line, err)
			}
		}
		return nil
	})))
}

func putSetting(ctx context.Context, tx *sql.Tx, id tenement.InstanceID, key string, value []byte) error {
	query, args := "DELETE FROM settings WHERE service = ? AND name = ? AND key = ?", []any{id.Service, id.Name, key}
	if value != nil {
		query, args = "INSERT OR REPLACE INTO settings (service, name, key, value) VALUES (?, ?, ?, ?)", append(args, value)
	}
	_, err := tx.ExecContext(ctx, query, args...)
	return err
}

func putDue(ctx context.Context, tx *sql.Tx, id tenement.InstanceID, label string, at time.Time) error {
	query, args := "DELETE FROM alarms WHERE service = ? AND name = ? AND label = ?", []any{id.Service, id.Name, label}
	if !at.IsZero() {
		query = "INSERT OR REPLACE INTO alarms (" + alarmColumns + ") VALUES (?, ?, ?, ?, ?)"
		args = append(args, nanos(at), nanos(at))
	}
	_, err := tx.ExecContext(ctx, query, args...)
	return err
}

// WithSetting are the names of a service's instances after one and up to another, in the
// order of names, that have a setting of their own.
func (s *Store) WithSetting(ctx context.Context, service, key, after, last string) (map[string]bool, error) {
	op := "look for settings in " + service
	rows, err := s.read.QueryContext(ctx, "SELECT name FROM settings WHERE service = ? AND name > ? AND name <= ? AND key = ?", service, after, last, key)
	if err != nil {
		return nil, failure(op, err)
	}
	list, err := collect(rows, func(r row) (name string, err error) {
		err = r.Scan(&name)
		return name, err
	})
	found := make(map[string]bool, len(list))
	for _, name := range list {
		found[name] = true
	}
	return found, failure(op, err)
}
