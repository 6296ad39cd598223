package store

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tenement"
	"tenement/internal/fault"
)

// crash is what a process does on a directory when it passes a point and is killed
// there, and what must be true of what it leaves.
type crash struct {
	prepare func(t *testing.T, dir string) // before it
	do      func(t *testing.T, dir string) // in that process
	check   func(t *testing.T, dir string) // after it
}

var (
	crashID    = tenement.InstanceID{Service: "api", Name: "alice"}
	oldProcess = tenement.Ref{PID: 1, BootID: "b", Cgroup: "/old"}
	newProcess = tenement.Ref{PID: 2, BootID: "b", Cgroup: "/new"}
)

// crashes has one for each point of this package.
var crashes = map[fault.Name]crash{
	fault.PutProcessBefore:   {putOld, putNew, hasProcess(oldProcess)},
	fault.PutProcessAfter:    {putOld, putNew, hasProcess(newProcess)},
	fault.MigrationHalf:      {loadFirst, migrateFurther, isFirst},
	fault.BackupWritten:      {withCopies(7), copyNext, copiesAre(7)},
	fault.BackupKept:         {withCopies(7), copyNext, copiesAre(8)},
	fault.RestoreWritten:     {withLostLog, restoreNewest, holds("api:alice api:lost", "")},
	fault.RestoreDecided:     {withLostLog, restoreNewest, holds("api:alice", "api:alice api:lost")},
	fault.RestoreOldHalfAway: {withLostLog, restoreNewest, holds("api:alice", "api:alice api:lost")},
	fault.RestoreOldAway:     {withLostLog, restoreNewest, holds("api:alice", "api:alice api:lost")},
	fault.RestoreDone:        {withLostLog, restoreNewest, holds("api:alice", "api:alice api:lost")},
}

// TestCrashes kills a process of its own, built with the points, at each of them.
func TestCrashes(t *testing.T) {
	const variable = "STORE_TEST_CRASH_IN"
	if dir := os.Getenv(variable); dir != "" {
		point, _, _ := strings.Cut(os.Getenv(fault.Variable), ":")
		crashes[fault.Name(point)].do(t, dir)
		t.Fatal("the point was not passed")
	}
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "store.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "faults", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, point := range fault.Points {
		if !strings.HasPrefix(string(point), "store.") {
			continue
		}
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			c, ok := crashes[point]
			if !ok {
				t.Fatal("nothing crashes there: add it to crashes")
			}
			dir := t.TempDir()
			c.prepare(t, dir)
			if killed, said := killedAt(t, binary, string(point), variable+"="+dir); !killed {
				t.Fatalf("it was not killed at the point: %s", said)
			}
			c.check(t, dir)
		})
	}
	for point, want := range map[string]string{
		string(fault.PutProcessAfter) + ":2": "the point was not passed", // twice
		string(fault.PutProcessAfter) + ":0": "no number of a pass",
		"store.nowhere":                      "no such point",
	} {
		if killed, said := killedAt(t, binary, point, variable+"="+t.TempDir()); killed || !strings.Contains(said, want) {
			t.Errorf("%s: killed %v, said %s", point, killed, said)
		}
	}
}

// killedAt runs this test in a process that is to kill itself at a point.
func killedAt(t *testing.T, binary, point, dir string) (killed bool, said string) {
	t.Helper()
	child := exec.CommandContext(t.Context(), binary, "-test.run=^TestCrashes$", "-test.timeout=2m")
	child.Env = append(os.Environ(), dir, fault.Variable+"="+point)
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		killed = exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	}
	return killed, string(out)
}

// with opens the store of dir, lets do use it, and closes it.
func with(t *testing.T, dir string, do func(*Store)) {
	t.Helper()
	s, err := Open(t.Context(), dir)
	must(t, err)
	do(s)
	must(t, s.Close())
}

func putOld(t *testing.T, dir string) {
	with(t, dir, func(s *Store) { must(t, s.PutProcess(t.Context(), crashID, Process{Ref: oldProcess})) })
}

