package store

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tenement"
)

// flipPage overwrites a page of the rows of a database that nobody has open. In the middle of
// it there may be the root of an index, whose damage is seen at once.
func flipPage(t testing.TB, path string) {
	t.Helper()
	file, err := os.ReadFile(path)
	must(t, err)
	const page = 4096
	at := len(file) * 2 / 3 / page * page
	for i := range page {
		file[at+i] ^= 0xff
	}
	must(t, os.WriteFile(path, file, 0o600))
}

// execOn runs a statement on a database that no Store has open.
func execOn(t testing.TB, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path, readWrite))
	must(t, err)
	_, err = db.ExecContext(t.Context(), statement)
	must(t, errors.Join(err, db.Close()))
}

// execInLog is execOn as a killed process leaves it: what changed is in the log.
func execInLog(t testing.TB, path, statement string) {
	t.Helper()
	main, err := os.ReadFile(path)
	must(t, err)
	db, err := sql.Open("sqlite", dsn(path, readWrite))
	must(t, err)
	_, err = db.ExecContext(t.Context(), statement)
	must(t, err)
	log, err := os.ReadFile(path + "-wal")
	must(t, errors.Join(err, db.Close()))
	must(t, errors.Join(os.WriteFile(path, main, 0o600), os.WriteFile(path+"-wal", log, 0o600)))
}

// logOf is the write-ahead log of another registry, as a killed daemon leaves it: it
// holds some of that one's pages. (One that holds all of them, of a registry that was
// never checkpointed, is a whole database, and nothing tells that it is another.)
func logOf(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(t.Context(), dir)
	must(t, err)
	addRows(t, s, 1500)
	must(t, s.Close())
	s = openStore(t, dir)
	_, err = s.write.ExecContext(t.Context(), "UPDATE instances SET weight = 1, retry_at = 1 WHERE name GLOB '*7'")
	must(t, err)
	log, err := os.ReadFile(filepath.Join(dir, "state.db-wal"))
	must(t, err)
	return log
}

// damages are ways in which a registry of 1,000 instances can be lost. What Open does
// not see, Check must.
var damages = map[string]struct {
	damage func(t testing.TB, path string)
	says   string // what the error says is wrong
	deep   bool   // Open may not see it
	code   tenement.Code
}{
	"truncated": {damage: func(t testing.TB, path string) { must(t, os.Truncate(path, 40960)) }, says: "malformed"},
	"cut within a page": {damage: func(t testing.TB, path string) {
		info, err := os.Stat(path)
		must(t, err)
		must(t, os.Truncate(path, info.Size()-100))
	}, deep: true},
	"empty": {damage: func(t testing.TB, path string) { must(t, os.Truncate(path, 0)) }, says: "it is empty"},
	"empty with a log": {damage: func(t testing.TB, path string) {
		must(t, os.Truncate(path, 0))
		must(t, os.WriteFile(path+"-wal", logOf(t), 0o600))
	}, says: "its write-ahead log state.db-wal is there"},
	"missing": {damage: func(t testing.TB, path string) { must(t, os.Remove(path)) }, says: "it is missing"},
	"missing with a log": {damage: func(t testing.TB, path string) {
		must(t, os.Remove(path))
		must(t, os.WriteFile(path+"-wal", logOf(t), 0o600))
	}, says: "its write-ahead log state.db-wal is there"},
	"garbage header": {damage: func(t testing.TB, path string) {
		file, err := os.ReadFile(path)
		must(t, err)
		copy(file, "garbage garbage garbage")
		must(t, os.WriteFile(path, file, 0o600))
	}, says: "not a database"},
	"page in the middle": {damage: flipPage, deep: true},
	"text": {damage: func(t testing.TB, path string) {
		must(t, os.WriteFile(path, bytes.Repeat([]byte("not a database\n"), 1000), 0o600))
	}, says: "not a database"},
	"missing table": {damage: func(t testing.TB, path string) { execOn(t, path, "DROP TABLE tokens") }, says: "no such table: tokens"},
	"newer": {damage: func(t testing.TB, path string) { execOn(t, path, "PRAGMA user_version = 999") },
		says: "version 999, this program knows up to", code: tenement.CodeConflict},
	// The end of a connection that may write would put the log into the database.
	"newer, in the log": {damage: func(t testing.TB, path string) { execInLog(t, path, "PRAGMA user_version = 999") },
		says: "version 999", code: tenement.CodeConflict},
	"missing table, in the log": {damage: func(t testing.TB, path string) { execInLog(t, path, "DROP TABLE events") }, says: "no such table: events"},
	"of another program": {damage: func(t testing.TB, path string) {
		must(t, os.Remove(path))
		execOn(t, path, "CREATE TABLE bookmarks (url TEXT)")
	}, says: "another program"},
	"without tables": {damage: func(t testing.TB, path string) {
		must(t, os.Remove(path))
		execOn(t, path, "CREATE TABLE t (x); DROP TABLE t")
	}, says: "it has no tables"},
	"directory": {damage: func(t testing.TB, path string) {
		must(t, os.Remove(path))
		must(t, os.Mkdir(path, 0o700))
		must(t, os.WriteFile(filepath.Join(path, "file"), nil, 0o600))
	}, says: "it is a directory"},
	"FIFO": {damage: func(t testing.TB, path string) {
		must(t, os.Remove(path))
		must(t, syscall.Mkfifo(path, 0o600))
	}, says: "it is no file"},
	"log of another": {damage: func(t testing.TB, path string) {
		must(t, os.WriteFile(path+"-wal", logOf(t), 0o600))
	}, deep: true},
}

