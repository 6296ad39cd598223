package logs

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tenement"
)

// checkAccounts adds up what is held: the bounds are kept by these sums.
func checkAccounts(t testing.TB, s *Store) {
	t.Helper()
	if n := count(t, s, `SELECT count(*) FROM instances i WHERE bytes <>
		(SELECT coalesce(sum(octet_length(text) + ?), 0) FROM chunks c WHERE c.account = i.account)`, chunkOverhead); n > 0 {
		t.Errorf("%d accounts do not add up", n)
	}
	if n := count(t, s, "SELECT count(*) FROM chunks WHERE account NOT IN (SELECT account FROM instances)"); n > 0 {
		t.Errorf("%d chunks are of nobody", n)
	}
	if n := count(t, s, "SELECT count(*) FROM words_docsize WHERE id NOT IN (SELECT id FROM chunks)"); n > 0 {
		t.Errorf("the index has %d chunks that are gone", n)
	}
}

// diskUse is what the files take.
func diskUse(t testing.TB, s *Store) int64 {
	t.Helper()
	var sum int64
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(s.path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		sum += info.Size()
	}
	return sum
}

func TestBoundOfInstance(t *testing.T) {
	t.Parallel()
	const bound = 2 << 20 / slower
	s := open(t, Limits{Instance: bound, indexStep: 32 << 10})
	s.print(bob, Stdout, "quiet\n")
	var k *Sink
	line := strings.Repeat("word ", 20)
	for n := range 400 / slower * 2 { // 8 MiB
		if n%100 == 0 {
			k = s.Sink(alice, Stdout) // it may print as much as at its start
		}
		var b strings.Builder
		for range 100 {
			b.WriteString(line + strconv.Itoa(n) + "\n")
		}
		take(k, []byte(b.String()), false)
		if used := count(t, s, "SELECT max(bytes) FROM instances"); used > bound {
			t.Fatalf("%d bytes", used)
		}
	}
	lines := query(t, s, Query{Instance: alice, Limit: 100_000})
	if size := textOf(lines); size < bound*3/4 || size > bound {
		t.Errorf("%d bytes are kept", size)
	}
	if last := lines[len(lines)-1].Text; last != fmt.Sprint(line, 400/slower*2-1) {
		t.Errorf("the last line is %q", last)
	}
	wantTexts(t, query(t, s, Query{Search: "quiet"}), "quiet")
	awaitIndex(t, s)
	checkAccounts(t, s)
	if got, want := len(query(t, s, Query{Search: "word", Limit: 100_000})), len(lines); got != want {
		t.Errorf("%d lines of %d are found", got, want)
	}
}

