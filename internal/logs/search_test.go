package logs

import (
	"hash/maphash"
	"strings"
	"testing"
	"unicode"
)

func TestSearchMatches(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		search, line string
		want         bool
	}{
		{"", "anything", true},
		{"kelvin", "300 \u212Aelvin", true}, // other forms of letters that are ASCII
		{"sum kelvin", "300 KELVIN in \u017Fum", true},
		{"sum kelvin", "300 kelvin in \u017Fu", false},
		{"  ", "", true},
		{"get", "GET /", true},
		{"ge", "GET /", false},
		{"ge*", "GET /", true},
		{"*", "a * b", true},
		{"*", "ab", false},
		{"get slash", "slash get", true},
		{"get slash", "get", false},
		{`"get slash"`, "slash get", false},
		{`"get slash"`, "x GET, slash y", true},
		{`"get sla"`, "get slash", false},
		{`"get sla*"`, "get slash", true},
		{`"get sla`, "get sla", true},
		{"10.0.0.1", "from 10.0.0.1:80", true},
		{"10.0.0.1", "from 10.0.0.2 1", false},
		{"user_id", "USER_ID=1", true},
		{"id", "user_id=1", true},
		{"größe", "GRÖSSE", false},
		{"grösse", "GRÖSSE", true},
		{"σ", "ς Σ", true},
		{"-->", "a --> b", true},
		{"-->", "a -> b", false},
		{"a* OR b", "ab or b", true},
		{"NOT x", "x", false},
		{"NEAR(a b)", "near (a b)", true},
		{"日志", "x 日志", true},
		{"日", "x 日志", false},
		{`""`, "", true},
		{`"`, "", true},
		{`a"b c"`, "a b c", true},
		{`a"b c"`, "a c b", false},
		{"\xff", "\uFFFD", false},
	} {
		if got := newSearch(c.search).matches(c.line); got != c.want {
			t.Errorf("%q in %q: %v", c.search, c.line, got)
		}
	}
}

// simpleMatch is what a search means, said in another way.
func simpleMatch(text, line string) bool {
	for i, quoted := range strings.Split(text, `"`) {
		parts := []string{quoted}
		if i%2 == 0 {
			parts = strings.FieldsFunc(quoted, unicode.IsSpace)
		}
		for _, part := range parts {
			if part != "" && !simplePart(part, line) {
				return false
			}
		}
	}
	return true
}

func simplePart(part, line string) bool {
	want := fieldsOf(part)
	if len(want) == 0 {
		return strings.Contains(line, part)
	}
	all := []rune(part)
	prefix := len(all) > 1 && all[len(all)-1] == '*' && isWord(all[len(all)-2])
	return contains(fieldsOf(line), want, prefix)
}

func fieldsOf(text string) []string {
	list := strings.FieldsFunc(text, func(r rune) bool { return !isWord(r) })
	for i, word := range list {
		list[i] = fold(word)
	}
	return list
}

func contains(have, want []string, prefix bool) bool {
	for i := range have {
		if i+len(want) > len(have) {
			return false
		}
		same := true
		for j, word := range want {
			got := have[i+j]
			same = same && (got == word || prefix && j == len(want)-1 && strings.HasPrefix(got, word))
		}
		if same {
			return true
		}
	}
	return false
}

// FuzzSearch: no text is an error, the index and the scan say the same, and both what
// the documentation says.
func FuzzSearch(f *testing.F) {
	for _, c := range [][2]string{
		{"a", "A b"}, {`"a b"`, "a,b"}, {"ab*", "abc"}, {`x OR y) "`, "x or y"}, {"words : NEAR", "near"}, {"'", "'"},
		{"-->", "a --> b"}, {"日* \x00", "日志"}, {strings.Repeat("a", 50), strings.Repeat("a", 50)}, {strings.Repeat("a", 45) + "*", strings.Repeat("a", 50)},
		{strings.Repeat("x ", 400), "x"}, {"¤1", "1"}, {"\"", "\""}, {"{a}^b+c", "a b c"}, {"ǅ", "ǆ"},
	} {
		f.Add(c[0], c[1])
	}
	s := open(f, Limits{indexStep: 1})
	f.Fuzz(func(t *testing.T, text, line string) {
		line = strings.ToValidUTF8(strings.NewReplacer("\n", " ", "\r", " ").Replace(line), "?")
		text = strings.ToValidUTF8(text, "?")
		if len(line) > maxLine || len(text) > 2000 {
			t.Skip()
		}
		s.Drop(alice)
		s.print(alice, Stdout, line+"\n")
		want := simpleMatch(text, line)
		check := func(how string) {
			t.Helper()
			found := query(t, s, Query{Instance: alice, Search: text})
			if (len(found) == 1) != want {
				t.Errorf("%s: %q in %q: %d lines, want %v", how, text, line, len(found), want)
			}
		}
		check("at once")
		awaitIndex(t, s)
		check("by the index")
	})
}

// awaitIndex waits until everything that was committed is in the index.
func awaitIndex(t testing.TB, s *Store) {
	t.Helper()
	eventually(t, "all is in the index", func() bool {
		return count(t, s, "SELECT indexed < (SELECT coalesce(max(id), 0) FROM chunks) FROM counter") == 0
	})
}

func TestWordSet(t *testing.T) {
	t.Parallel()
	s := newWordSet()
	for range 2 { // the second finds nothing of the first
		const text = "foobar BAR bar=foobar\nstdout 7"
		if got, want := string(s.of(7, Stdout, text)), "\u00a47 \u00a4stdout foobar bar stdout 7"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestWordSetOfOneHash has two words share a hash: the index is told about both.
func TestWordSetOfOneHash(t *testing.T) {
	t.Parallel()
	s := newWordSet()
	s.list = []byte("\u00a47 \u00a4stdout foobar")
	s.seen[maphash.String(s.seed, " bar")] = len(s.list)
	s.add("bar")
	s.add("bar")
	if got, want := string(s.list), "\u00a47 \u00a4stdout foobar bar"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
