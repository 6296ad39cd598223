package disk

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"tenement"
)

// Enforcement is how a bound on a data directory is kept.
type Enforcement string

// The kinds of enforcement.
const (
	Unbounded Enforcement = "none"
	// Project is a project quota of the file system: a write beyond it fails. It is
	// used for instances with a user of their own, where ext4 or XFS is mounted with
	// prjquota and the daemon is root; to root itself it means nothing.
	Project Enforcement = "project"
	// Measured is kept by whoever measures now and then and ends what has used it up.
	Measured Enforcement = "measured"
)

// quotaFS is a file system as it is seen through one of its directories. The methods
// are the platform's; an id is of a project.
type quotaFS struct{ dir *os.File }

// Limit bounds the directory of id, which [Root.Make] has given to uid, to limit bytes
// and a number of files that follows from it ([LimitOf]), and says how that is enforced.
// With [Project] all that is in the directory counts, and the kernel's limit stands when
// Limit returns; the project has the number of the user. A limit of 0 takes the bound
// away. Nothing of the instance may run.
//
// CodeUnavailable: the file system has project quotas, and does not take this one.
func (r *Root) Limit(ctx context.Context, id tenement.InstanceID, uid int, limit tenement.Bytes) (Enforcement, error) {
	const op = "limit data directory of "
	if err := check(id); err != nil {
		return Unbounded, err
	}
	if limit == 0 && uid == 0 {
		return Unbounded, nil
	}
	dir, err := r.openInstance(id)
	if errors.Is(err, fs.ErrNotExist) && limit == 0 {
		return Unbounded, nil
	}
	if err != nil {
		return Unbounded, r.fail(op, id, err)
	}
	defer dir.Close()
	how := Unbounded
	if limit == 0 {
		err = clearLimit(dir, uid)
	} else {
		how, err = setLimit(ctx, dir, uid, limit)
	}
	if err != nil {
		return Unbounded, r.cannotLimit(id, err)
	}
	return how, nil
}

// Bounded reports whether the kernel keeps a limit for the directory of id, whose uid is
// on record (0 = none).
func (r *Root) Bounded(id tenement.InstanceID, uid int) (bool, error) {
	const op = "look at data directory of "
	if err := check(id); err != nil {
		return false, err
	}
	dir, err := r.openInstance(id)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, r.fail(op, id, err)
	}
	defer dir.Close()
	var s Storage
	if _, err := s.askKernel(dir, uid); err != nil {
		return false, r.fail(op, id, err)
	}
	return s.Enforcement == Project, nil
}

// projects is dir's file system if it can bound what uid writes there, else nil. The
// caller closes its directory.
func projects(dir *os.Root, uid int) (*quotaFS, error) {
	if uid == 0 || os.Geteuid() != 0 {
		return nil, nil
	}
	self, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	system := &quotaFS{self}
	if able, err := system.enforces(); err != nil || !able {
		return nil, errors.Join(err, self.Close())
	}
	return system, nil
}

func setLimit(ctx context.Context, dir *os.Root, uid int, limit tenement.Bytes) (Enforcement, error) {
	system, err := projects(dir, uid)
	if system == nil {
		return Measured, err
	}
	defer system.dir.Close()
	if err := assignProject(ctx, dir, system.dir, uid); err != nil {
		return Unbounded, err
	}
	return Project, system.bound(uid, LimitOf(limit))
}

// bound sets a limit that is not set yet: that is a write to the disk.
func (q quotaFS) bound(id int, limit Limit) error {
	if _, now, err := q.record(id); err != nil || now == limit {
		return err
	}
	return q.setLimit(id, limit)
}

// clearLimit takes the limit of uid's project away if dir counts for it. The kernel then
// drops its record of the project once nothing counts for it.
func clearLimit(dir *os.Root, uid int) error {
	system, err := projects(dir, uid)
	if system == nil {
		return err
	}
	defer system.dir.Close()
	if now, err := projectOf(system.dir); err != nil || now != uid {
		return err
	}
	return system.bound(uid, Limit{})
}

