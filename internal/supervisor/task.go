package supervisor

import (
	"context"
	"errors"

	"tenement"
	tenruntime "tenement/internal/runtime"
)

// MakeTask makes a task for the user that it will have: a uid, or 0 for the daemon's own.
type MakeTask func(uid int) (*tenruntime.Task, error)

// Exec starts a task where id's process is, and wakes id if need be. It counts as a request
// until release is called, once the job is closed. Codes as for [Supervisor.Acquire].
func (s *Supervisor) Exec(ctx context.Context, id tenement.InstanceID, task MakeTask) (job *tenruntime.Job, release func(), err error) {
	lease, err := s.Acquire(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	l, _ := lease.(*life) // there is no other
	if job, err = s.execIn(ctx, id, l, task); err != nil {
		lease.Release()
		return nil, nil, err
	}
	return job, lease.Release, nil
}

func (s *Supervisor) execIn(ctx context.Context, id tenement.InstanceID, l *life, task MakeTask) (*tenruntime.Job, error) {
	spec, err := s.taskSpec(ctx, id, l.service)
	if err != nil {
		return nil, err
	}
	isolation := l.process.Ref().Isolation
	if isolation != tenement.IsolationProcess {
		row, err := s.Store.Instance(ctx, id)
		if err != nil {
			return nil, err
		}
		spec.UID = row.UID
	}
	if spec.DataDir, err = s.Disk.Make(ctx, id, spec.UID); err != nil {
		return nil, err
	}
	if spec.Task, err = task(spec.UID); err != nil {
		return nil, err
	}
	return s.Runtimes[isolation].Run(ctx, spec, l.process)
}

// taskSpec is for a task beside a process of a recipe: all is as that has it, but for the
// environment, which is that of the next start.
func (s *Supervisor) taskSpec(ctx context.Context, id tenement.InstanceID, service *tenement.Service) (spec tenruntime.Spec, err error) {
	base := s.service(id)
	if base == nil {
		return spec, Unknown(id)
	}
	next, secrets, err := s.recipe(ctx, id, base)
	if err != nil {
		return spec, err
	}
	now := *service
	now.Env = next.Env
	return tenruntime.Spec{Instance: id, Service: &now, Secrets: secrets}, nil
}

// RunTask starts a task in a place of its own, whether id sleeps or not, and leaves id as it
// is. As long as release was not called, once the job is closed, id cannot be deleted.
func (s *Supervisor) RunTask(ctx context.Context, id tenement.InstanceID, task MakeTask) (job *tenruntime.Job, release func(), err error) {
	if s.service(id) == nil {
		return nil, nil, Unknown(id)
	}
	i, err := s.summon(id)
	if err != nil {
		return nil, nil, err
	}
	answer := make(chan error, 1)
	err = i.send(ctx, func() {
		ifRegistered(func(i *instance, answer chan<- error) {
			var err error
			job, err = i.runTask(task)
			answer <- err
		})(i, answer)
	})
	if err == nil {
		err = <-answer // it comes: the owner waits for nobody meanwhile
	}
	if err != nil {
		i.dismiss()
		return nil, nil, err
	}
	return job, func() { i.tasks.Add(-1); i.dismiss() }, nil
}

func (i *instance) runTask(task MakeTask) (*tenruntime.Job, error) {
	if i.own.life == nil { // else user and limits are those of what runs
		if _, err := i.takeRecipe(); err != nil {
			return nil, err
		}
	}
	rt := i.sup.Runtimes[i.service.Isolation]
	if rt == nil {
		return nil, i.unavailableIsolation()
	}
	if missing, ok := rt.(tenruntime.Unavailable); ok { // then nothing changes hands for it
		return nil, missing.Err
	}
	spec, err := i.sup.taskSpec(i.sup.lives, i.id, i.service)
	if err != nil {
		return nil, err
	}
	if _, err := i.prepareStorage(&spec); err != nil && tenement.CodeOf(err) != tenement.CodeStorageFull { // it may be what makes room
		return nil, err
	}
	if spec.Task, err = task(spec.UID); err != nil {
		return nil, err
	}
	job, err := rt.Run(i.sup.lives, spec, nil)
	if err == nil {
		i.tasks.Add(1)
	}
	return job, err
}

func (i *instance) unavailableIsolation() error {
	return &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "start " + i.id.String(),
		Err: errors.New("isolation " + string(i.service.Isolation) + " is not available"),
	}
}
