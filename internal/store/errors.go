package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"tenement"
)

// failure gives err an operation and a code. An error that has a code keeps it,
// and [sql.ErrNoRows] is CodeNotFound.
func failure(op string, err error) error { return failureIn("the data directory", op, err) }

// failureIn is failure where it is known which directory the state is in.
func failureIn(dir, op string, err error) error {
	var coded *tenement.Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	e := &tenement.Error{Code: tenement.CodeInternal, Op: op, Err: err}
	trouble := troubleOf(err)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		e.Code, e.Err = tenement.CodeNotFound, errNotFound
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		e.Code = tenement.CodeOf(err)
	case isDamage(err):
		e.Hint = "state.db is damaged: stop the daemon, and ask for the way out with: ten doctor"
	case trouble != "":
		e.Code, e.Hint = tenement.CodeUnavailable, fmt.Sprintf(trouble, dir)
	case primaryCode(err) == sqlite3.SQLITE_CONSTRAINT:
		e.Code = tenement.CodeConflict
	}
	return e
}

var (
	errNotFound = errors.New("not found")
	errDamaged  = errors.New("damaged")
)

// primaryCode is the SQLite result code of err without its details, or SQLITE_OK if
// there is none, https://www.sqlite.org/rescode.html.
func primaryCode(err error) int {
	var failed *sqlite.Error
	if !errors.As(err, &failed) {
		return sqlite3.SQLITE_OK
	}
	if failed.Code() == sqlite3.SQLITE_IOERR_SHMSIZE { // no room for state.db-shm
		return sqlite3.SQLITE_FULL
	}
	return failed.Code() & 0xff
}

// isMissing reports whether err says that a table or a column is not there.
func isMissing(err error) bool { return primaryCode(err) == sqlite3.SQLITE_ERROR }

// isDamage reports whether err says that the database is none, or is broken.
func isDamage(err error) bool {
	code := primaryCode(err)
	return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB || errors.Is(err, errDamaged)
}

// troubleOf is what an operator can do if err came from the disk, with a verb for
// the directory; "" if it did not. All of them may pass without a restart.
func troubleOf(err error) string {
	code := primaryCode(err)
	is := func(list ...syscall.Errno) bool {
		for _, number := range list {
			if errors.Is(err, number) {
				return true
			}
		}
		return false
	}
	switch {
	case code == sqlite3.SQLITE_FULL, is(syscall.ENOSPC, syscall.EDQUOT):
		return "the disk of %s is full: make room; writing then goes on by itself"
	case code == sqlite3.SQLITE_READONLY, is(syscall.EROFS):
		return "the disk of %s is read-only: see the kernel's log (dmesg), then mount it writable; writing then goes on by itself"
	case code == sqlite3.SQLITE_CANTOPEN, code == sqlite3.SQLITE_PERM, errors.Is(err, fs.ErrPermission):
		return "%s and the files in it must be readable and writable for this user"
	case code == sqlite3.SQLITE_IOERR, is(syscall.EIO):
		return "the disk of %s fails: see the kernel's log (dmesg)"
	}
	return ""
}
