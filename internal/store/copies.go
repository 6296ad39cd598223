package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"tenement"
	"tenement/internal/fault"
)

const (
	copiesDir   = "backups"
	keptCopies  = 7                  // days
	partialName = "partial-"         // begins the name of a file that is being written
	timeFormat  = "20060102T150405Z" // UTC; sorts as it passes
)

// Copy is a copy of the registry that this program made.
type Copy struct {
	Path string
	Made time.Time
	// Before is the version of the tables that a newer program was about to make when
	// it took this copy of the older ones; 0 for the copy of a day.
	Before int
}

var copyName = regexp.MustCompile(`^state-(\d{8}T\d{6}Z)(?:-before-v(\d+))?\.db$`)

func (c Copy) name() string {
	name := "state-" + c.Made.UTC().Format(timeFormat)
	if c.Before > 0 {
		name += "-before-v" + strconv.Itoa(c.Before)
	}
	return name + ".db"
}

// Copies lists the copies of the state in dir, the newest first: those of the last
// seven days, and for each migration the one made before it. Whether they are good
// is for [CheckCopy] to say.
func Copies(dir string) ([]Copy, error) {
	entries, err := os.ReadDir(filepath.Join(dir, copiesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, failure("list copies of state", err)
	}
	var list []Copy
	for _, entry := range entries {
		found := copyName.FindStringSubmatch(entry.Name())
		if found == nil {
			continue
		}
		made, err := time.Parse(timeFormat, found[1])
		if err != nil {
			continue
		}
		before, _ := strconv.Atoi(found[2]) // "" = 0
		list = append(list, Copy{Path: filepath.Join(dir, copiesDir, entry.Name()), Made: made, Before: before})
	}
	slices.SortFunc(list, func(a, b Copy) int { return b.Made.Compare(a.Made) })
	return list, nil
}

// BackUp makes the copy of the day, UTC, that now is in, and removes copies of days
// of which there are seven newer ones. It returns "" if that day has one. The copy is
// whole and on the disk when it gets its name.
//
// The database is looked at first, every page, and if it is damaged no copy is made,
// so that the good ones stay: CodeInternal. It is CodeUnavailable if the disk does not
// take it. Nobody waits for it: a copy only reads.
func (s *Store) BackUp(ctx context.Context, now time.Time) (path string, err error) {
	list, err := Copies(s.dir)
	if err != nil {
		return "", err
	}
	today := now.UTC().Format(time.DateOnly)
	if slices.ContainsFunc(list, func(c Copy) bool { return c.Before == 0 && c.Made.Format(time.DateOnly) == today }) {
		return "", nil
	}
	if err := s.Check(ctx); err != nil {
		return "", err
	}
	made, err := s.copyTo(ctx, Copy{Made: now})
	return made.Path, failureIn(s.dir, "copy state", err)
}

// copyTo makes the copy c and removes those that it makes superfluous.
func (s *Store) copyTo(ctx context.Context, c Copy) (Copy, error) {
	dir := filepath.Join(s.dir, copiesDir)
	if err := makeSyncedDir(dir); err != nil {
		return c, err
	}
	c.Path = filepath.Join(dir, c.name())
	if err := copyDatabase(ctx, s.path(), c.Path); err != nil {
		return c, err
	}
	fault.Point(fault.BackupKept)
	return c, prune(s.dir, c)
}

func makeSyncedDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return errors.Join(err, syncPath(filepath.Dir(dir)))
}

// prune removes what there are enough of, but never made, which a clock that was set
// back may have given the oldest name.
func prune(dir string, made Copy) error {
	list, err := Copies(dir)
	if err != nil {
		return err
	}
	kept := map[int]int{}
	var failed []error
	for _, c := range list { // the newest first
		allowed := 1
		if c.Before == 0 {
			allowed = keptCopies
		}
		if kept[c.Before]++; kept[c.Before] > allowed && c.Path != made.Path {
			failed = append(failed, os.Remove(c.Path))
		}
	}
	return errors.Join(failed...)
}

// copyDatabase writes what the database from holds now into a new one, which is
// checked, put on the disk and only then named to. VACUUM INTO reads in one
// transaction, which in WAL mode keeps nobody from writing, and ends with ctx; the
// backup API does neither both ways.
func copyDatabase(ctx context.Context, from, to string) (err error) {
	partial, err := makePartial(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeIfThere(partial))
		}
	}()
	if err := vacuumInto(ctx, from, partial); err != nil {
		return err
	}
	if err := syncPath(partial); err != nil {
		return err
	}
	if _, err := CheckCopy(ctx, partial); err != nil {
		return err
	}
	fault.Point(fault.BackupWritten)
	return renameSynced(partial, to)
}

func vacuumInto(ctx context.Context, from, to string) error {
	db, err := sql.Open("sqlite", dsn(from, readOnly))
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", to)
	return errors.Join(err, db.Close())
}

// makePartial makes an empty file, mode 0600, that [removePartials] would find.
func makePartial(dir string) (string, error) {
	file, err := os.CreateTemp(dir, partialName+"*")
	if err != nil {
		return "", err
	}
	return file.Name(), file.Close()
}

// removePartials removes what a process that was killed had begun. Only the holder
// of the lock may call it, before anything is begun.
func removePartials(dir string) error {
	var failed []error
	for _, pattern := range []string{partialName + "*", filepath.Join(copiesDir, partialName+"*")} {
		found, err := fs.Glob(os.DirFS(dir), pattern)
		failed = append(failed, err)
		for _, name := range found {
			failed = append(failed, os.Remove(filepath.Join(dir, name)))
		}
	}
	return errors.Join(failed...)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// renameSynced renames within a directory so that it survives a loss of power.
func renameSynced(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncPath(filepath.Dir(to))
}

// syncPath puts a file, or a directory's names, on the disk itself. It must not be
// used on a database that is open: closing any descriptor of it drops SQLite's locks.
func syncPath(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// newestGood is the newest copy that [CheckCopy] finds good; CodeNotFound if none is.
func newestGood(ctx context.Context, dir string) (Copy, error) {
	list, err := Copies(dir)
	if err != nil {
		return Copy{}, err
	}
	for _, c := range list {
		if _, err := CheckCopy(ctx, c.Path); err == nil {
			return c, nil
		} else if ctx.Err() != nil {
			return Copy{}, failure("look for a good copy", ctx.Err())
		}
	}
	return Copy{}, &tenement.Error{
		Code: tenement.CodeNotFound, Op: "look for a good copy",
		Err:  fmt.Errorf("there is none in %s", filepath.Join(dir, copiesDir)),
		Hint: "name a copy of your own with --restore=FILE",
	}
}
