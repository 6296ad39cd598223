package logs

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// take offers once and returns how much was taken.
func take(k *Sink, offer []byte, last bool) (taken int) {
	k.Take(offer, len(offer) >= maxLine, last, func(n int) { taken = n })
	return taken
}

// TestPressingIsCommittedSoon, and what waits for the pace with it.
func TestPressingIsCommittedSoon(t *testing.T) {
	t.Parallel()
	s := open(t, Limits{pace: time.Hour})
	take(s.Sink(alice, Stdout), []byte("at once\n"), false)
	var calm sync.WaitGroup
	calm.Go(func() { take(s.Sink(alice, Stdout), []byte("calm\n"), false) })
	for waiting := false; !waiting; waiting, _, _ = s.queue.look() {
		continue
	}
	s.Sink(bob, Stdout).Take([]byte("pressing\n"), true, false, func(int) {})
	calm.Wait()
	wantTexts(t, query(t, s, Query{Limit: 10}), "at once", "calm", "pressing")
}

// TestShownAfterRemoved: what a follower has seen is not offered once more after a
// daemon was killed.
func TestShownAfterRemoved(t *testing.T) {
	t.Parallel()
	s := open(t, Limits{})
	k := s.Sink(alice, Stdout)
	before, _ := s.progress()
	k.Take([]byte("one\ntwo\nthr"), false, false, func(n int) {
		if n != len("one\ntwo\n") {
			t.Errorf("%d bytes are to be removed", n)
		}
		if now, _ := s.progress(); now != before {
			t.Error("it is shown already")
		}
		if lines := query(t, s, Query{Limit: 10}); len(lines) != 2 {
			t.Errorf("%d lines are stored", len(lines))
		}
	})
	if now, _ := s.progress(); now != before+2 {
		t.Errorf("lines up to %d are shown, from %d", now, before)
	}
}

// feed offers chunks as a reader does, what was not taken again each time, and gives
// the lines that were kept.
func feed(t testing.TB, s *Store, chunks ...string) []string {
	t.Helper()
	s.Drop(alice)
	k := s.Sink(alice, Stdout)
	var held []byte
	for i, chunk := range append(chunks, "") {
		held = append(held, chunk...)
		held = held[take(k, held, i == len(chunks)):]
	}
	if len(held) > 0 {
		t.Errorf("%d bytes of the last offer were not taken", len(held))
	}
	return texts(query(t, s, Query{Instance: alice, Limit: 1 << 20}))
}

