package store

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

const day = 24 * time.Hour

func fileNames(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return strings.Join(names, " ")
}

func backUp(t testing.TB, s *Store, now time.Time) string {
	t.Helper()
	path, err := s.BackUp(t.Context(), now)
	must(t, err)
	return path
}

// addRows registers n instances of service api in one statement.
func addRows(t testing.TB, s *Store, n int) {
	t.Helper()
	_, err := s.write.ExecContext(t.Context(), `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO instances (service, name, created_at, reason) SELECT 'api', 'tenant-' || i, 1, 'exit status 3' FROM n`, n-1)
	must(t, err)
}

func TestOneCopyADay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	register(t, s, "api:alice", "api:bob")
	first := backUp(t, s, noon)
	if want := filepath.Join(dir, "backups", "state-20260301T120000Z.db"); first != want {
		t.Fatalf("the copy is %s, want %s", first, want)
	}
	register(t, s, "api:carol")
	// The end of that day in UTC is another day in Tokyo.
	for _, now := range []time.Time{noon, noon.Add(11 * time.Hour), noon.Add(11 * time.Hour).In(time.FixedZone("Tokyo", 9*3600)), noon.Add(-12 * time.Hour)} {
		if again := backUp(t, s, now); again != "" {
			t.Errorf("%v: a second copy %s", now, again)
		}
	}
	second := backUp(t, s, noon.Add(12*time.Hour))
	for path, want := range map[string]int{first: 2, second: 3} {
		found, err := CheckCopy(t.Context(), path)
		must(t, err)
		if diff := cmp.Diff(Contents{Version: len(migrations), Instances: want}, found); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
		info, err := os.Stat(path)
		must(t, err)
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "backups")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("backups: %v, %v", info.Mode(), err)
	}
}

func TestSevenCopiesAreKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	must(t, os.Mkdir(filepath.Join(dir, "backups"), 0o700))
	others := []string{"mine.db", "state-20200101T000000Z.db.bak", "state-20201301T000000Z.db", "state-20200101T000000Z-before-v9.db"}
	for _, name := range others {
		must(t, os.WriteFile(filepath.Join(dir, "backups", name), nil, 0o600))
	}
	for n := range 10 {
		backUp(t, s, noon.Add(time.Duration(n)*day))
	}
	for _, name := range others { // what is not a copy of a day is not counted
		must(t, os.Remove(filepath.Join(dir, "backups", name)))
	}
	want := ""
	for n := 4; n <= 10; n++ {
		want += fmt.Sprintf(" state-202603%02dT120000Z.db", n)
	}
	if got := " " + fileNames(t, filepath.Join(dir, "backups")); got != want {
		t.Errorf("kept%s, want%s", got, want)
	}
	// A clock that was set back: the copy just made is not the one to go.
	if path := backUp(t, s, noon); !exists(path) {
		t.Error("the copy of a day before the others was removed at once")
	}
}

// TestNoCopyOfDamage: a damaged database must not push the good copies out.
func TestNoCopyOfDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	addRows(t, s, 1000)
	good := backUp(t, s, noon)
	must(t, s.Close())
	flipPage(t, filepath.Join(dir, "state.db"))
	s = openStore(t, dir) // the damage is too deep to be seen
	for _, err := range []error{
		s.Check(t.Context()),
		func() error { _, err := s.BackUp(t.Context(), noon.Add(day)); return err }(),
	} {
		wantCode(t, err, tenement.CodeInternal)
		if hint := tenement.HintOf(err); !strings.Contains(hint, good) || !strings.Contains(hint, "ten doctor") {
			t.Errorf("error %v has hint %q", err, hint)
		}
	}
	if got := fileNames(t, filepath.Join(dir, "backups")); got != filepath.Base(good) {
		t.Errorf("backups holds %s", got)
	}
}

func TestFailedCopyLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	made := filepath.Join(dir, "backups")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.copyTo(ctx, Copy{Made: noon})
	wantCode(t, failure("copy", err), tenement.CodeCanceled)
	if left := fileNames(t, made); left != "" {
		t.Errorf("given up, it left %s", left)
	}
	inTheWay := filepath.Join(made, Copy{Made: noon}.name(), "file")
	must(t, os.MkdirAll(inTheWay, 0o700))
	if _, err := s.copyTo(t.Context(), Copy{Made: noon}); err == nil {
		t.Error("it took the name of a directory")
	}
	must(t, os.RemoveAll(filepath.Dir(inTheWay)))
	if left := fileNames(t, made); left != "" {
		t.Errorf("without its name, it left %s", left)
	}
	backUp(t, s, noon)
}

func fileCount(dir string) int {
	entries, _ := os.ReadDir(dir)
	return len(entries)
}

// TestPartialsAreSwept: what a killed process had begun goes with the next start.
func TestPartialsAreSwept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "backups"), 0o700))
	for _, name := range []string{"partial-1", "backups/partial-2", "backups/partial-2-journal"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	openStore(t, dir)
	if got := fileNames(t, dir) + " " + fileNames(t, filepath.Join(dir, "backups")); strings.Contains(got, "partial") {
		t.Errorf("still there: %s", got)
	}
}

// TestCopyBesideAWriter: a copy and a transaction that writes want no lock of one
// another, and the copy holds what is committed.
func TestCopyBesideAWriter(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	register(t, s, "api:alice")
	must(t, s.inTransaction(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, insertInstance, "api", "bob", 1); err != nil {
			return err
		}
		path, err := s.BackUp(ctx, noon)
		if err != nil {
			return err
		}
		found, err := CheckCopy(ctx, path)
		if err == nil && found.Instances != 1 {
			t.Errorf("the copy holds %d instances", found.Instances)
		}
		return err
	}))
}

// BenchmarkBackUp says what a copy of a million instances takes, and the longest that
// a write waited meanwhile.
func BenchmarkBackUp(b *testing.B) {
	dir := b.TempDir()
	s := openStore(b, dir)
	addRows(b, s, 1_000_000)
	id := instanceID(b, "api:tenant-1")
	n, longest := 0, time.Duration(0)
	for b.Loop() {
		n++
		copied := make(chan error, 1)
		go func() {
			_, err := s.BackUp(b.Context(), noon.Add(time.Duration(n)*day))
			copied <- err
		}()
		for done := false; !done; {
			begin := time.Now()
			must(b, s.SetFailure(b.Context(), id, tenement.Failure{Reason: begin.String()}))
			longest = max(longest, time.Since(begin))
			select {
			case err := <-copied:
				must(b, err)
				done = true
			case <-time.After(time.Millisecond):
			}
		}
	}
	b.ReportMetric(float64(longest.Microseconds())/1000, "ms/longest-write")
	info, err := os.Stat(filepath.Join(dir, "state.db"))
	must(b, err)
	b.ReportMetric(float64(info.Size())/1e6, "MB")
}
