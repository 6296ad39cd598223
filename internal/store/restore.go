package store

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tenement"
	"tenement/internal/fault"
)

const (
	restoringName = "state.db.restoring-" // begins the name of what takes the place of state.db; then a time
	damagedName   = "state.db.damaged-"   // begins the names of what was there before; then the same time
)

// Restored says what [Restore] did.
type Restored struct {
	From  string // the copy, which stays
	Aside string // where the file from before is now, its -wal and -shm beside it; "" if there was none
	Contents
}

// Restore puts a copy of the state in the place of state.db in dir; "" stands for the
// newest that is good, a name without a slash for one in dir's backups. What was there
// is kept under another name, and nothing is deleted. Killed at any moment, it leaves
// either the old state in place or the new one; from when the new one is decided on,
// the next [Open] finishes what is left to do.
//
// It is CodeConflict while a daemon has dir open, or if the copy is of a newer
// version; CodeNotFound if there is no such copy, or no good one; CodeInternal if the
// copy is damaged, CodeUnavailable if the disk does not take it.
func Restore(ctx context.Context, dir, copy string, now time.Time) (_ Restored, err error) {
	const op = "restore state"
	dir, err = filepath.Abs(dir)
	if err != nil {
		return Restored{}, failure(op, err)
	}
	if _, err := os.Stat(dir); err != nil {
		return Restored{}, &tenement.Error{Code: tenement.CodeNotFound, Op: op, Err: err, Hint: "no daemon has run with this data directory"}
	}
	lock, err := acquireLock(filepath.Join(dir, "lock"))
	if err != nil {
		return Restored{}, err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	r, err := restore(ctx, dir, copy, now)
	return r, failureIn(dir, op, err)
}

// restore is Restore with the lock held.
func restore(ctx context.Context, dir, copy string, now time.Time) (r Restored, err error) {
	if err := errors.Join(giveToOwnerOf(dir, filepath.Join(dir, "lock")), finishRestore(dir), removePartials(dir)); err != nil {
		return r, err
	}
	if r.From, err = findCopy(ctx, dir, copy); err != nil {
		return r, err
	}
	partial, err := makePartial(dir)
	if err != nil {
		return r, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeIfThere(partial))
		}
	}()
	if err := errors.Join(copyFile(r.From, partial), giveToOwnerOf(dir, partial)); err != nil {
		return r, err
	}
	if r.Contents, err = CheckCopy(ctx, partial); err != nil {
		return r, err
	}
	fault.Point(fault.RestoreWritten)
	stamp := freeStamp(dir, now)
	if err := renameSynced(partial, filepath.Join(dir, restoringName+stamp)); err != nil {
		return r, err
	}
	fault.Point(fault.RestoreDecided)
	if err := finishRestore(dir); err != nil {
		return r, err
	}
	if aside := filepath.Join(dir, damagedName+stamp); exists(aside) {
		r.Aside = aside
	}
	return r, nil
}

// findCopy is the path of the copy that was asked for. One that has a write-ahead log
// beside it is only a part.
func findCopy(ctx context.Context, dir, copy string) (string, error) {
	if copy == "" {
		newest, err := newestGood(ctx, dir)
		return newest.Path, err
	}
	path := copy
	if !strings.ContainsRune(copy, filepath.Separator) {
		if path = filepath.Join(copiesPath(dir), copy); !exists(path) {
			path = copy
		}
	}
	const op = "restore state"
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", &tenement.Error{Code: tenement.CodeNotFound, Op: op, Err: err, Hint: "ten doctor lists the copies"}
	case !info.Mode().IsRegular():
		return "", &tenement.Error{Code: tenement.CodeInvalid, Op: op, Err: errors.New(path + " is not a file"), Hint: "ten doctor lists the copies"}
	}
	if log, err := os.Stat(path + "-wal"); err == nil && log.Size() > 0 {
		return "", &tenement.Error{
			Code: tenement.CodeInvalid, Op: op, Err: errors.New(path + " is not whole: a part of it is in " + path + "-wal"),
			Hint: "write it back with: sqlite3 " + quote(path) + " 'PRAGMA wal_checkpoint(TRUNCATE)'",
		}
	}
	return path, nil
}

// pendingRestore finds what an interrupted [Restore] decided to put in place.
func pendingRestore(dir string) (stamp string, pending bool, err error) {
	found, err := fs.Glob(os.DirFS(dir), restoringName+"*")
	if err != nil || len(found) == 0 {
		return "", false, err
	}
	return strings.TrimPrefix(found[0], restoringName), true, nil
}

// finishRestore puts in place what was decided on, if anything was. It may have been
// interrupted anywhere before. Only the holder of the lock may call it.
func finishRestore(dir string) error {
	stamp, pending, err := pendingRestore(dir)
	if err != nil || !pending {
		return err
	}
	path, aside := pathIn(dir), filepath.Join(dir, damagedName+stamp)
	// In whatever order: none of them is looked at any more before the new one is there.
	for i, suffix := range []string{"-wal", "-shm", ""} {
		if i == 1 {
			fault.Point(fault.RestoreOldHalfAway)
		}
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	fault.Point(fault.RestoreOldAway)
	// The old log must be away for good before the new database is there: SQLite
	// would write it into whatever stands beside it.
	if err := syncPath(dir); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, restoringName+stamp), path); err != nil {
		return err
	}
	fault.Point(fault.RestoreDone)
	return syncPath(dir)
}

// freeStamp is a time by which nothing is named yet: now, or one soon after.
func freeStamp(dir string, now time.Time) string {
	for ; ; now = now.Add(time.Second) {
		stamp := now.UTC().Format(timeFormat)
		taken := false
		for _, suffix := range []string{"", "-wal", "-shm"} {
			taken = taken || exists(filepath.Join(dir, damagedName+stamp+suffix))
		}
		if !taken {
			return stamp
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// copyFile writes the bytes of from into the file to and puts them on the disk.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, in); err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// giveToOwnerOf lets the daemon's user have what root made in his directory.
func giveToOwnerOf(dir, path string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, int(owner.Uid), int(owner.Gid))
}

// restoreCommand is what an operator types to restore the newest good copy; a
// daemon's state lies in its data directory.
func restoreCommand(dir string) string {
	return "ten doctor --data-dir " + quote(filepath.Dir(dir)) + " --restore"
}

func copiesPath(dir string) string { return filepath.Join(dir, copiesDir) }

// quote makes one word of a path for a shell.
func quote(path string) string {
	const harmless = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-"
	if path != "" && strings.Trim(path, harmless) == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
