package store

import (
	"context"

	"tenement"
	"tenement/internal/fault"
)

const (
	upsertProcess = "INSERT OR REPLACE INTO processes (service, name, pid, start_time, boot_id, port, cgroup)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?)"
	deleteProcess = "DELETE FROM processes WHERE service = ? AND name = ?"
)

// PutProcess keeps how to find the live process of id again, in the place of the
// one before. The instance need not be registered; it is CodeInvalid if id is not valid.
func (s *Store) PutProcess(ctx context.Context, id tenement.InstanceID, ref tenement.Ref) error {
	if err := check(id); err != nil {
		return err
	}
	// SQLite's integers are signed; the conversion loses nothing and is undone by Processes.
	fault.Point(fault.PutProcessBefore)
	_, err := s.stmts.putProcess.ExecContext(ctx, id.Service, id.Name,
		ref.PID, int64(ref.StartTime), ref.BootID, ref.Port, ref.Cgroup)
	fault.Point(fault.PutProcessAfter)
	return s.wrote(ctx, "keep process of "+id.String(), err)
}

// DeleteProcess forgets the process of id. It is no error if none is known.
func (s *Store) DeleteProcess(ctx context.Context, id tenement.InstanceID) error {
	_, err := s.stmts.deleteProcess.ExecContext(ctx, id.Service, id.Name)
	return s.wrote(ctx, "forget process of "+id.String(), err)
}

// Processes returns all processes that are kept: those that the daemon before
// this one left, when asked first.
func (s *Store) Processes(ctx context.Context) (map[tenement.InstanceID]tenement.Ref, error) {
	const op = "list processes"
	rows, err := s.read.QueryContext(ctx,
		"SELECT service, name, pid, start_time, boot_id, port, cgroup FROM processes")
	if err != nil {
		return nil, failure(op, err)
	}
	type process struct {
		id  tenement.InstanceID
		ref tenement.Ref
	}
	list, err := collect(rows, func(r row) (p process, err error) {
		var startTime int64
		err = r.Scan(&p.id.Service, &p.id.Name, &p.ref.PID, &startTime, &p.ref.BootID, &p.ref.Port, &p.ref.Cgroup)
		p.ref.StartTime = uint64(startTime)
		return p, err
	})
	if err != nil {
		return nil, failure(op, err)
	}
	processes := make(map[tenement.InstanceID]tenement.Ref, len(list))
	for _, p := range list {
		processes[p.id] = p.ref
	}
	return processes, nil
}
