package store

import (
	"context"
	"database/sql"
	"errors"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"tenement"
)

// failure gives err an operation and a code. An error that has a code keeps it,
// and [sql.ErrNoRows] is CodeNotFound.
func failure(op string, err error) error {
	var coded *tenement.Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	e := &tenement.Error{Code: tenement.CodeInternal, Op: op, Err: err}
	var failed *sqlite.Error
	switch {
	case errors.Is(err, sql.ErrNoRows):
		e.Code, e.Err = tenement.CodeNotFound, errNotFound
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		e.Code = tenement.CodeOf(err)
	case errors.As(err, &failed):
		e.Code, e.Hint = codeAndHint(failed.Code())
	}
	return e
}

var errNotFound = errors.New("not found")

// codeAndHint reads a SQLite result code, https://www.sqlite.org/rescode.html.
func codeAndHint(result int) (tenement.Code, string) {
	const primary = 0xff // the rest are details
	switch result & primary {
	case sqlite3.SQLITE_CONSTRAINT:
		return tenement.CodeConflict, ""
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return tenement.CodeInternal, "state.db is damaged: stop the daemon and restore the file from a backup, " +
			"or move state.db, state.db-wal and state.db-shm away to begin with an empty registry; " +
			"the tenants' data is elsewhere and unharmed"
	case sqlite3.SQLITE_FULL:
		return tenement.CodeInternal, "the disk is full: make room"
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return tenement.CodeInternal, "the directory of state.db and the files in it must be writable for this user"
	}
	return tenement.CodeInternal, ""
}
