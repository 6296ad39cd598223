package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"tenement"
)

var errNoTables = fmt.Errorf("%w: it has no tables", errDamaged)

// Contents is what a look at a whole database found.
type Contents struct {
	Version   int // of the tables
	Instances int
}

// Check looks at every page of the database while it is in use, which takes about
// 4 s per million instances and keeps nobody from writing. It is CodeInternal, with
// the way out as its hint, if it is damaged.
func (s *Store) Check(ctx context.Context) error {
	_, err := look(ctx, s.path(), readOnly, true)
	return withWayOut(ctx, s.dir, failureIn(s.dir, "check "+s.path(), err))
}

// CheckState looks at every page of the state in dir, whether or not a daemon uses
// it, and changes nothing. An interrupted restoration is finished by the next start.
// It is CodeNotFound if there is no state yet. Whatever else keeps [Open] from
// opening it is the error here, with the same hint.
func CheckState(ctx context.Context, dir string) (Contents, error) {
	path := pathIn(dir)
	op := "check " + path
	if _, pending, err := pendingRestore(dir); err != nil || pending {
		if err == nil {
			err = &tenement.Error{
				Code: tenement.CodeConflict, Op: op, Err: errors.New("a restoration of it was interrupted"),
				Hint: "the next start of the daemon finishes it, or: " + restoreCommand(dir),
			}
		}
		return Contents{}, failureIn(dir, op, err)
	}
	found, err := examine(ctx, dir, true)
	if err == nil && found.Version == 0 {
		err = &tenement.Error{Code: tenement.CodeNotFound, Op: op, Err: errors.New("there is none yet")}
	}
	return found, withWayOut(ctx, dir, failureIn(dir, op, err))
}

// CheckCopy looks at every page of a copy of the state, which nobody may be writing.
// It is CodeInternal if it is damaged, CodeConflict if it is of a newer version.
func CheckCopy(ctx context.Context, path string) (Contents, error) {
	found, err := look(ctx, path, unchanging, true)
	return found, failure("check "+path, err)
}

// examine looks at the state in dir before anything is written there. The version is
// 0 if there is none yet, as before a first start and after one that was killed. It
// is damage if there was more here once: an empty registry instead would be silent loss.
func examine(ctx context.Context, dir string, whole bool) (Contents, error) {
	path := pathIn(dir)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Contents{}, firstStart(dir, "is missing")
	case err != nil:
		return Contents{}, err
	case info.IsDir():
		return Contents{}, fmt.Errorf("%w: it is a directory", errDamaged)
	case !info.Mode().IsRegular():
		return Contents{}, fmt.Errorf("%w: it is no file (%v)", errDamaged, info.Mode())
	case info.Size() == 0:
		return Contents{}, firstStart(dir, "is empty")
	}
	found, err := look(ctx, path, readOnly, whole)
	if errors.Is(err, errNoTables) {
		return Contents{}, firstStart(dir, "has no tables")
	}
	return found, err
}

// firstStart refuses when what there is beside state.db shows that it held something.
func firstStart(dir, lacks string) error {
	// SQLite would begin a new database and delete the log of the old one.
	if log, err := os.Stat(pathIn(dir) + "-wal"); err == nil && log.Size() > 0 && lacks != "has no tables" {
		return fmt.Errorf("%w: it %s, but its write-ahead log %s is there", errDamaged, lacks, "state.db-wal")
	}
	copies, err := Copies(dir)
	if err == nil && len(copies) > 0 {
		err = fmt.Errorf("%w: it %s, but there are copies of it", errDamaged, lacks)
	}
	return err
}

// look opens the database at path without writing to it, and refuses what is not a
// registry that this program can use: a newer one with CodeConflict, anything else
// with an error that [isDamage] knows. Only if whole, it reads every page; otherwise
// a row of each table, because that takes no time, and deeper damage is found by
// [Store.Check].
func look(ctx context.Context, path string, how access, whole bool) (found Contents, err error) {
	db, err := sql.Open("sqlite", dsn(path, how))
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	if found.Version, err = schemaVersion(ctx, db); err != nil {
		return found, err
	}
	if err := checkVersion(ctx, db, found.Version); err != nil {
		return found, err
	}
	if err := probe(ctx, db); err != nil || !whole {
		return found, err
	}
	if err := quickCheck(ctx, db); err != nil {
		return found, err
	}
	return found, db.QueryRowContext(ctx, "SELECT count(*) FROM instances").Scan(&found.Instances)
}

func schemaVersion(ctx context.Context, db *sql.DB) (version int, err error) {
	err = db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version)
	return version, err
}

func checkVersion(ctx context.Context, db *sql.DB, version int) error {
	if version > len(migrations) {
		return &tenement.Error{
			Code: tenement.CodeConflict, Op: "read state",
			Err:  fmt.Errorf("the database has version %d, this program knows up to %d", version, len(migrations)),
			Hint: "a newer tenement wrote it: run that version",
		}
	}
	if version > 0 {
		return nil
	}
	var tables int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return err
	}
	if tables == 0 {
		return errNoTables
	}
	return fmt.Errorf("%w: it is the database of another program", errDamaged)
}

// probe reads a row of each table.
func probe(ctx context.Context, db *sql.DB) error {
	for _, query := range []string{
		"SELECT reason FROM instances LIMIT 1",
		"SELECT pid FROM processes LIMIT 1",
		"SELECT tenant FROM tokens LIMIT 1",
		"SELECT action FROM events LIMIT 1",
	} {
		var ignored any
		err := db.QueryRowContext(ctx, query).Scan(&ignored)
		switch {
		case err == nil, errors.Is(err, sql.ErrNoRows):
		case isMissing(err):
			return fmt.Errorf("%w: %w", errDamaged, err)
		default:
			return err
		}
	}
	return nil
}

// quickCheck names the first few things that are wrong. It leaves out only whether
// each index holds what its table does.
func quickCheck(ctx context.Context, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, "PRAGMA quick_check(3)")
	if err != nil {
		return err
	}
	said, err := collect(rows, func(r row) (line string, err error) {
		err = r.Scan(&line)
		return line, err
	})
	if text := strings.Join(said, "; "); err == nil && text != "ok" {
		err = fmt.Errorf("%w: %s", errDamaged, strings.ReplaceAll(text, "\n", ": "))
	}
	return err
}

// withWayOut replaces the hint of an error that a copy can help against.
func withWayOut(ctx context.Context, dir string, err error) error {
	var e *tenement.Error
	damaged := isDamage(err)
	if !errors.As(err, &e) || !damaged && e.Code != tenement.CodeConflict { // of a newer version
		return err
	}
	told := *e
	newest, err := newestGood(ctx, dir)
	if err == nil {
		told.Hint = "the newest good copy is " + newest.Path + ": restore it, without what has changed since, with: " + restoreCommand(dir)
	} else if damaged {
		told.Hint = "there is no good copy in " + copiesPath(dir) + ": restore one of your own with: " + restoreCommand(dir) +
			"=FILE; or begin with an empty registry, by moving " + pathIn(dir) + "* and " + copiesPath(dir) +
			" away; the tenants' data is elsewhere and unharmed"
	}
	if !damaged && told.Hint != e.Hint { // only newer: its own program comes first
		told.Hint = e.Hint + "; or: " + told.Hint
	}
	return &told
}