// assignProject makes everything in dir count for project id, dir itself last. New files
// then do so by themselves.
func assignProject(ctx context.Context, dir *os.Root, self *os.File, id int) error {
	now, err := projectOf(self)
	if err != nil || now == id {
		return err
	}
	err = walk(ctx, dir, nil, func(e entry) error {
		if !e.info.IsDir() && !e.info.Mode().IsRegular() {
			return nil // the kernel knows no project of it, and it takes no room
		}
		return assignEntry(e, id)
	})
	if err != nil {
		return err
	}
	return setProject(self, id, true)
}

func assignEntry(e entry, id int) error {
	file, err := e.parent.OpenFile(e.name, openQuietly, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	opened, err := file.Stat()
	if err != nil || !os.SameFile(opened, e.info) {
		return errors.Join(err, &refusal{e.path(), "was replaced under way"})
	}
	if err := setProject(file, id, e.info.IsDir()); err != nil {
		return &fs.PathError{Op: "set project of", Path: e.path(), Err: err}
	}
	return nil
}

// Storage is what a data directory takes, and what it may.
type Storage struct {
	Path        string
	Use         Use
	Limit       Limit // the one in force
	Enforcement Enforcement
}

// Storage looks at the directory of id, there or not, whose uid is on record (0 = the
// daemon's own user, or none given yet) and whose service has a quota of so many bytes
// (0 = none). own says whether its processes have a user of their own.
func (r *Root) Storage(ctx context.Context, id tenement.InstanceID, uid int, own bool, quota tenement.Bytes) (Storage, error) {
	const op = "look at data directory of "
	if err := check(id); err != nil {
		return Storage{}, err
	}
	// One at a time: who asks again and again has the use of one core, and no more.
	select {
	case r.looking <- struct{}{}:
		defer func() { <-r.looking }()
	case <-ctx.Done():
		return Storage{}, r.fail(op, id, context.Cause(ctx))
	}
	s := Storage{Path: r.dir(id), Limit: LimitOf(quota), Enforcement: Unbounded}
	if quota > 0 {
		s.Enforcement = Measured
		if own && os.Geteuid() == 0 && r.enforces() {
			s.Enforcement = Project
		}
	}
	dir, err := r.openInstance(id)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, r.fail(op, id, err)
	}
	defer dir.Close()
	if known, err := s.askKernel(dir, uid); known || err != nil {
		if err != nil {
			err = r.fail(op, id, err)
		}
		return s, err
	}
	s.Use, err = measure(ctx, dir, Limit{})
	if err != nil {
		err = r.fail(op, id, err)
	}
	return s, err
}

// askKernel fills s in if the kernel counts what dir takes.
func (s *Storage) askKernel(dir *os.Root, uid int) (known bool, err error) {
	system, err := projects(dir, uid)
	if system == nil {
		return false, err
	}
	defer system.dir.Close()
	if now, err := projectOf(system.dir); err != nil || now != uid {
		return false, err
	}
	use, limit, err := system.record(uid)
	if err != nil {
		return false, err
	}
	s.Use = use
	if limit != (Limit{}) {
		s.Limit, s.Enforcement = limit, Project
	}
	return true, nil
}

// ProjectQuotas reports whether the file system of the directory path keeps limits of
// projects: it has the feature, and is mounted with prjquota.
func ProjectQuotas(path string) (bool, error) {
	dir, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	return quotaFS{dir}.enforces()
}

// enforces reports whether directories made here could have a project quota.
func (r *Root) enforces() bool {
	self, err := r.root.Open(".")
	if err != nil {
		return false
	}
	defer self.Close()
	able, err := quotaFS{self}.enforces()
	return able && err == nil
}

func (r *Root) cannotLimit(id tenement.InstanceID, err error) error {
	failure := &tenement.Error{Code: tenement.CodeUnavailable, Op: "set the storage quota of " + id.String(), Err: err}
	switch {
	case errors.Is(err, fs.ErrPermission):
		failure.Hint = "the daemon needs CAP_SYS_ADMIN for project quotas; without prjquota among the mount options of " + r.path + " what is used is measured instead"
	case errors.Is(err, errTooDeep):
		failure.Code, failure.Hint = tenement.CodeConflict, "look at what the tenant has made in "+r.dir(id)
	default:
		failure.Hint = "see the project quotas of the file system: repquota -P " + r.path
	}
	return failure
}
