// Package store keeps in SQLite what must survive the daemon: the registry of
// instances, where each live process is to be found again, tokens and events.
package store

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the "sqlite" driver

	"tenement"
)

// readers is how many lookups run at once. Each costs a page cache and 3 file
// descriptors; one answers tens of thousands of wakes a second.
const readers = 4

// Store is the daemon's database. All methods may be called concurrently; changes
// are made one after the other, and each is one transaction. One that was
// confirmed survives the end of the daemon, however it ends. What an operator asked
// for (instances, weights, suspensions, tokens) survives a loss of power as well; of
// what the daemon notes for itself the last moments may be lost then.
//
// Nothing is cached per instance: memory does not grow with what is registered.
//
// Every method's error has a code: besides those named with it CodeCanceled or
// CodeTimeout when ctx has ended, CodeUnavailable while the disk is full, read-only or
// failing, and CodeInternal when the database is damaged.
type Store struct {
	dir     string
	lock    *lock
	log     string  // path of SQLite's write-ahead log
	write   *sql.DB // one connection
	read    *sql.DB
	stmts   statements
	writing writing

	appended appended // events
}

// statements are those that wakes, starts and requests with a token wait for;
// compiling one anew costs more than running it.
type statements struct {
	instance, settings, tokenByHash                            *sql.Stmt
	register, putProcess, deleteProcess, setFailure, appendRow *sql.Stmt
}

