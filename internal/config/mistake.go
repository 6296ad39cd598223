package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
)

// Mistake is one thing that is wrong, and where.
type Mistake struct {
	File    string // as the caller named it, or the flag that is wrong
	Line    int    // from 1; 0 for a flag
	Column  int    // in characters, from 1; 0 for a flag
	Message string
	Hint    string // the way out; may be empty
	Snippet string // the offending line and below it a caret, not indented; "" for a blank line
}

// String is "file:line:column: message", the offending line, a caret below the
// place, and the hint.
func (m Mistake) String() string {
	var b strings.Builder
	b.WriteString(m.File)
	if m.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", m.Line, m.Column)
	}
	b.WriteString(": " + m.Message)
	if m.Snippet != "" {
		b.WriteString("\n    " + strings.ReplaceAll(m.Snippet, "\n", "\n    "))
	}
	if m.Hint != "" {
		b.WriteString("\n  hint: " + m.Hint)
	}
	return b.String()
}

// Mistakes is everything that is wrong with one configuration, in the order of
// the file. It is never empty where it is an error.
type Mistakes []Mistake

func (ms Mistakes) Error() string {
	var b strings.Builder
	if len(ms) == 1 {
		b.WriteString("1 mistake")
	} else {
		fmt.Fprintf(&b, "%d mistakes", len(ms))
	}
	for _, m := range ms {
		b.WriteString("\n\n" + m.String())
	}
	return b.String()
}

func (ms Mistakes) sort() {
	slices.SortStableFunc(ms, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// source finds places in the text of a file.
type source struct {
	name  string
	text  []byte
	lines []int // offset of each line's first byte
}

func newSource(name string, text []byte) *source {
	s := &source{name: name, text: text, lines: []int{0}}
	for i, c := range text {
		if c == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	return s
}

// mistake describes what is wrong at a byte offset of the text.
func (s *source) mistake(offset int, message, hint string) Mistake {
	offset = min(max(offset, 0), len(s.text))
	index, found := slices.BinarySearch(s.lines, offset)
	if !found {
		index--
	}
	before, line := string(s.text[s.lines[index]:offset]), s.line(index)
	return Mistake{
		File: s.name, Line: index + 1, Column: utf8.RuneCountInString(before) + 1,
		Message: strings.Map(printable, message), Hint: strings.Map(printable, hint), Snippet: snippet(before, line),
	}
}

// line is the text of a line without its end.
func (s *source) line(index int) string {
	end := len(s.text)
	if index+1 < len(s.lines) {
		end = s.lines[index+1]
	}
	return strings.TrimRight(string(s.text[s.lines[index]:end]), "\r\n")
}

// syntaxMistake is the mistake that made the TOML parser give up.
func (s *source) syntaxMistake(err error) Mistake {
	offset := 0
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, column := decode.Position() // in bytes, from 1
		offset = s.lines[min(max(line, 1), len(s.lines))-1] + column - 1
	}
	return s.mistake(offset, strings.TrimPrefix(err.Error(), "toml: "), "")
}

// How much of a long line a snippet shows, in characters.
const (
	snippetWidth  = 120
	snippetBefore = 60 // left of the place, where there is more
)

// snippet is the line and below it a caret under the character that follows
// before. A long line is cut around that place.
func snippet(before, line string) string {
	if strings.TrimSpace(line) == "" {
		return ""
	}
	left, all := []rune(before), []rune(line)
	if cut := len(left) - snippetBefore; cut > 0 && len(all) > snippetWidth {
		left, all = left[cut:], all[min(cut, len(all)):]
	}
	all = all[:min(len(all), snippetWidth)]
	return strings.Map(printable, string(all)) + "\n" + strings.Map(blank, string(left)) + "^"
}

// printable keeps the file's control characters away from the terminal.
func printable(r rune) rune {
	if r == '\t' || unicode.IsPrint(r) {
		return r
	}
	return utf8.RuneError
}

// blank is as wide as r, so that the caret stands right of it.
func blank(r rune) rune {
	if r == '\t' {
		return r
	}
	return ' '
}
