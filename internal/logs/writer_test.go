package logs

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// write gives the chunks to one writer and returns the lines.
func write(t *testing.T, chunks ...string) []string {
	t.Helper()
	b := New(Limits{Lines: 1 << 20, Bytes: 1 << 30, Total: 1 << 30})
	w := b.Writer(alice, Stdout)
	for _, chunk := range chunks {
		if n, err := io.WriteString(w, chunk); n != len(chunk) || err != nil {
			t.Fatalf("wrote %d of %d: %v", n, len(chunk), err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return texts(b.Tail(Query{Limit: 1 << 20}))
}

func TestLines(t *testing.T) {
	t.Parallel()
	full := strings.Repeat("x", maxLine)
	for name, c := range map[string]struct{ chunks, want []string }{
		"nothing":             {nil, nil},
		"one":                 {[]string{"a\n"}, []string{"a"}},
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
		"cut between runes":   {[]string{full[1:] + "…\n"}, []string{full[1:] + cutMark}},
		"cut after a rune":    {[]string{full[3:] + "…y\n"}, []string{full[3:] + "…" + cutMark}},
		"cut in bad bytes":    {[]string{full + "\xff\n"}, []string{full + cutMark}},
		"grown by repair": {
			[]string{strings.Repeat("x\xff", maxLine/2) + "\n"},
			[]string{strings.Repeat("x\uFFFD", maxLine/4) + cutMark},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, write(t, c.chunks...)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestClosedWriter(t *testing.T) {
	t.Parallel()
	b := New(Limits{})
	w := b.Writer(alice, Stderr)
	if _, err := io.WriteString(w, "last"); err != nil {
		t.Error(err)
	}
	wantTexts(t, b.Tail(Query{}))
	for range 2 {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	wantTexts(t, b.Tail(Query{Level: Stderr}), "last")
	if _, err := io.WriteString(w, "x\n"); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing after Close: %v", err)
	}
}

// TestWriterKeepsNoLargeBuffer: between two lines a silent instance costs little.
func TestWriterKeepsNoLargeBuffer(t *testing.T) {
	t.Parallel()
	w := New(Limits{}).Writer(alice, Stdout).(*writer)
	for _, chunk := range []string{strings.Repeat("x", maxLine), "x", "\n"} {
		if _, err := io.WriteString(w, chunk); err != nil {
			t.Error(err)
		}
		if room := cap(w.splitter.partial); room > 2*maxLine {
			t.Errorf("buffer of %d bytes", room)
		}
	}
	if room := cap(w.splitter.partial); room > keepPartial {
		t.Errorf("buffer of %d bytes is kept", room)
	}
}

// expected is what Writer documents, said in another way: the whole text at once.
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
		whole := write(t, text)
		for _, line := range whole {
			if !utf8.ValidString(line) || strings.Contains(line, "\n") || len(line) > maxLine+len(cutMark) {
				t.Errorf("bad line %q", line)
			}
		}
		// Not cmp.Diff where they are equal: it is slow over many lines.
		if want := expected(text); !slices.Equal(want, whole) {
			t.Errorf("in one piece (-want +got):\n%s", cmp.Diff(want, whole))
		}
		if pieces := write(t, chunks(text, cuts)...); !slices.Equal(whole, pieces) {
			t.Errorf("in pieces (-want +got):\n%s", cmp.Diff(whole, pieces))
		}
	})
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