func putNew(t *testing.T, dir string) {
	with(t, dir, func(s *Store) { must(t, s.PutProcess(t.Context(), crashID, Process{Ref: newProcess})) })
}

func hasProcess(want tenement.Ref) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		with(t, dir, func(s *Store) {
			got, err := s.Processes(t.Context())
			must(t, err)
			if diff := cmp.Diff(map[tenement.InstanceID]Process{crashID: {Ref: want}}, got); diff != "" {
				t.Error(diff)
			}
			must(t, s.Check(t.Context()))
		})
	}
}

// loadFirst makes the database of version 1 as it was released.
func loadFirst(t *testing.T, dir string) {
	db := openRaw(t, pathIn(dir))
	load(t, db, 1)
}

func migrateFurther(t *testing.T, dir string) {
	migrations = append(slices.Clone(migrations), "UPDATE instances SET reason = 'lost'; ALTER TABLE processes ADD COLUMN color TEXT; DROP TABLE tokens")
	with(t, dir, func(*Store) {})
}

func isFirst(t *testing.T, dir string) {
	first := openRaw(t, filepath.Join(t.TempDir(), "state.db"))
	load(t, first, 1)
	if diff := cmp.Diff(dump(t, first), dump(t, openRaw(t, pathIn(dir)))); diff != "" {
		t.Errorf("not the database of version 1:\n%s", diff)
	}
	list, err := Copies(dir)
	must(t, err)
	if len(list) != 1 || list[0].Before != len(migrations)+1 {
		t.Fatalf("copies %v", list)
	}
	found, err := CheckCopy(t.Context(), list[0].Path)
	if err != nil || found.Version != 1 || found.Instances != 4 {
		t.Errorf("the copy from before the migration: %+v, %v", found, err)
	}
	with(t, dir, func(s *Store) { checkSample(t, s) })
}

func withCopies(n int) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		with(t, dir, func(s *Store) {
			register(t, s, "api:alice")
			for i := range n {
				backUp(t, s, noon.AddDate(0, 0, i))
			}
		})
	}
}

func copyNext(t *testing.T, dir string) {
	with(t, dir, func(s *Store) { backUp(t, s, noon.AddDate(0, 1, 0)) })
}

// copiesAre checks that there are n copies, all good, and again seven after another day.
func copiesAre(n int) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		goodCopies(t, dir, n)
		with(t, dir, func(s *Store) {
			if got := fileCount(copiesPath(dir)); got != n {
				t.Errorf("%d files are left, want %d: %s", got, n, fileNames(t, copiesPath(dir)))
			}
			backUp(t, s, noon.AddDate(0, 2, 0))
		})
		goodCopies(t, dir, 7)
	}
}

func goodCopies(t *testing.T, dir string, n int) {
	t.Helper()
	list, err := Copies(dir)
	must(t, err)
	if len(list) != n {
		t.Errorf("%d copies, want %d", len(list), n)
	}
	for _, c := range list {
		if _, err := CheckCopy(t.Context(), c.Path); err != nil {
			t.Error(err)
		}
	}
}

// withLostLog leaves a copy of one instance, and a state whose other instance is only
// in the write-ahead log, as after a kill: neither may get the log of the other.
func withLostLog(t *testing.T, dir string) {
	with(t, dir, func(s *Store) {
		register(t, s, "api:alice")
		backUp(t, s, noon)
	})
	main, err := os.ReadFile(pathIn(dir))
	must(t, err)
	var log []byte
	with(t, dir, func(s *Store) {
		register(t, s, "api:lost")
		log, err = os.ReadFile(pathIn(dir) + "-wal")
		must(t, err)
	})
	must(t, os.WriteFile(pathIn(dir), main, 0o600))
	must(t, os.WriteFile(pathIn(dir)+"-wal", log, 0o600))
	if bytes.Contains(main, []byte("lost")) {
		t.Fatal("the log is not needed")
	}
}