func TestLines(t *testing.T) {
	t.Parallel()
	full := strings.Repeat("x", maxLine)
	s := open(t, Limits{})
	for name, c := range map[string]struct{ chunks, want []string }{
		"nothing":             {nil, nil},
		"one":                 {[]string{"a\n"}, []string{"a"}},
		"empty":               {[]string{"\n"}, []string{""}},
		"several in a chunk":  {[]string{"a\nb\n\nc\n"}, []string{"a", "b", "", "c"}},
		"in pieces":           {[]string{"a", "", "b", "\n", "c\nd", "e\n"}, []string{"ab", "c", "de"}},
		"no end":              {[]string{"a\nb"}, []string{"a", "b"}},
		"crlf":                {[]string{"a\r\nb\r\n\r\n"}, []string{"a", "b", ""}},
		"crlf in pieces":      {[]string{"a\r", "\nb\r", "c\n"}, []string{"a", "b\rc"}},
		"control bytes stay":  {[]string{"a\x00\x1b[1m\rb\n"}, []string{"a\x00\x1b[1m\rb"}},
		"not UTF-8":           {[]string{"a\xff\xfeb\n"}, []string{"a\uFFFDb"}},
		"rune in pieces":      {[]string{"\xe2\x80", "\xa6\n"}, []string{"…"}},
		"rune broken by end":  {[]string{"\xe2\x80\n\xa6\n"}, []string{"\uFFFD", "\uFFFD"}},
		"just fits":           {[]string{full + "\n"}, []string{full}},
		"just fits with crlf": {[]string{full + "\r\n"}, []string{full}},
		"fits, in pieces":     {[]string{full, "\r", "\n"}, []string{full}},
		"fits, no end":        {[]string{full}, []string{full}},
		"too long":            {[]string{full + "y\nz\n"}, []string{full + cutMark, "z"}},
		"too long, in pieces": {[]string{full, "y", "y", "\nz"}, []string{full + cutMark, "z"}},
		"too long, lone cr":   {[]string{full + "\ry\n", full + "\r", "\r\n"}, []string{full + cutMark, full + cutMark}},
		"too long, no end":    {[]string{full + "yy"}, []string{full + cutMark}},
		"too long, much":      {[]string{full + full, full, full + "\nz\n"}, []string{full + cutMark, "z"}},
		"cut between runes":   {[]string{full[1:] + "…\n"}, []string{full[1:] + cutMark}},
		"cut after a rune":    {[]string{full[3:] + "…y\n"}, []string{full[3:] + "…" + cutMark}},
		"cut in bad bytes":    {[]string{full + "\xff\n"}, []string{full + cutMark}},
		"grown by repair": {
			[]string{strings.Repeat("x\xff", maxLine/2) + "\n"},
			[]string{strings.Repeat("x\uFFFD", maxLine/4) + cutMark},
		},
	} {
		if diff := cmp.Diff(c.want, feed(t, s, c.chunks...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestTakeLeavesTheRest: what has no end yet stays with the caller, so that it
// survives the daemon there.
func TestTakeLeavesTheRest(t *testing.T) {
	t.Parallel()
	s := open(t, Limits{})
	k := s.Sink(alice, Stdout)
	if n := take(k, []byte("one\ntw"), false); n != 4 {
		t.Errorf("%d bytes were taken", n)
	}
	wantTexts(t, query(t, s, Query{}), "one")
	next := s.Sink(alice, Stdout) // of the next daemon
	if n := take(next, []byte("two\n"), false); n != 4 {
		t.Errorf("%d bytes were taken", n)
	}
	wantTexts(t, query(t, s, Query{}), "one", "two")
}

// expected is what a sink does, said in another way: the whole text at once.
func expected(text string) []string {
	lines := strings.Split(text, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	for i, line := range lines {
		lines[i] = expectedLine(strings.TrimSuffix(line, "\r"))
	}
	return lines
}

func expectedLine(line string) string {
	var b strings.Builder
	bad := false
	for i, r := range line {
		_, size := utf8.DecodeRuneInString(line[i:])
		if i+size > maxLine && (r != utf8.RuneError || size > 1 || i >= maxLine) {
			return b.String() + cutMark
		}
		isBad := r == utf8.RuneError && size == 1
		if isBad && bad {
			continue // a run of bad bytes is one U+FFFD
		}
		bad = isBad
		if b.Len()+utf8.RuneLen(r) > maxLine {
			return b.String() + cutMark
		}
		b.WriteRune(r)
	}
	return b.String()
}

// FuzzChunks: how the text is cut into chunks makes no difference.
func FuzzChunks(f *testing.F) {
	full := strings.Repeat("x", maxLine)
	for _, text := range []string{
		"", "\n", "a\r\nb\n\n", "\r", "\r\r\n", "a\xff\xfeb", "…\xe2\x80", full, full + "\r\n", full + "y\nz", full[1:] + "…\n", full + "\ry",
	} {
		f.Add(text, []byte{1, 2, 0, 255}, uint8(1))
	}
	f.Fuzz(func(t *testing.T, text string, cuts []byte, repeat uint8) {
		text = strings.Repeat(text, 1+int(repeat))
		text = text[:min(len(text), 2*maxLine)]
		if strings.Count(text, "\n") > burstLines/2 {
			t.Skip("it would be throttled")
		}
		whole := cutAll(text)
		for _, line := range whole {
			if !utf8.ValidString(line) || strings.Contains(line, "\n") || len(line) > maxLine+len(cutMark) {
				t.Errorf("bad line %q", line)
			}
		}
		// Not cmp.Diff where they are equal: it is slow over many lines.
		if want := expected(text); !slices.Equal(want, whole) {
			t.Errorf("in one piece (-want +got):\n%s", cmp.Diff(want, whole))
		}
		if pieces := cutAll(chunks(text, cuts)...); !slices.Equal(whole, pieces) {
			t.Errorf("in pieces (-want +got):\n%s", cmp.Diff(whole, pieces))
		}
	})
}

// cutAll is feed without a store: what a sink would have stored.
func cutAll(chunks ...string) []string {
	k := &Sink{state: sinkState{throttle: newThrottle(time.Now())}}
	lines := []string{}
	var held []byte
	for i, chunk := range append(chunks, "") {
		held = append(held, chunk...)
		k.batch.text, k.batch.lines = k.batch.text[:0], 0
		held = held[k.cut(held, i == len(chunks), time.Now()):]
		if k.batch.lines > 0 {
			lines = append(lines, strings.Split(string(k.batch.text), "\n")...)
		}
	}
	return lines
}

// chunks cuts text; the sizes repeat, times 64 for every other one, so that both
// small pieces and ends of long lines are met.
func chunks(text string, cuts []byte) []string {
	var list []string
	for n := 0; len(text) > 0 && len(cuts) > 0 && n < 10_000; n++ {
		size := int(cuts[n%len(cuts)])
		if n%2 == 1 {
			size *= 64
		}
		size = min(size, len(text))
		list, text = append(list, text[:size]), text[size:]
	}
	return append(list, text)
}

// TestThrottle prints more than is kept and reads in the log what became of it.
func TestThrottle(t *testing.T) {
	t.Parallel()
	s := open(t, Limits{})
	k := s.Sink(alice, Stdout)
	offer := func(text string) {
		t.Helper()
		if n := take(k, []byte(text), false); n != len(text) {
			t.Fatalf("%d of %d bytes were taken", n, len(text))
		}
	}
	for range burstLines/1000 + 5 {
		k.standStill()
		offer(strings.Repeat("x\n", 1000))
	}
	lines := texts(query(t, s, Query{Limit: 100_000}))
	kept := slices.Index(lines, began)
	if kept != burstLines || kept != len(lines)-1 {
		t.Fatalf("%d lines, dropping began at %d", len(lines), kept)
	}
	dropped := (burstLines/1000+5)*1000 - kept

	k.state.throttle.at = time.Now().Add(-2 * time.Second)
	offer("after\n")
	offer("wards\n")
	ended := fmt.Sprintf("tenement: %d lines (%d bytes) were dropped", dropped, k.droppedBytesOf(dropped))
	wantTexts(t, query(t, s, Query{Limit: 3}), ended, "after", "wards")
}

// standStill keeps the throttle from being refilled before the next offer, however slow
// the machine is.
func (k *Sink) standStill() { k.state.throttle.at = time.Now().Add(time.Hour) }

// droppedBytesOf is what n of TestThrottle's lines count: the first that is dropped
// is looked at as a line, the others with their ends.
func (*Sink) droppedBytesOf(n int) int { return 2*n - 1 }

// TestThrottleBytes: few lines that are too large.
func TestThrottleBytes(t *testing.T) {
	t.Parallel()
	s := open(t, Limits{})
	k := s.Sink(alice, Stdout)
	line := strings.Repeat("x", maxLine-1) + "\n"
	for range 2 * burstBytes / maxLine {
		k.standStill()
		take(k, []byte(line), false)
	}
	take(k, nil, true)
	lines := texts(query(t, s, Query{Limit: 100_000}))
	if kept := slices.Index(lines, began); kept != burstBytes/(maxLine-1) {
		t.Errorf("dropping began after %d lines of %d", kept, len(lines))
	}
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "tenement: ") || !strings.HasSuffix(last, "were dropped") {
		t.Errorf("the last line is %q", last)
	}
}

// TestThrottleIsPerStream: what one prints too much, another does not lose.
func TestThrottleIsPerStream(t *testing.T) {
	t.Parallel()
	s := open(t, Limits{})
	flood := s.Sink(alice, Stdout)
	for range 100 {
		take(flood, []byte(strings.Repeat("x\n", 1000)), false)
	}
	s.print(alice, Stderr, "mine\n")
	s.print(bob, Stdout, "his\n")
	wantTexts(t, query(t, s, Query{Limit: 2}), "mine", "his")
}

// TestDroppingAllocatesNothing: a flood costs no more than to be read.
func TestDroppingAllocatesNothing(t *testing.T) {
	s := open(t, Limits{})
	k := s.Sink(alice, Stdout)
	k.state.throttle.lines, k.state.throttle.dropping = 0, true
	offer := []byte(strings.Repeat("a line of usual length, more or less, for a flood\n", 80))
	taken := 0
	remove := func(n int) { taken = n }
	allocated := testing.AllocsPerRun(100, func() {
		k.state.throttle.lines = 0
		if k.Take(offer, false, false, remove); taken != len(offer) {
			t.Errorf("%d of %d bytes were taken", taken, len(offer))
		}
	})
	if allocated > 0 {
		t.Errorf("%v allocations for each offer", allocated)
	}
}

func TestDropCountsLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLine+2)
	for name, c := range map[string]struct {
		over   bool
		offer  string
		taken  int
		lines  int64
		isOver bool
	}{
		"lines":                {false, "a\nb\nc", 4, 2, false},
		"part":                 {false, "a", 0, 0, false},
		"too long":             {false, long, len(long), 1, true},
		"lines, too long":      {false, "a\n" + long, 2 + len(long), 2, true},
		"rest of a long one":   {true, "xx\nb\nc", 5, 1, false},
		"more of a long one":   {true, "xx", 2, 0, true},
		"rest and another one": {true, "xx\n" + long, 3 + len(long), 1, true},
	} {
		k := &Sink{state: sinkState{over: c.over}}
		if taken := k.drop([]byte(c.offer)); taken != c.taken || k.state.throttle.droppedLines != c.lines || k.state.over != c.isOver {
			t.Errorf("%s: took %d, dropped %d lines, over %v", name, taken, k.state.throttle.droppedLines, k.state.over)
		}
	}
}

// TestMemoryIsFlat prints 100 MB without a newline, and 100 MB of random bytes.
func TestMemoryIsFlat(t *testing.T) {
	for name, chunk := range map[string][]byte{
		"one line":     []byte(strings.Repeat("x", wholeOffer)),
		"random bytes": randomBytes(wholeOffer),
	} {
		s := open(t, Limits{})
		k := s.Sink(alice, Stdout)
		before := heap()
		var held []byte
		for range 100 << 20 / len(chunk) / slower {
			held = append(held, chunk[:wholeOffer-len(held)]...)
			held = append(held[:0], held[take(k, held, false):]...)
		}
		take(k, held, true)
		if grown := int64(heap()) - int64(before); grown > 4<<20 {
			t.Errorf("%s: the heap has grown by %d bytes", name, grown)
		}
		if name == "one line" {
			wantTexts(t, query(t, s, Query{}), strings.Repeat("x", maxLine)+cutMark)
		}
	}
}

func randomBytes(n int) []byte {
	list := make([]byte, n)
	state := uint32(1)
	for i := range list {
		state = state*1664525 + 1013904223
		list[i] = byte(state >> 24)
	}
	return list
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
