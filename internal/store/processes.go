package store

import (
	"context"
	"database/sql"
	"time"

	"tenement"
	"tenement/internal/fault"
)

const (
	processColumns = "service, name, pid, start_time, boot_id, port, cgroup, isolation, stdout, stderr," +
		" state, started_at, active_at, health_failures, slot, busy_until"
	upsertProcess = "INSERT OR REPLACE INTO processes (" + processColumns + ")" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	deleteProcess = "DELETE FROM processes WHERE service = ? AND name = ?"
)

// Process is what must be kept of a live process so that another daemon can take it
// over and go on where this one was.
type Process struct {
	Ref       tenement.Ref
	State     tenement.State // Starting, Ready or Stopping
	StartedAt time.Time
	ActiveAt  time.Time // somebody used it last, as far as was written down

	BusyUntil time.Time // it has asked not to be put to sleep before; zero = it has not

	HealthFailures int // health checks that failed in a row
}

// PutProcess keeps p as the live process of id, in the place of the one before. The
// instance need not be registered; it is CodeInvalid if id is not valid.
func (s *Store) PutProcess(ctx context.Context, id tenement.InstanceID, p Process) error {
	if err := check(id); err != nil {
		return err
	}
	// SQLite's integers are signed; the conversion loses nothing and is undone by Processes.
	fault.Point(fault.PutProcessBefore)
	err := change(ctx, s.stmts.putProcess, id.Service, id.Name,
		p.Ref.PID, int64(p.Ref.StartTime), p.Ref.BootID, p.Ref.Port, p.Ref.Cgroup,
		string(p.Ref.Isolation), p.Ref.Stdout, p.Ref.Stderr,
		p.State.String(), nanos(p.StartedAt), nanos(p.ActiveAt), p.HealthFailures, p.Ref.Slot, nanos(p.BusyUntil))
	fault.Point(fault.PutProcessAfter)
	return s.wrote(ctx, "keep process of "+id.String(), err)
}

// PutActivity notes when the live processes of some instances were used last, all in
// one transaction. An instance without a process is passed over.
func (s *Store) PutActivity(ctx context.Context, used map[tenement.InstanceID]time.Time) error {
	return s.wrote(ctx, "keep activity", s.inTransaction(ctx, func(tx *sql.Tx) error {
		for id, at := range used {
			_, err := tx.ExecContext(ctx, "UPDATE processes SET active_at = ? WHERE service = ? AND name = ?",
				nanos(at), id.Service, id.Name)
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

// DeleteProcess forgets the process of id. It is no error if none is known.
func (s *Store) DeleteProcess(ctx context.Context, id tenement.InstanceID) error {
	err := change(ctx, s.stmts.deleteProcess, id.Service, id.Name)
	return s.wrote(ctx, "forget process of "+id.String(), err)
}

// Processes returns all processes that are kept: those that the daemon before
// this one left, when asked first.
func (s *Store) Processes(ctx context.Context) (map[tenement.InstanceID]Process, error) {
	const op = "list processes"
	rows, err := s.read.QueryContext(ctx, "SELECT "+processColumns+" FROM processes")
	if err != nil {
		return nil, failure(op, err)
	}
	list, err := collect(rows, scanProcess)
	if err != nil {
		return nil, failure(op, err)
	}
	processes := make(map[tenement.InstanceID]Process, len(list))
	for _, k := range list {
		processes[k.id] = k.process
	}
	return processes, nil
}

// kept is one row of processes.
type kept struct {
	id      tenement.InstanceID
	process Process
}

func scanProcess(r row) (k kept, err error) {
	var startTime, startedAt, activeAt, busyUntil int64
	var state string
	p := &k.process
	err = r.Scan(&k.id.Service, &k.id.Name, &p.Ref.PID, &startTime, &p.Ref.BootID, &p.Ref.Port, &p.Ref.Cgroup,
		&p.Ref.Isolation, &p.Ref.Stdout, &p.Ref.Stderr, &state, &startedAt, &activeAt, &p.HealthFailures, &p.Ref.Slot, &busyUntil)
	if err != nil {
		return k, err
	}
	p.Ref.StartTime = uint64(startTime)
	p.StartedAt, p.ActiveAt, p.BusyUntil = fromNanos(startedAt), fromNanos(activeAt), fromNanos(busyUntil)
	return k, p.State.UnmarshalText([]byte(state))
}