// TestFairShare: those who flood lose their own lines, and the disk use holds.
func TestFairShare(t *testing.T) {
	t.Parallel()
	const bound = 16 << 20
	s := open(t, Limits{Instance: 4 << 20, Total: bound, indexStep: 64 << 10})
	for n := range 20 {
		s.print(tenement.InstanceID{Service: "quiet", Name: "q" + strconv.Itoa(n)}, Stdout, numbered(0, 1000))
	}
	var flooding sync.WaitGroup
	for n := range 6 { // 24 MiB
		flooding.Go(func() {
			k := s.Sink(tenement.InstanceID{Service: "flood", Name: "f" + strconv.Itoa(n)}, Stdout)
			for i := range 128 / slower {
				take(k, requestLines(n*1000+i), false)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		flooding.Wait()
		close(done)
	}()
	most := int64(0)
	for flooded := false; !flooded; {
		select {
		case <-done:
			flooded = true
		case <-time.After(10 * time.Millisecond):
		}
		most = max(most, diskUse(t, s))
	}
	if most > bound || most < bound/2 && slower == 1 {
		t.Errorf("%d bytes of disk for a bound of %d", most, bound)
	}
	for n := range 20 {
		id := tenement.InstanceID{Service: "quiet", Name: "q" + strconv.Itoa(n)}
		if lines := query(t, s, Query{Instance: id}); len(lines) != 1000 || lines[0].Text != "line 0" {
			t.Errorf("%s has %d lines", id, len(lines))
		}
	}
	awaitIndex(t, s)
	checkAccounts(t, s)
	kept := count(t, s, "SELECT sum(bytes) FROM instances")
	t.Logf("at most %d MiB of disk, %d MiB of text kept", most>>20, kept>>20)
	if kept < bound/4 && slower == 1 {
		t.Errorf("only %d bytes are kept in %d", kept, bound)
	}
}

// requestLines is 32 KiB of what a web server prints.
func requestLines(seed int) []byte {
	var list []byte
	for n := 0; len(list) < 32<<10; n++ {
		list = fmt.Appendf(list, "2026-01-02T15:04:%02d.%03dZ INFO request id=%08x method=GET path=/api/v1/items/%d status=200 took=%dms\n",
			seed%60, n, uint32(seed*1000+n)*2654435761, (seed+n*7)%5000, n%500)
	}
	return list
}

// hexLines is 32 KiB of lines that the index can make nothing of.
func hexLines(seed int) []byte {
	const digits = "0123456789abcdef"
	list := make([]byte, 32<<10)
	state := uint64(seed)*2654435761 + 1
	for i := range list {
		state = state*6364136223846793005 + 1442695040888963407
		list[i] = digits[state>>60]
		if i%9 == 8 {
			list[i] = ' '
		}
		if i%90 == 89 {
			list[i] = '\n'
		}
	}
	list[len(list)-1] = '\n'
	return list
}

func TestRetention(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openIn(t, dir, Limits{})
	s.print(alice, Stdout, "old\n")
	s.print(bob, Stdout, "old too\n")
	s.print(alice, Stdout, "new\n")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	age(t, dir, "UPDATE chunks SET at = at - 3600000000000 WHERE text LIKE 'old%'")
	s = openIn(t, dir, Limits{Retention: 30 * time.Minute})
	eventually(t, "old lines are gone", func() bool { return len(query(t, s, Query{})) == 1 })
	wantTexts(t, query(t, s, Query{}), "new")
	checkAccounts(t, s)
	if n := count(t, s, "SELECT count(*) FROM instances"); n != 1 {
		t.Errorf("%d accounts are left", n)
	}
}

// age changes a database that is closed.
func age(t *testing.T, dir, statement string) {
	t.Helper()
	d, err := openDatabase(t.Context(), filepath.Join(dir, fileName), Limits{Total: defaultTotal})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.write.ExecContext(t.Context(), statement); err != nil {
		t.Error(err)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}

// TestLoweredBound: also what an instance that sleeps has is cut to a new bound.
func TestLoweredBound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openIn(t, dir, Limits{})
	for n := range 50 {
		s.print(alice, Stdout, string(hexLines(n)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openIn(t, dir, Limits{Instance: 256 << 10})
	eventually(t, "the bound holds", func() bool { return count(t, s, "SELECT max(bytes) FROM instances") <= 256<<10 })
	if kept := count(t, s, "SELECT max(bytes) FROM instances"); kept < 200<<10 {
		t.Errorf("only %d bytes are left", kept)
	}
	checkAccounts(t, s)
}

// TestManyInstances: a hundred thousand with a line each.
func TestManyInstances(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	const instances = 100_000 / slower / slower
	s := open(t, Limits{})
	before := heap()
	var printing sync.WaitGroup
	for w := range 200 {
		printing.Go(func() {
			for n := w; n < instances; n += 200 {
				s.print(tenement.InstanceID{Service: "api", Name: "t" + strconv.Itoa(n)}, Stdout, "hello\n")
			}
		})
	}
	printing.Wait()
	awaitIndex(t, s)
	if grown := int64(heap()) - int64(before); grown > 8<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	if n := count(t, s, "SELECT count(*) FROM instances"); n != instances {
		t.Errorf("%d instances", n)
	}
	one := tenement.InstanceID{Service: "api", Name: "t777"}
	wantTexts(t, query(t, s, Query{Instance: one, Search: "hello"}), "hello")
	if lines := query(t, s, Query{Search: "hello", Limit: 10}); len(lines) != 10 {
		t.Errorf("%d lines", len(lines))
	}
	t.Logf("%d bytes of disk for each", diskUse(t, s)/instances)
}

// TestUnusableDatabase: whatever the file is, the store opens, and the old one is kept.
func TestUnusableDatabase(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"no database": func(t *testing.T, dir string) { overwrite(t, dir, 0, bytes.Repeat([]byte("nonsense"), 1000)) },
		"damaged":     func(t *testing.T, dir string) { overwrite(t, dir, 4096, bytes.Repeat([]byte{0xff}, 200<<10)) },
		"newer":       func(t *testing.T, dir string) { age(t, dir, "PRAGMA user_version = 99") },
		"other": func(t *testing.T, dir string) {
			age(t, dir, "DROP TABLE chunks")
		},
		"no counter": func(t *testing.T, dir string) { age(t, dir, "DELETE FROM counter") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openIn(t, dir, Limits{})
			s.print(alice, Stdout, "before\n")
			s.print(alice, Stdout, string(hexLines(1)))
			first := query(t, s, Query{})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				spoil(t, dir)
				var said bytes.Buffer
				s, err := Open(t.Context(), dir, Limits{}, slog.New(slog.NewTextHandler(&said, nil)))
				if err != nil {
					t.Fatal(err)
				}
				aside, err := filepath.Glob(filepath.Join(dir, "logs.db.corrupt-*Z"))
				if err != nil || len(aside) != 1 || !strings.Contains(said.String(), aside[0]) {
					t.Errorf("%v kept, %v, and said: %s", aside, err, said.String())
				}
				s.print(alice, Stdout, "after\n")
				lines := query(t, s, Query{})
				wantTexts(t, lines, "after")
				if lines[0].ID <= first[len(first)-1].ID {
					t.Errorf("id %d is given again", lines[0].ID)
				}
				first = lines
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func overwrite(t *testing.T, dir string, at int64, text []byte) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(dir, fileName), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(text, at); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedWhileOpen: the store goes on with a fresh database.
func TestDamagedWhileOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openIn(t, dir, Limits{})
	for n := range 50 {
		s.print(alice, Stdout, string(hexLines(n)))
	}
	awaitIndex(t, s)
	if _, err := s.db.Load().write.ExecContext(t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	size := diskUse(t, s)
	overwrite(t, dir, 4096, bytes.Repeat([]byte{0xff}, int(size)-4096))
	if _, err := s.db.Load().write.ExecContext(t.Context(), "PRAGMA shrink_memory"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it begins anew", func() bool {
		s.print(bob, Stdout, "after\n")
		lines, err := s.Query(t.Context(), Query{Instance: bob})
		return err == nil && len(lines) > 0 && lines[len(lines)-1].Text == "after"
	})
}

// TestFullDisk makes SQLite itself say that the disk is full.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	said := &records{}
	s, err := Open(t.Context(), t.TempDir(), Limits{}, slog.New(said))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	k := s.Sink(alice, Stdout)
	take(k, []byte("before\n"), false)
	limit := func(pages string) {
		t.Helper()
		if _, err := s.db.Load().write.ExecContext(t.Context(), "PRAGMA max_page_count("+pages+")"); err != nil {
			t.Fatal(err)
		}
	}
	limit("1") // no more than there are
	lost := 0
	for said.count("cannot be stored") == 0 {
		offer := hexLines(lost)
		if n := take(k, offer, false); n != len(offer) {
			t.Fatalf("%d bytes were taken", n)
		}
		lost++
	}
	for range 3 { // while it rests, it does not even try
		take(k, []byte("lost\n"), false)
	}
	stored := len(query(t, s, Query{Limit: 1 << 20}))
	limit("100000")
	eventually(t, "it is stored again", func() bool {
		take(k, []byte("after\n"), false)
		return query(t, s, Query{Limit: 1})[0].Text == "after"
	})
	lines := texts(query(t, s, Query{Limit: 1 << 20}))
	if lines[0] != "before" || !strings.HasPrefix(lines[stored], "tenement: ") || !strings.Contains(lines[stored], "lines were lost here") {
		t.Errorf("%q, then %q", lines[0], lines[stored])
	}
	if said.count("cannot be stored") != 1 || said.count("stored again") != 1 {
		t.Errorf("said %q", said.all())
	}
}

// records keeps what is logged.
type records struct {
	mu   sync.Mutex
	list []string
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *records) WithGroup(string) slog.Handler            { return r }
func (r *records) Handle(_ context.Context, record slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, record.Message)
	return nil
}

func (r *records) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.list...)
}

func (r *records) count(part string) int {
	n := 0
	for _, message := range r.all() {
		if strings.Contains(message, part) {
			n++
		}
	}
	return n
}

func textOf(lines []Line) int {
	bytes := 0
	for _, l := range lines {
		bytes += len(l.Text)
	}
	return bytes
}
