package logs

import (
	"bytes"
	"iter"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A word is a run of letters and digits of any script; upper and lower case are the
// same. A search is a list of terms with white space between them, and a line matches
// when each of them is in it:
//
//	word          that word
//	par*          a word that begins so
//	10.0.0.1      several words, one right after the other, whatever stands between
//	"not found"   the same
//	--> %         without any letter or digit: these very characters
//
// There is nothing else to know, and no text that is not a search.
type search struct {
	terms    []term
	literals []string // of terms without words
	needles  [][]byte // words of terms that are ASCII, folded
	folded   []byte   // room for one line
	spans    []span   // room for the words of one
}

// term is words that must follow one another.
type term struct {
	words  []string // folded
	prefix bool     // of the last word, its beginning is enough
}

type span struct{ from, to int }

// newSearch reads what a person wrote. Every line matches an empty search.
func newSearch(text string) *search {
	s := &search{}
	for part := range parts(text) {
		t := term{}
		end := 0
		for from, to := range words(part) {
			word := fold(part[from:to])
			t.words = append(t.words, word)
			if isASCII(word) {
				s.needles = append(s.needles, []byte(word))
			}
			end = to
		}
		if len(t.words) == 0 {
			s.literals = append(s.literals, part)
			continue
		}
		t.prefix = part[end:] == "*"
		s.terms = append(s.terms, t)
	}
	return s
}

// parts cuts a search at white space that is not between quotation marks. One that
// has no partner ends with the text.
func parts(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for {
			text = strings.TrimLeftFunc(text, unicode.IsSpace)
			if text == "" {
				return
			}
			var part string
			if quoted, ok := strings.CutPrefix(text, `"`); ok {
				part, text, _ = strings.Cut(quoted, `"`)
			} else {
				end := strings.IndexFunc(text, func(r rune) bool { return r == '"' || unicode.IsSpace(r) })
				if end < 0 {
					end = len(text)
				}
				part, text = text[:end], text[end:]
			}
			if part != "" && !yield(part) {
				return
			}
		}
	}
}

// matches reports whether a line has all that is searched for. It is what decides;
// the index only says where it is worth a look.
func (s *search) matches(line string) bool {
	for _, literal := range s.literals {
		if !strings.Contains(line, literal) {
			return false
		}
	}
	if len(s.terms) == 0 {
		return true
	}
	if !s.mayMatch(line) {
		return false
	}
	s.spans = s.spans[:0]
	for from, to := range words(line) {
		s.spans = append(s.spans, span{from, to})
	}
	for i := range s.terms {
		if !s.terms[i].in(line, s.spans) {
			return false
		}
	}
	return true
}

// mayMatch reports whether a line has the bytes of all needles, in capitals or not, or a
// letter that is not ASCII and may be another form of one that is. It takes a tenth of what
// it takes to tell the words apart, and few of the lines that are looked at have them all.
func (s *search) mayMatch(line string) bool {
	folded := append(s.folded[:0], line...)
	s.folded = folded
	var bits byte
	for i, c := range folded {
		bits |= c
		folded[i] = asciiFold[c]
	}
	if bits >= utf8.RuneSelf {
		return true
	}
	for _, needle := range s.needles {
		if !bytes.Contains(folded, needle) {
			return false
		}
	}
	return true
}

func (t *term) in(line string, spans []span) bool {
	for first := 0; first+len(t.words) <= len(spans); first++ {
		if t.at(line, spans[first:]) {
			return true
		}
	}
	return false
}

func (t *term) at(line string, spans []span) bool {
	last := len(t.words) - 1
	for i, word := range t.words {
		s := spans[i]
		if !sameWord(line[s.from:s.to], word, t.prefix && i == last) {
			return false
		}
	}
	return true
}

// sameWord compares a word of a line with a folded one, or with its beginning.
func sameWord(word, folded string, prefix bool) bool {
	for _, want := range folded {
		r, size := utf8.DecodeRuneInString(word)
		if size == 0 || foldRune(r) != want {
			return false
		}
		word = word[size:]
	}
	return prefix || word == ""
}

