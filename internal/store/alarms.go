package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"tenement"
)

// Alarm is when an instance is to be woken: at its own wish, or for a cron line of its own.
type Alarm struct {
	ID   tenement.InstanceID
	Name string    // unlike those of the instance's other alarms
	At   time.Time // as it was asked for
	Due  time.Time // when it is next to be attempted
}

// MaxAlarms is how many alarms one instance can set.
const MaxAlarms = 16

// cronLabel stands before the name of a cron line. The name of no alarm that a program sets
// has a space.
const cronLabel = "cron "

// CronLine is the name of the cron line that the alarm is for; ok is false if it is for none.
func (a Alarm) CronLine() (name string, ok bool) { return strings.CutPrefix(a.Name, cronLabel) }

const (
	alarmColumns = "service, name, label, at, due"
	wished       = "label NOT LIKE '" + cronLabel + "%'"
)

// SetAlarm has id woken at a time, in the place of its alarm of that name if it has one.
// It is CodeNotFound if id is not registered, and CodeFull if it has MaxAlarms others.
func (s *Store) SetAlarm(ctx context.Context, id tenement.InstanceID, name string, at time.Time) error {
	op := "set an alarm of " + id.String()
	return s.wrote(ctx, op, s.inTransaction(ctx, func(tx *sql.Tx) error {
		var others int
		err := tx.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM alarms WHERE service = ?1 AND name = ?2 AND label <> ?3 AND "+wished+")"+
			" FROM instances WHERE service = ?1 AND name = ?2", id.Service, id.Name, name).Scan(&others)
		if err != nil {
			return err
		}
		if others >= MaxAlarms {
			return &tenement.Error{Code: tenement.CodeFull, Op: op, Err: fmt.Errorf("it has %d alarms already", others)}
		}
		_, err = tx.ExecContext(ctx, "INSERT OR REPLACE INTO alarms ("+alarmColumns+") VALUES (?, ?, ?, ?, ?)",
			id.Service, id.Name, name, nanos(at), nanos(at))
		return err
	}))
}

// DeleteAlarm forgets an alarm. It is no error if there is none of that name.
func (s *Store) DeleteAlarm(ctx context.Context, id tenement.InstanceID, name string) error {
	_, err := s.write.ExecContext(ctx, "DELETE FROM alarms WHERE service = ? AND name = ? AND label = ?", id.Service, id.Name, name)
	return s.wrote(ctx, "delete an alarm of "+id.String(), err)
}

// Rung forgets an alarm, unless it was set anew meanwhile.
func (s *Store) Rung(ctx context.Context, a Alarm) error {
	_, err := s.write.ExecContext(ctx, "DELETE FROM alarms WHERE service = ? AND name = ? AND label = ? AND at = ?",
		a.ID.Service, a.ID.Name, a.Name, nanos(a.At))
	return s.wrote(ctx, "forget an alarm of "+a.ID.String(), err)
}

// PutOff has an alarm be attempted at due, unless it was set anew meanwhile.
func (s *Store) PutOff(ctx context.Context, a Alarm, due time.Time) error {
	_, err := s.write.ExecContext(ctx, "UPDATE alarms SET due = ? WHERE service = ? AND name = ? AND label = ? AND at = ?",
		nanos(due), a.ID.Service, a.ID.Name, a.Name, nanos(a.At))
	return s.wrote(ctx, "put off an alarm of "+a.ID.String(), err)
}

// Move has an alarm be due at another time, unless it was set anew or taken away meanwhile:
// moved is false then.
func (s *Store) Move(ctx context.Context, a Alarm, at time.Time) (moved bool, err error) {
	op := "move an alarm of " + a.ID.String()
	result, err := s.write.ExecContext(ctx, "UPDATE alarms SET at = ?, due = ? WHERE service = ? AND name = ? AND label = ? AND at = ?",
		nanos(at), nanos(at), a.ID.Service, a.ID.Name, a.Name, nanos(a.At))
	if err != nil {
		return false, s.wrote(ctx, op, err)
	}
	n, err := result.RowsAffected()
	return n > 0, s.wrote(ctx, op, err)
}

// Alarms lists those that one instance has set, the earliest first.
func (s *Store) Alarms(ctx context.Context, id tenement.InstanceID) ([]Alarm, error) {
	return s.alarms(ctx, "WHERE service = ? AND name = ? AND "+wished+" ORDER BY at, label", id.Service, id.Name)
}

// DueAlarms lists at most limit of those that are due, the longest due first.
func (s *Store) DueAlarms(ctx context.Context, now time.Time, limit int) ([]Alarm, error) {
	return s.alarms(ctx, "WHERE due <= ? ORDER BY due LIMIT ?", nanos(now), limit)
}

func (s *Store) alarms(ctx context.Context, which string, args ...any) ([]Alarm, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT "+alarmColumns+" FROM alarms "+which, args...)
	if err != nil {
		return nil, failure("list alarms", err)
	}
	list, err := collect(rows, func(r row) (a Alarm, err error) {
		var at, due int64
		err = r.Scan(&a.ID.Service, &a.ID.Name, &a.Name, &at, &due)
		a.At, a.Due = fromNanos(at), fromNanos(due)
		return a, err
	})
	return list, failure("list alarms", err)
}

// NextAlarm is when the next alarm of all is due; the zero time: there is none.
func (s *Store) NextAlarm(ctx context.Context) (time.Time, error) {
	var due int64
	err := s.read.QueryRowContext(ctx, "SELECT due FROM alarms ORDER BY due LIMIT 1").Scan(&due)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return fromNanos(due), failure("look for the next alarm", err)
}
