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
// CodeTimeout when ctx has ended, and CodeInternal when the database fails.
type Store struct {
	lock  *lock
	log   string  // path of SQLite's write-ahead log
	write *sql.DB // one connection
	read  *sql.DB
	stmts statements
}

// statements are those that wakes, starts and requests with a token wait for;
// compiling one anew costs more than running it.
type statements struct {
	instance, tokenByHash                                      *sql.Stmt
	register, putProcess, deleteProcess, setFailure, appendRow *sql.Stmt
}

// Open opens the database in dir, made with mode 0700 if it is missing, creates
// or migrates its tables, and keeps other daemons out until Close.
//
// It is CodeConflict if another process has dir open, or if the database is of a
// newer version; CodeInternal if it cannot be opened or is seen to be damaged.
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
	path := filepath.Join(dir, "state.db")
	s := &Store{lock: lock, log: path + "-wal"}
	if err := s.open(ctx, path); err != nil {
		return nil, errors.Join(failure(op+" "+path, err), s.Close())
	}
	return s, nil
}

func makeDir(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return dir, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return dir, err
	}
	return dir, os.Chmod(dir, 0o700)
}

func (s *Store) open(ctx context.Context, path string) error {
	// SQLite would make it readable for everybody, and gives the files next to it
	// the mode of this one.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if s.write, err = sql.Open("sqlite", dsn(path, false)); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	if err := migrate(ctx, s.write); err != nil {
		return err
	}
	if err := probe(ctx, s.write); err != nil {
		return err
	}
	if s.read, err = sql.Open("sqlite", dsn(path, true)); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	return s.prepare(ctx)
}

// probe reads a row of each table. A look at every page (PRAGMA quick_check) takes
// 4 s per million instances, too long for a start: damage deeper down is reported
// by the call that meets it.
func probe(ctx context.Context, db *sql.DB) error {
	for _, query := range []string{
		"SELECT reason FROM instances LIMIT 1",
		"SELECT pid FROM processes LIMIT 1",
		"SELECT tenant FROM tokens LIMIT 1",
		"SELECT action FROM events LIMIT 1",
	} {
		var ignored any
		err := db.QueryRowContext(ctx, query).Scan(&ignored)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
	}
	return nil
}

// dsn carries the pragmas, because every connection of a pool needs them.
func dsn(path string, readOnly bool) string {
	query := url.Values{
		"_txlock": {"immediate"},
		"_pragma": {
			"busy_timeout(5000)", // first: the next ones may have to wait
			"journal_mode(WAL)",
			"synchronous(NORMAL)",
			"foreign_keys(ON)",
			"cache_size(-512)",            // KiB, per connection; the kernel caches the rest
			"journal_size_limit(4194304)", // bytes that the log keeps after a checkpoint
		},
	}
	if readOnly {
		query.Add("_pragma", "query_only(ON)")
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
	return nil
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
