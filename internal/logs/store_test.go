package logs

import (
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"tenement"
)

func TestMain(m *testing.M) {
	captureMain()
	flag.Parse()
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		_ = flag.Set("rapid.checks", strconv.Itoa(100/slower)) // a number is accepted
	}
	goleak.VerifyTestMain(m)
}

var (
	alice = tenement.InstanceID{Service: "api", Name: "alice"}
	bob   = tenement.InstanceID{Service: "api", Name: "bob"}
)

// testPace is for tests in which many offers wait one for the other, as no streams' do.
const testPace = 10 * time.Millisecond

// open opens a store that ends with the test.
func open(t testing.TB, l Limits) *Store {
	t.Helper()
	return openIn(t, t.TempDir(), l)
}

func openIn(t testing.TB, dir string, l Limits) *Store {
	t.Helper()
	if l.pace == 0 {
		l.pace = testPace
	}
	s, err := Open(t.Context(), dir, l, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// print gives text to the store as one stream's output, all of it.
func (s *Store) print(id tenement.InstanceID, level Level, text string) {
	take(s.Sink(id, level), []byte(text), true)
}

func query(t testing.TB, s *Store, q Query) []Line {
	t.Helper()
	lines, err := s.Query(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func texts(lines []Line) []string {
	var list []string
	for _, l := range lines {
		list = append(list, l.Text)
	}
	return list
}

func wantTexts(t testing.TB, got []Line, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, texts(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openIn(t, dir, Limits{})
	before := time.Now()
	s.print(alice, Stdout, "one\ntwo\n")
	s.print(bob, Stderr, "three\n")
	first := query(t, s, Query{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openIn(t, dir, Limits{})
	s.print(alice, Stdout, "four\n")
	lines := query(t, s, Query{})
	wantTexts(t, lines, "one", "two", "three", "four")
	if diff := cmp.Diff(first, lines[:3]); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
	for i, l := range lines {
		if l.At.Before(before.Truncate(0)) || time.Since(l.At) < 0 || i > 0 && l.ID != lines[i-1].ID+1 {
			t.Errorf("line %d: %+v", i, l)
		}
	}
	if lines[2].Instance != bob || lines[2].Level != Stderr || lines[3].Instance != alice || lines[3].Level != Stdout {
		t.Errorf("%+v", lines)
	}
}

func TestFileMode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openIn(t, dir, Limits{})
	s.print(alice, Stdout, "one\n")
	for _, name := range []string{"logs.db", "logs.db-wal", "logs.db-shm"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	s := open(t, Limits{})
	s.Append(alice, Stderr, "")
	s.Append(alice, Stderr, "one\ntwo\r\n\nthree \xff")
	s.print(alice, Stdout, "four") // the writer keeps the order
	wantTexts(t, query(t, s, Query{}), "one", "two", "", "three \uFFFD", "four")
}

func TestDrop(t *testing.T) {
	t.Parallel()
	s := open(t, Limits{})
	s.print(alice, Stdout, "a\n")
	s.print(bob, Stdout, "b\n")
	s.Drop(alice)
	s.Drop(alice)
	wantTexts(t, query(t, s, Query{}), "b")
	wantTexts(t, query(t, s, Query{Instance: alice}))
	s.print(alice, Stdout, "again\n")
	wantTexts(t, query(t, s, Query{}), "b", "again")
	wantTexts(t, query(t, s, Query{Instance: alice}), "again")
	eventually(t, "the dropped rows are gone", func() bool { return count(t, s, "SELECT count(*) FROM chunks") == 2 })
	eventually(t, "the dropped account is gone", func() bool { return count(t, s, "SELECT count(*) FROM instances") == 2 })
}

// TestDroppedRowsAreNotSeen while they are still there, by the index or without.
func TestDroppedRowsAreNotSeen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openIn(t, dir, Limits{indexStep: 1})
	s.print(alice, Stdout, "secret\n")
	awaitIndex(t, s)
	s.print(bob, Stdout, "known\n")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := openDatabase(t.Context(), s.path, s.limits)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.close() }()
	still := &Store{} // nothing clears away in it
	still.db.Store(d)
	w := writer{Store: still, ctx: t.Context()}
	if err := d.inTransaction(t.Context(), func() error { return w.drop(d, alice) }); err != nil {
		t.Fatal(err)
	}
	wantTexts(t, query(t, still, Query{}), "known")
	wantTexts(t, query(t, still, Query{Search: "secret"}))
	if n := count(t, still, "SELECT count(*) FROM chunks"); n != 2 {
		t.Errorf("%d chunks: nothing was to be hidden", n)
	}
}

// TestClosed: nothing hangs, and what can be offered to the next daemon is not taken.
func TestClosed(t *testing.T) {
	t.Parallel()
	s := open(t, Limits{})
	k := s.Sink(alice, Stdout)
	take(k, []byte("one\n"), false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := take(k, []byte("two\n"), false); n != 0 {
		t.Errorf("%d bytes were taken", n)
	}
	if n := take(k, []byte(strings.Repeat("x", 2*maxLine)), false); n != 0 || k.state.over {
		t.Errorf("%d bytes of a long line were taken, its rest is skipped: %v", n, k.state.over)
	}
	for _, last := range []bool{false, true} {
		offer := strings.Repeat("x", wholeOffer-1) + "\n"
		if n := take(k, []byte(offer), last); n != len(offer) {
			t.Errorf("last %v: %d bytes were taken", last, n)
		}
	}
	s.Append(alice, Stdout, "three")
	s.Drop(alice)
	if _, err := s.Query(t.Context(), Query{}); tenement.CodeOf(err) != tenement.CodeInternal {
		t.Errorf("Query: %v", err)
	}
}

func count(t testing.TB, s *Store, query string, args ...any) int64 {
	t.Helper()
	var n int64
	if err := s.db.Load().read.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// eventually waits for what the writer does by itself.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute) // only on a machine that does much else
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to be that " + what)
		}
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // polling with a deadline
	}
}

func numbered(from, to int) string {
	var b strings.Builder
	for n := from; n < to; n++ {
		b.WriteString("line " + strconv.Itoa(n) + "\n")
	}
	return b.String()
}