// damagedState is a state directory with a good copy of 1,000 instances, damaged.
func damagedState(t *testing.T, damage func(testing.TB, string)) (dir, copy string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "da ta", ".tenement")
	s := openStore(t, dir)
	addRows(t, s, 1000)
	copy = backUp(t, s, noon)
	must(t, s.Close())
	damage(t, filepath.Join(dir, "state.db"))
	return dir, copy
}

// TestDamage: each is refused with the way out, by Open and by the doctor's look; the
// way out works, and what was there is kept as it was.
func TestDamage(t *testing.T) {
	t.Parallel()
	for name, test := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, copy := damagedState(t, test.damage)
			path := filepath.Join(dir, "state.db")
			before, log := contents(t, path), contents(t, path+"-wal")
			s, err := Open(t.Context(), dir)
			if err == nil && test.deep {
				err = s.Check(t.Context())
				must(t, s.Close())
			}
			_, looked := CheckState(t.Context(), dir)
			code := test.code
			if code == "" {
				code = tenement.CodeInternal
			}
			for _, err := range []error{err, looked} {
				wantCode(t, err, code)
				hint := tenement.HintOf(err)
				for _, part := range []string{copy, "ten doctor --data-dir '" + filepath.Dir(dir) + "' --restore"} {
					if !strings.Contains(hint, part) {
						t.Errorf("the hint %q of %v does not say %s", hint, err, part)
					}
				}
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("error %v does not say %q", err, test.says)
				}
			}
			if !test.deep && (contents(t, path) != before || contents(t, path+"-wal") != log) {
				t.Error("looking at it changed it")
			}
			r, err := Restore(t.Context(), dir, "", noon)
			must(t, err)
			if r.From != copy || r.Instances != 1000 {
				t.Errorf("restored %+v", r)
			}
			if !test.deep && (contents(t, path+".damaged-20260301T120000Z") != before || contents(t, path+".damaged-20260301T120000Z-wal") != log) {
				t.Error("what was there is not kept as it was")
			}
			s = openStore(t, dir)
			must(t, s.Check(t.Context()))
			if list, err := s.Instances(t.Context(), Filter{Limit: 2000}); err != nil || len(list) != 1000 {
				t.Errorf("%d instances, %v", len(list), err)
			}
		})
	}
}

// contents tells apart whatever is at path.
func contents(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "" // a look leaves an empty log
	case err != nil:
		t.Fatal(err)
	case info.IsDir():
		return "directory with " + fileNames(t, path)
	case !info.Mode().IsRegular():
		return info.Mode().String()
	}
	file, err := os.ReadFile(path)
	must(t, err)
	return string(file)
}