func restoreNewest(t *testing.T, dir string) {
	_, err := Restore(t.Context(), dir, "", noon)
	must(t, err)
}

// holds checks what is registered after the next start, and what is kept aside.
func holds(want, aside string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		registered(t, dir, want)
		if names := fileNames(t, dir); strings.Contains(names, restoringName) || strings.Contains(names, partialName) {
			t.Errorf("left behind: %s", names)
		}
		kept := filepath.Join(dir, damagedName+noon.UTC().Format(timeFormat))
		if aside == "" {
			if exists(kept) {
				t.Error("something was moved away")
			}
			return
		}
		old := t.TempDir()
		must(t, os.Rename(kept, pathIn(old)))
		must(t, os.Rename(kept+"-wal", pathIn(old)+"-wal"))
		registered(t, old, aside)
	}
}

func registered(t *testing.T, dir, want string) {
	t.Helper()
	with(t, dir, func(s *Store) {
		must(t, s.Check(t.Context()))
		if list, err := s.Instances(t.Context(), Filter{}); err != nil || names(list) != want {
			t.Errorf("registered: %s, %v; want %s", names(list), err, want)
		}
	})
}

// TestInterruptedRestore: the doctor says so, and restoring again is no harm.
func TestInterruptedRestore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	withLostLog(t, dir)
	list, err := Copies(dir)
	must(t, err)
	must(t, copyFile(list[0].Path, touch(t, filepath.Join(dir, restoringName+"20260301T120000Z"))))
	_, err = CheckState(t.Context(), dir)
	wantCode(t, err, tenement.CodeConflict)
	if !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("error %v", err)
	}
	restoreNewest(t, dir)
	registered(t, dir, "api:alice")
	if got := strings.Count(fileNames(t, dir), damagedName); got < 3 { // two databases, a log
		t.Errorf("something was lost: %s", fileNames(t, dir))
	}
}

// TestCopyBeforeMigration makes one version more in a process of its own: which
// migrations there are is the program's.
func TestCopyBeforeMigration(t *testing.T) {
	const variable = "STORE_TEST_NEXT_VERSION"
	dir := os.Getenv(variable)
	if dir == "" {
		t.Parallel()
		runAgain(t, "TestCopyBeforeMigration", variable+"="+t.TempDir())
		return
	}
	with(t, dir, func(s *Store) {
		register(t, s, "api:alice")
		for n := range 7 {
			backUp(t, s, noon.AddDate(0, 0, n))
		}
	})
	released := migrations
	migrations = append(slices.Clone(released), "this is no SQL")
	for range 2 { // a daemon that is restarted over and over
		if _, err := Open(t.Context(), dir); err == nil {
			t.Fatal("it was migrated by nonsense")
		}
	}
	list, err := Copies(dir)
	must(t, err)
	if len(list) != 8 || list[0].Before != len(migrations) {
		t.Fatalf("copies %v", list)
	}
	migrations[len(released)] = "ALTER TABLE processes ADD COLUMN color TEXT"
	must(t, os.Rename(copiesPath(dir), copiesPath(dir)+"-away"))
	must(t, os.WriteFile(copiesPath(dir), nil, 0o600))
	if _, err := Open(t.Context(), dir); err == nil {
		t.Fatal("it was migrated without a copy")
	}
	must(t, os.Remove(copiesPath(dir)))
	must(t, os.Rename(copiesPath(dir)+"-away", copiesPath(dir)))
	with(t, dir, func(*Store) {})

	// The program before cannot use it, and has the copy from before as its way back.
	migrations = released
	_, newer := Open(t.Context(), dir)
	wantCode(t, newer, tenement.CodeConflict)
	list, err = Copies(dir)
	must(t, err)
	if hint := tenement.HintOf(newer); len(list) != 8 || !strings.Contains(hint, "run that version") || !strings.Contains(hint, list[0].Path) {
		t.Errorf("copies %v, hint %q", list, hint)
	}
	restoreNewest(t, dir)
	registered(t, dir, "api:alice")
}
