package logs

import (
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

var (
	alice = tenement.InstanceID{Service: "api", Name: "alice"}
	bob   = tenement.InstanceID{Service: "api", Name: "bob"}
)

func texts(lines []Line) []string {
	var list []string
	for _, l := range lines {
		list = append(list, l.Text)
	}
	return list
}

func wantTexts(t *testing.T, got []Line, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, texts(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// checkAccounts adds up what is held: the bounds are kept by these sums.
func checkAccounts(t *testing.T, b *Buffer) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var total int64
	for id, tail := range b.tails {
		sum := int64(instanceOverhead)
		for _, e := range tail.entries {
			sum += e.size()
		}
		if sum != tail.bytes || sum > max(int64(b.limits.Bytes), instanceOverhead) || len(tail.entries) > b.limits.Lines {
			t.Errorf("%s: %d lines of %d bytes, counted %d, limits %+v", id, len(tail.entries), sum, tail.bytes, b.limits)
		}
		total += sum
	}
	if total != b.bytes || total > int64(b.limits.Total) || b.silence.Len() != len(b.tails) {
		t.Errorf("%d bytes in all, counted %d, limits %+v", total, b.bytes, b.limits)
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(Limits{})
		start := time.Now()
		for n, l := range []struct {
			id    tenement.InstanceID
			level Level
			text  string
		}{
			{alice, Stdout, "a0"}, {bob, Stdout, "b1"}, {alice, Stderr, "a2 Größe"}, {bob, Stderr, "b3"}, {alice, Stdout, "a4 GRÖSSE"},
		} {
			if n > 0 {
				time.Sleep(time.Second) // virtual
			}
			b.Append(l.id, l.level, l.text)
		}
		onlyBob := func(id tenement.InstanceID) bool { return id == bob }
		for _, c := range []struct {
			query Query
			want  []string
		}{
			{Query{}, []string{"a0", "b1", "a2 Größe", "b3", "a4 GRÖSSE"}},
			{Query{Limit: 2}, []string{"b3", "a4 GRÖSSE"}},
			{Query{Limit: -1}, []string{"a0", "b1", "a2 Größe", "b3", "a4 GRÖSSE"}},
			{Query{Instance: alice}, []string{"a0", "a2 Größe", "a4 GRÖSSE"}},
			{Query{Instance: alice, Limit: 1}, []string{"a4 GRÖSSE"}},
			{Query{Instance: tenement.InstanceID{Service: "api", Name: "carol"}}, nil},
			{Query{Level: Stderr}, []string{"a2 Größe", "b3"}},
			{Query{Level: Stdout, Limit: 1, Instance: bob}, []string{"b1"}},
			{Query{Search: "grö"}, []string{"a2 Größe", "a4 GRÖSSE"}},
			{Query{Search: "GRÖ", Limit: 1}, []string{"a4 GRÖSSE"}},
			{Query{Allowed: onlyBob}, []string{"b1", "b3"}},
			{Query{Allowed: onlyBob, Instance: alice}, nil},
			{Query{Since: start.Add(3 * time.Second)}, []string{"b3", "a4 GRÖSSE"}},
			{Query{Since: start.Add(time.Hour)}, nil},
		} {
			if diff := cmp.Diff(c.want, texts(b.Tail(c.query))); diff != "" {
				t.Errorf("%+v (-want +got):\n%s", c.query, diff)
			}
		}
		want := Line{Seq: 3, At: start.Add(2 * time.Second), Instance: alice, Level: Stderr, Text: "a2 Größe"}
		if diff := cmp.Diff(want, b.Tail(Query{Search: "größe"})[0]); diff != "" {
			t.Error(diff)
		}
	})
}

func TestBoundOfLines(t *testing.T) {
	t.Parallel()
	b := New(Limits{Lines: 3})
	for n := range 1000 {
		b.Append(alice, Stdout, strconv.Itoa(n))
	}
	b.Append(bob, Stdout, "b")
	wantTexts(t, b.Tail(Query{Instance: alice}), "997", "998", "999")
	wantTexts(t, b.Tail(Query{Instance: bob}), "b")
	checkAccounts(t, b)
	if room := cap(b.tails[alice].entries); room > 12 {
		t.Errorf("room for %d lines is kept for 3", room)
	}
}

func TestBoundOfBytes(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", 1000)
	b := New(Limits{Bytes: instanceOverhead + 2*(lineOverhead+1000)})
	for range 5 {
		b.Append(alice, Stdout, text)
	}
	wantTexts(t, b.Tail(Query{}), text, text)
	b.Append(alice, Stdout, "y")
	wantTexts(t, b.Tail(Query{}), text, "y")
	checkAccounts(t, b)
}

// TestBoundTooSmallForALine holds nothing rather than too much.
func TestBoundTooSmallForALine(t *testing.T) {
	t.Parallel()
	for _, limits := range []Limits{{Bytes: 1}, {Total: 1}} {
		b := New(limits)
		b.Append(alice, Stdout, "x")
		wantTexts(t, b.Tail(Query{}))
		checkAccounts(t, b)
	}
}

func TestLeastRecentlyWrittenIsDroppedFirst(t *testing.T) {
	t.Parallel()
	const line = lineOverhead + 1
	b := New(Limits{Total: 3*instanceOverhead + 4*line})
	id := func(n int) tenement.InstanceID { return tenement.InstanceID{Service: "api", Name: fmt.Sprint("t", n)} }
	for _, n := range []int{0, 1, 2, 0} {
		b.Append(id(n), Stdout, strconv.Itoa(n))
	}
	b.Append(id(3), Stdout, "3")
	wantTexts(t, b.Tail(Query{}), "0", "2", "0", "3")
	checkAccounts(t, b)
}

func TestDefaultBoundsHold(t *testing.T) {
	t.Parallel()
	b := New(Limits{})
	text := strings.Repeat("x", 10_000)
	for n := range 80 {
		for range 27 {
			b.Append(tenement.InstanceID{Service: "api", Name: fmt.Sprint("t", n)}, Stdout, text)
		}
	}
	checkAccounts(t, b)
	if b.bytes < defaultTotal*9/10 {
		t.Errorf("only %d bytes are kept", b.bytes)
	}
	for range 2000 {
		b.Append(alice, Stdout, "\n")
	}
	if n := len(b.Tail(Query{Instance: alice, Limit: 5000})); n != defaultLines {
		t.Errorf("%d lines are kept, want %d", n, defaultLines)
	}
}

func TestDrop(t *testing.T) {
	t.Parallel()
	b := New(Limits{})
	b.Append(alice, Stdout, "a")
	b.Append(bob, Stdout, "b")
	b.Drop(alice)
	b.Drop(alice)
	wantTexts(t, b.Tail(Query{}), "b")
	checkAccounts(t, b)
	b.Append(alice, Stdout, "again")
	wantTexts(t, b.Tail(Query{}), "b", "again")
}

func TestAppend(t *testing.T) {
	t.Parallel()
	b := New(Limits{})
	b.Append(alice, Stderr, "")
	b.Append(alice, Stderr, "one\ntwo\r\n\nthree \xff")
	wantTexts(t, b.Tail(Query{}), "one", "two", "", "three \uFFFD")
}

// TestEndlessLine measures the heap: 100 MB in one line must leave next to nothing.
func TestEndlessLine(t *testing.T) {
	b := New(Limits{})
	w := b.Writer(alice, Stdout)
	chunk := []byte(strings.Repeat("x", 1<<20))
	before := heap()
	for range 100 {
		if n, err := w.Write(chunk); n != len(chunk) || err != nil {
			t.Fatal(n, err)
		}
	}
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wantTexts(t, b.Tail(Query{}), strings.Repeat("x", maxLine)+cutMark)
	checkAccounts(t, b)
}

// TestHeapIsWhatIsCounted fills the buffer with what costs most beside the text,
// and compares the heap with the bound.
func TestHeapIsWhatIsCounted(t *testing.T) {
	const bound = 2 << 20
	for name, c := range map[string]struct {
		instances, rounds int
		text              string
	}{
		"many instances": {20_000, 1, "x"},
		"empty lines":    {100, 1, strings.Repeat("\n", 1100)},
		"long lines":     {7, 30, strings.Repeat("x", maxLine-100)},
	} {
		before := heap()
		b := New(Limits{Total: bound})
		for range c.rounds {
			for n := range c.instances {
				b.Append(tenement.InstanceID{Service: "api", Name: strconv.Itoa(n)}, Stdout, c.text)
			}
		}
		if grown := int64(heap()) - int64(before); grown < bound/3 || grown > bound*5/4 {
			t.Errorf("%s: %d bytes of heap for a bound of %d", name, grown, bound)
		}
		checkAccounts(t, b)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	b := New(Limits{Lines: 10, Total: 8 << 10})
	var users sync.WaitGroup
	for n := range 8 {
		users.Go(func() {
			id := tenement.InstanceID{Service: "api", Name: fmt.Sprint("t", n%4)}
			w := b.Writer(id, Stdout)
			defer w.Close()
			for i := range 200 {
				fmt.Fprintf(w, "line %d\npart", i)
				b.Tail(Query{Search: "line", Limit: 3})
				if i%50 == 0 {
					b.Drop(id)
				}
			}
		})
	}
	users.Wait()
	checkAccounts(t, b)
}

// TestSharedWriter closes a writer while another goroutine writes.
func TestSharedWriter(t *testing.T) {
	t.Parallel()
	b := New(Limits{})
	w := b.Writer(alice, Stdout)
	var users sync.WaitGroup
	users.Go(func() {
		for {
			if _, err := io.WriteString(w, "x\n"); err != nil {
				return
			}
		}
	})
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	users.Wait()
}
