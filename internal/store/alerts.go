package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"tenement"
)

// alertedFor is how long it is known of an instance when its last alert of a kind was.
const alertedFor = 24 * time.Hour

const (
	alertColumns = "id, kind, service, name, at, body, attempts, due, error"

	upsertAlert = "INSERT INTO alerts (" + alertColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)" +
		" ON CONFLICT (id) DO UPDATE SET attempts = excluded.attempts, due = excluded.due, error = excluded.error"
	upsertAlerted = "INSERT INTO alerted (service, name, kind, at) VALUES (?, ?, ?, ?)" +
		" ON CONFLICT DO UPDATE SET at = max(at, excluded.at)"
	forgetAlerted = "DELETE FROM alerted WHERE service <> '' AND at < ?"
)

// PutAlert keeps an alert that is to be sent, or what its attempts came to.
func (s *Store) PutAlert(ctx context.Context, a tenement.Alert) error {
	return s.wrote(ctx, "keep an alert", s.inTransaction(ctx, func(tx *sql.Tx) error {
		for _, do := range []struct {
			statement string
			args      []any
		}{
			{upsertAlert, []any{a.ID, a.Kind, a.Instance.Service, a.Instance.Name, nanos(a.At), a.Body, a.Attempts, nanos(a.Due), a.Error}},
			{upsertAlerted, []any{a.Instance.Service, a.Instance.Name, a.Kind, nanos(a.At)}},
			{forgetAlerted, []any{nanos(a.At.Add(-alertedFor))}},
		} {
			if _, err := tx.ExecContext(ctx, do.statement, do.args...); err != nil {
				return err
			}
		}
		return nil
	}))
}

// DeleteAlert forgets an alert that was sent, or never will be. It is no error if there is
// none with that id.
func (s *Store) DeleteAlert(ctx context.Context, id string) error {
	_, err := s.write.ExecContext(ctx, "DELETE FROM alerts WHERE id = ?", id)
	return s.wrote(ctx, "forget an alert", err)
}

// Alerts lists those that are to be sent, in the order in which they were kept.
func (s *Store) Alerts(ctx context.Context) ([]tenement.Alert, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT "+alertColumns+" FROM alerts ORDER BY seq")
	if err != nil {
		return nil, failure("list alerts", err)
	}
	list, err := collect(rows, func(r row) (a tenement.Alert, err error) {
		var at, due int64
		err = r.Scan(&a.ID, &a.Kind, &a.Instance.Service, &a.Instance.Name, &at, &a.Body, &a.Attempts, &due, &a.Error)
		a.At, a.Due = fromNanos(at), fromNanos(due)
		return a, err
	})
	return list, failure("list alerts", err)
}

// LastAlert is when the last alert of a kind happened to id, zero for what is about no
// instance; the zero time: none did within a day.
func (s *Store) LastAlert(ctx context.Context, kind tenement.AlertKind, id tenement.InstanceID) (time.Time, error) {
	var at int64
	err := s.read.QueryRowContext(ctx, "SELECT at FROM alerted WHERE service = ? AND name = ? AND kind = ?", id.Service, id.Name, kind).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return fromNanos(at), failure("look for the last alert", err)
}