// Open opens the database in dir, made with mode 0700 if it is missing, creates
// or migrates its tables, and keeps other daemons out until Close. It finishes a
// [Restore] that was interrupted, and has a copy of older tables before it changes them.
//
// It is CodeConflict if another process has dir open, or if the database is of a
// newer version; CodeInternal if it is seen to be damaged, or missing though there
// are copies of it; CodeUnavailable if it cannot be opened. The hint is the way out.
func Open(ctx context.Context, dir string) (*Store, error) {
	const op = "open state"
	dir, err := makeDir(dir)
	if err != nil {
		return nil, &tenement.Error{
			Code: tenement.CodeInternal, Op: op, Err: err,
			Hint: dir + " must be a directory that this user may write to; choose another one with --data-dir",
		}
	}
	lock, err := acquireLock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, lock: lock, log: pathIn(dir) + "-wal", appended: appended{changed: make(chan struct{})}}
	if err := s.open(ctx); err != nil {
		err = withWayOut(ctx, dir, failureIn(dir, op+" "+s.path(), err))
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// pathIn is the path of the database in a state directory.
func pathIn(dir string) string { return filepath.Join(dir, "state.db") }

func (s *Store) path() string { return pathIn(s.dir) }

func makeDir(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return dir, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return dir, err
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() == 0o700 { // a read-only disk has a better message
		return dir, err
	}
	return dir, os.Chmod(dir, 0o700)
}

// open looks before it writes: the end of a connection that may write puts the
// write-ahead log into the database, also where that makes damage worse.
func (s *Store) open(ctx context.Context) error {
	if err := errors.Join(finishRestore(s.dir), removePartials(s.dir)); err != nil {
		return err
	}
	found, err := examine(ctx, s.dir, false)
	if err != nil {
		return err
	}
	// SQLite would make it readable for everybody, and gives the files next to it
	// the mode of this one.
	file, err := os.OpenFile(s.path(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if 0 < found.Version && found.Version < len(migrations) {
		if _, err := s.copyTo(ctx, Copy{Made: time.Now(), Before: len(migrations)}); err != nil {
			return err
		}
	}
	if s.write, err = sql.Open("sqlite", dsn(s.path(), readWrite)); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	if err := migrate(ctx, s.write, migrations); err != nil {
		return err
	}
	if s.read, err = sql.Open("sqlite", dsn(s.path(), queryOnly)); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	return s.prepare(ctx)
}

// access is what a connection may do with the files of a database.
type access int

const (
	readWrite  access = iota
	queryOnly         // shares the work on the files, changes no rows
	readOnly          // writes into none of them
	unchanging        // and nobody else does: without locks and without a log
)

// dsn carries the pragmas, because every connection of a pool needs them.
func dsn(path string, how access) string {
	query := url.Values{
		"_txlock": {"immediate"},
		"_pragma": {
			"busy_timeout(5000)", // first: the next ones may have to wait
			"foreign_keys(ON)",
			"cache_size(-512)", // KiB, per connection; the kernel caches the rest
		},
	}
	switch how {
	case readOnly:
		query.Set("mode", "ro")
	case unchanging:
		query.Set("immutable", "1")
	case queryOnly:
		query.Add("_pragma", "query_only(ON)")
		fallthrough
	case readWrite:
		query.Add("_pragma", "journal_mode(WAL)")
		query.Add("_pragma", "synchronous(NORMAL)")
		query.Add("_pragma", "journal_size_limit(4194304)") // bytes that the log keeps after a checkpoint
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String()
}

func (s *Store) prepare(ctx context.Context) error {
	for _, p := range []struct {
		stmt  **sql.Stmt
		db    *sql.DB
		query string
	}{
		{&s.stmts.instance, s.read, selectInstance},
		{&s.stmts.settings, s.read, selectSettings},
		{&s.stmts.tokenByHash, s.read, selectTokenByHash},
		{&s.stmts.register, s.write, insertInstance},
		{&s.stmts.setFailure, s.write, updateFailure},
		{&s.stmts.putProcess, s.write, upsertProcess},
		{&s.stmts.deleteProcess, s.write, deleteProcess},
		{&s.stmts.appendRow, s.write, insertEvent},
	} {
		stmt, err := p.db.PrepareContext(ctx, p.query) //nolint:sqlclosecheck // it lives as long as the store
		if err != nil {
			return err
		}
		*p.stmt = stmt
	}
	return s.read.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM events").Scan(&s.appended.last)
}

// Close writes the log back into the database and lets other daemons in. No
// method may be called afterwards, but Close again does no harm.
func (s *Store) Close() error {
	var failed []error
	// The connection that writes is the last one, and so does the writing back.
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			failed = append(failed, db.Close())
		}
	}
	failed = append(failed, s.lock.release())
	return failure("close state", errors.Join(failed...))
}

// inTransaction runs do and commits if it succeeds.
func (s *Store) inTransaction(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// durable puts what was committed on the disk itself, unless err says that nothing
// was. It is what synchronous=FULL would do after every transaction (wal.c), for those
// that are worth it: a wake must not wait for the disk.
func (s *Store) durable(err error) error {
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.log, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(log.Sync(), log.Close())
}

// lookUp reads one row by its key. It does not give up under way when ctx ends:
// the goroutines that would watch for that cost twice what the look-up takes.
func lookUp[T any](ctx context.Context, stmt *sql.Stmt, scan func(row) (T, error), key ...any) (T, error) {
	if err := ctx.Err(); err != nil {
		var none T
		return none, err
	}
	return scan(stmt.QueryRowContext(context.WithoutCancel(ctx), key...))
}

// change is lookUp for a statement that changes one row.
func change(ctx context.Context, stmt *sql.Stmt, args ...any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := stmt.ExecContext(context.WithoutCancel(ctx), args...)
	return err
}

// row is what [sql.Row] and [sql.Rows] have in common.
type row interface{ Scan(into ...any) error }

// collect reads all rows and closes them.
func collect[T any](rows *sql.Rows, scan func(row) (T, error)) ([]T, error) {
	defer rows.Close()
	var list []T
	for rows.Next() {
		item, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, item)
	}
	return list, rows.Err()
}

// changedOne turns a change that met no row into [sql.ErrNoRows].
func changedOne(result sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 {
		err = sql.ErrNoRows
	}
	return err
}

// nanos stores a time; 0 is the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}
