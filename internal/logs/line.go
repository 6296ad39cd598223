package logs

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"

	"tenement"
)

// Level says which of an instance's two outputs a line comes from.
type Level string

// The levels.
const (
	Stdout Level = "stdout"
	Stderr Level = "stderr"
)

// Line is one line without its end.
type Line struct {
	// ID rises with every line of any instance. None is given twice, also not after a
	// restart or to another line after this one was dropped. It is below 2^53, so that
	// every reader of JSON can hold it.
	ID       int64
	At       time.Time
	Instance tenement.InstanceID
	Level    Level
	Text     string // valid UTF-8 of at most 16 KiB and the mark of a cut; may hold control bytes
}

// maxLine is the longest line that is kept whole, in bytes.
const maxLine = 16 << 10

// cutMark ends a line that was longer.
const cutMark = " … [cut]"

// appendLine appends raw, a line without its \n, as it is kept: without a \r at its
// end, as valid UTF-8, and of at most maxLine bytes and the mark of a cut.
func appendLine(text, raw []byte) []byte {
	if len(raw) <= maxLine+1 {
		raw = bytes.TrimSuffix(raw, []byte{'\r'})
	}
	if len(raw) <= maxLine && utf8.Valid(raw) {
		return append(text, raw...)
	}
	return append(text, clean(raw)...)
}

func clean(line []byte) string {
	cut := len(line) > maxLine
	if cut {
		line = wholeRunes(line[:maxLine])
	}
	// A bad byte becomes the three of U+FFFD: the text may have grown too long.
	text := strings.ToValidUTF8(string(line), string(utf8.RuneError))
	if len(text) > maxLine {
		cut = true
		text = string(wholeRunes([]byte(text[:maxLine])))
	}
	if cut {
		text += cutMark
	}
	return text
}

// wholeRunes takes off the beginning of a rune whose rest was cut.
func wholeRunes(b []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if start := len(b) - i; utf8.RuneStart(b[start]) {
			if !utf8.FullRune(b[start:]) {
				return b[:start]
			}
			break
		}
	}
	return b
}