// TestDamageWithoutCopies names the other ways out.
func TestDamageWithoutCopies(t *testing.T) {
	t.Parallel()
	dir, copy := damagedState(t, damages["truncated"].damage)
	must(t, os.Truncate(copy, 5000)) // damaged as well
	_, err := Open(t.Context(), dir)
	wantCode(t, err, tenement.CodeInternal)
	for _, part := range []string{"no good copy", "--restore=FILE", "begin with an empty registry"} {
		if !strings.Contains(tenement.HintOf(err), part) {
			t.Errorf("hint %q does not say %q", tenement.HintOf(err), part)
		}
	}
	_, err = Restore(t.Context(), dir, "", noon)
	wantCode(t, err, tenement.CodeNotFound)
	// As told, to begin anew.
	must(t, os.Rename(filepath.Join(dir, "state.db"), filepath.Join(t.TempDir(), "state.db")))
	must(t, os.Rename(filepath.Join(dir, "backups"), filepath.Join(t.TempDir(), "backups")))
	openStore(t, dir)
}

// TestNewestGoodCopy passes over a newer one that is damaged or of a newer version.
func TestNewestGoodCopy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	addRows(t, s, 1000)
	good := backUp(t, s, noon)
	execOn(t, backUp(t, s, noon.Add(day)), "PRAGMA user_version = 999")
	flipPage(t, backUp(t, s, noon.Add(2*day)))
	newest, err := newestGood(t.Context(), dir)
	must(t, err)
	if newest.Path != good {
		t.Errorf("the newest good copy is %s, want %s", newest.Path, good)
	}
}

// TestFirstStart: what a first start leaves that was killed is no damage.
func TestFirstStart(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(testing.TB, string){
		"nothing":  func(testing.TB, string) {},
		"empty":    func(t testing.TB, path string) { must(t, os.WriteFile(path, nil, 0o600)) },
		"no log":   func(t testing.TB, path string) { must(t, os.WriteFile(path+"-wal", nil, 0o600)) },
		"no table": func(t testing.TB, path string) { execOn(t, path, "CREATE TABLE t (x); DROP TABLE t") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			begin(t, filepath.Join(dir, "state.db"))
			_, err := CheckState(t.Context(), dir)
			wantCode(t, err, tenement.CodeNotFound)
			register(t, openStore(t, dir), "api:alice")
			found, err := CheckState(t.Context(), dir)
			if err != nil || found.Instances != 1 {
				t.Errorf("found %+v, %v", found, err)
			}
		})
	}
}

// TestUnreadable runs this test as a user who may not read what is root's: root may
// read everything.
func TestUnreadable(t *testing.T) {
	const variable, nobody = "STORE_TEST_UNREADABLE", 65534
	if dir := os.Getenv(variable); dir != "" {
		must(t, errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)))
		_, err := Open(t.Context(), dir)
		wantCode(t, err, tenement.CodeUnavailable)
		if hint := tenement.HintOf(err); !strings.Contains(hint, dir) || !strings.Contains(hint, "readable and writable") {
			t.Errorf("error %v has hint %q", err, hint)
		}
		if _, err := CheckState(t.Context(), dir); !errors.Is(err, fs.ErrPermission) && tenement.CodeOf(err) != tenement.CodeUnavailable {
			t.Errorf("looking at it: %v", err)
		}
		return
	}
	t.Parallel()
	requireRoot(t)
	dir := t.TempDir()
	s, err := Open(t.Context(), dir)
	must(t, err)
	must(t, s.Close())
	must(t, os.Remove(filepath.Join(dir, "lock")))
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chown(dir, nobody, nobody)) // but not the files in it
	runAgain(t, "TestUnreadable", variable+"="+dir)
}

// runAgain runs one test of this binary in another process.
func runAgain(t *testing.T, test string, env ...string) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$", "-test.count=1", "-test.timeout=2m")
	child.Env = append(os.Environ(), env...)
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// requireRoot skips a test that only root can run, unless TENEMENT_REQUIRE forbids it.
func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const message = "only root can do this: run the tests as root"
	if strings.Contains(os.Getenv("TENEMENT_REQUIRE"), "root") {
		t.Fatal(message)
	}
	t.Skip(fmt.Sprint(message, "; TENEMENT_REQUIRE=root makes it a failure"))
}
