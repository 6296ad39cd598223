package logs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"tenement"
)

// fileName is the database's, below the daemon's state directory. It is not state.db:
// neither the locks nor the disk writes of a flood may delay a wake.
const fileName = "logs.db"

// readers is how many queries run at once.
const readers = 4

// database is one open logs.db.
type database struct {
	write *sql.Conn // the one that changes it; not a [sql.Tx], which starts a goroutine for each query
	read  *sql.DB
	stmts statements

	pool *sql.DB // of write alone
}

// statements are those of every commit.
type statements struct {
	account, insert, counter *sql.Stmt
}

// openDatabase opens the file at path, creates or migrates its tables, and looks at a
// row of each.
func openDatabase(ctx context.Context, path string, l Limits) (_ *database, err error) {
	// SQLite would make it readable for everybody, and gives the files next to it the
	// mode of this one.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	d := &database{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.pool, err = sql.Open("sqlite", writeDSN(path, l)); err != nil {
		return nil, err
	}
	if d.write, err = d.pool.Conn(ctx); err != nil {
		return nil, err
	}
	if err := d.inTransaction(ctx, func() error { return migrate(ctx, d.write) }); err != nil {
		return nil, err
	}
	if d.read, err = sql.Open("sqlite", readDSN(path)); err != nil {
		return nil, err
	}
	d.read.SetMaxOpenConns(readers)
	d.read.SetMaxIdleConns(readers)
	if err := d.probe(ctx); err != nil {
		return nil, err
	}
	return d, d.prepare(ctx)
}

// writeDSN carries the pragmas, because every connection of a pool needs them.
// synchronous=NORMAL loses no commit when the daemon is killed; a loss of power may
// take the last moments and never damages the file
// (https://www.sqlite.org/pragma.html#pragma_synchronous).
func writeDSN(path string, l Limits) string {
	return dsn(path, url.Values{
		"_pragma": {
			"busy_timeout(5000)",       // first: the next ones may have to wait
			"auto_vacuum(INCREMENTAL)", // before the first table, or never
			"journal_mode(WAL)",
			"synchronous(NORMAL)",
			"cache_size(-4096)", // KiB; merging the index reads much
			"temp_store(MEMORY)",
			fmt.Sprintf("wal_autocheckpoint(%d)", l.logPages()),
			fmt.Sprintf("journal_size_limit(%d)", l.logPages()*pageSize), // of a log that begins anew
		},
	})
}

func readDSN(path string) string {
	return dsn(path, url.Values{"_pragma": {"busy_timeout(5000)", "query_only(ON)", "cache_size(-1024)", "temp_store(MEMORY)"}})
}

func dsn(path string, query url.Values) string {
	return (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String()
}

// probe finds a file that is not what its header says, as far as that is possible
// without reading it whole.
func (d *database) probe(ctx context.Context) error {
	var next int64
	if err := d.read.QueryRowContext(ctx, "SELECT next FROM counter").Scan(&next); err != nil {
		return err
	}
	for _, query := range []string{
		"SELECT name FROM instances LIMIT 1",
		"SELECT text FROM chunks ORDER BY id LIMIT 1",
		"SELECT text FROM chunks ORDER BY id DESC LIMIT 1",
		"SELECT rowid FROM words WHERE words MATCH 'tenement' LIMIT 1",
	} {
		var ignored any
		err := d.read.QueryRowContext(ctx, query).Scan(&ignored)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
	}
	return nil
}

func (d *database) prepare(ctx context.Context) error {
	for _, p := range []struct {
		stmt  **sql.Stmt
		query string
	}{
		{&d.stmts.account, upsertAccount},
		{&d.stmts.insert, insertChunk},
		{&d.stmts.counter, updateNext},
	} {
		stmt, err := d.write.PrepareContext(ctx, p.query) //nolint:sqlclosecheck // it lives as long as the database
		if err != nil {
			return err
		}
		*p.stmt = stmt
	}
	return nil
}

// close writes the log back: the connection that writes is the last one.
func (d *database) close() error {
	var failed []error
	if d.read != nil {
		failed = append(failed, d.read.Close())
	}
	for _, stmt := range []*sql.Stmt{d.stmts.account, d.stmts.insert, d.stmts.counter} {
		if stmt != nil { // an open one would keep the connection from writing the log back
			failed = append(failed, stmt.Close())
		}
	}
	if d.write != nil {
		if err := d.write.Close(); !errors.Is(err, sql.ErrConnDone) { // closed before
			failed = append(failed, err)
		}
	}
	if d.pool != nil {
		failed = append(failed, d.pool.Close())
	}
	return errors.Join(failed...)
}

// inTransaction runs do, which changes the database by d.write, and commits if it
// succeeds.
func (d *database) inTransaction(ctx context.Context, do func() error) error {
	if _, err := d.write.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := do()
	if err == nil {
		_, err = d.write.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		// Also when it was given up meanwhile. A full disk has done so already: there is
		// nothing more to say.
		_, _ = d.write.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	}
	return err
}

// damaged reports whether the file has been seen to be damaged.
func damaged(err error) bool {
	result := resultOf(err)
	return result == sqlite3.SQLITE_CORRUPT || result == sqlite3.SQLITE_NOTADB
}

// unusable reports whether the file itself is at fault, so that only another one helps.
func unusable(err error) bool {
	switch resultOf(err) {
	case sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT: // a table is missing, or is another one
		return true
	}
	return damaged(err) || errors.Is(err, errNewer) || errors.Is(err, sql.ErrNoRows)
}

// resultOf is SQLite's primary result code of err, or 0.
func resultOf(err error) int {
	const primary = 0xff // the rest are details
	var failed *sqlite.Error
	if errors.As(err, &failed) {
		return failed.Code() & primary
	}
	return sqlite3.SQLITE_OK
}

// setAside renames the database at path, and what belongs to it, so that a fresh one
// can take its place, and returns the new name. One that was set aside before goes.
func setAside(path string, now time.Time) (string, error) {
	older, err := filepath.Glob(path + ".corrupt-*")
	if err != nil {
		return "", err
	}
	for _, name := range older {
		if err := os.Remove(name); err != nil {
			return "", err
		}
	}
	aside := path + ".corrupt-" + now.UTC().Format("20060102T150405Z")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return aside, nil
}

// failure gives err an operation and a code.
func failure(op string, err error) error {
	var coded *tenement.Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	e := &tenement.Error{Code: tenement.CodeInternal, Op: op, Err: err}
	if code := tenement.CodeOf(err); code == tenement.CodeCanceled || code == tenement.CodeTimeout {
		e.Code = code
	}
	return e
}