// expression asks the index for chunks that hold the words of s, printed by an account
// or, with 0, by any. It is "" when the index is of no use. Each word is between
// quotation marks, and none holds one.
func (s *search) expression(account int64, level Level) string {
	var asked []string
	for _, t := range s.terms {
		for i, word := range t.words {
			prefix := t.prefix && i == len(t.words)-1
			if prefix && len(word) < shortestPrefix || len(asked) == mostAsked {
				continue
			}
			token := `"` + string(appendToken(nil, word)) + `"`
			if prefix && len(word) < longestToken {
				token += " *"
			}
			asked = append(asked, token)
		}
	}
	if len(asked) == 0 {
		return ""
	}
	if account != 0 {
		asked = append(asked, `"`+accountToken(account)+`"`)
	}
	if level != "" {
		asked = append(asked, `"`+levelToken(level)+`"`)
	}
	return strings.Join(asked, " AND ")
}

const (
	// longestToken bounds the words in the index, in bytes, so that random text does
	// not fill it. Longer ones are asked for by their beginning.
	longestToken = 40
	// shortestPrefix keeps a search for "e*" from reading half of the index; lines that
	// match it are never far.
	shortestPrefix = 2
	// mostAsked is more words than help to find anything.
	mostAsked = 32
)

// Who printed a chunk, and where, is in the index like a word, but like none that a
// line can have: ¤ is neither a letter nor a digit.
func accountToken(account int64) string { return "¤" + strconv.FormatInt(account, 10) }

func levelToken(level Level) string { return "¤" + string(level) }

// appendToken appends a word as the index has it.
func appendToken(token []byte, word string) []byte {
	start := len(token)
	for i := range min(len(word), longestToken) {
		c := word[i]
		if c >= utf8.RuneSelf {
			return appendRunes(token, start, word[i:])
		}
		token = append(token, asciiFold[c]) // as most words are, to their end
	}
	return token
}

// appendRunes appends the rest of a word whose token begins at start.
func appendRunes(token []byte, start int, word string) []byte {
	for _, r := range word {
		r = foldRune(r)
		if len(token)-start+utf8.RuneLen(r) > longestToken {
			break
		}
		token = utf8.AppendRune(token, r)
	}
	return token
}

func fold(word string) string { return strings.Map(foldRune, word) }

// foldRune maps all forms of a letter to one: by way of the capital, for some
// letters have two small ones.
func foldRune(r rune) rune {
	if r < utf8.RuneSelf {
		return rune(asciiFold[r])
	}
	return unicode.ToLower(unicode.ToUpper(r))
}

func isASCII(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// words gives where the words of a text begin and end.
func words(text string) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		for i := runEnd(text, 0, false); i < len(text); i = runEnd(text, i, false) {
			from := i
			i = runEnd(text, from, true)
			if !yield(from, i) {
				return
			}
		}
	}
}

// runEnd is where the runes from i on end that all belong to words, or all do not.
func runEnd(text string, i int, inside bool) int {
	for i < len(text) {
		if c := text[i]; c < utf8.RuneSelf {
			if asciiWord[c] != inside {
				break
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if isWord(r) != inside {
			break
		}
		i += size
	}
	return i
}

func isWord(r rune) bool {
	if r < utf8.RuneSelf {
		return asciiWord[r]
	}
	return unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r)
}

// Of each byte that is a rune: whether it belongs to a word, and its small letter; another
// is its own.
var asciiWord, asciiFold = func() (word [utf8.RuneSelf]bool, fold [1 << 8]byte) {
	for c := range fold {
		fold[c] = byte(c)
	}
	for c := range byte(utf8.RuneSelf) {
		if 'A' <= c && c <= 'Z' {
			fold[c] = c + 'a' - 'A'
		}
		small := fold[c]
		word[c] = 'a' <= small && small <= 'z' || '0' <= small && small <= '9'
	}
	return word, fold
}()
