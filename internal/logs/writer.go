package logs

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"tenement"
)

// maxLine is the longest line that is kept whole, in bytes.
const maxLine = 16 << 10

// cutMark ends a line that was longer.
const cutMark = " … [cut]"

// keepPartial is the largest buffer that a splitter keeps for its next partial
// line: thousands of instances are silent between two long lines.
const keepPartial = 512

// Writer returns where to write what id prints at level. Lines end with \n or
// \r\n; one longer than 16 KiB is cut and marked; bytes that are not UTF-8 become
// U+FFFD. Writing fails only after Close, with [io.ErrClosedPipe]. Close adds a
// last line that has no end. Both may be called concurrently.
func (b *Buffer) Writer(id tenement.InstanceID, level Level) io.WriteCloser {
	return &writer{splitter: splitter{emit: func(line string) { b.add(id, level, line) }}}
}

type writer struct {
	mu       sync.Mutex
	splitter splitter
	closed   bool
}

func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, io.ErrClosedPipe
	}
	w.splitter.write(p)
	return len(p), nil
}

func (w *writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed = true
		w.splitter.flush()
	}
	return nil
}

// splitter turns chunks into lines. How the text is cut into chunks makes no
// difference, and it never holds more than maxLine+1 bytes.
type splitter struct {
	emit    func(line string)
	partial []byte // the line under way; one byte more than a line, for the \r that may end it
	over    bool   // the line under way is longer than partial
}

func (s *splitter) write(p []byte) {
	for {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		if !ended {
			s.hold(line)
			return
		}
		if len(s.partial) == 0 {
			s.end(line, len(line) > maxLine+1)
		} else {
			s.hold(line)
			s.end(s.partial, s.over)
		}
		p = rest
	}
}

// flush ends a last line that has no end of its own.
func (s *splitter) flush() {
	if len(s.partial) > 0 {
		s.end(s.partial, s.over)
	}
}

func (s *splitter) hold(part []byte) {
	room := maxLine + 1 - len(s.partial)
	if len(part) > room {
		part, s.over = part[:room], true
	}
	s.partial = append(s.partial, part...)
}

func (s *splitter) end(line []byte, over bool) {
	if !over {
		line = bytes.TrimSuffix(line, []byte{'\r'})
	}
	s.emit(clean(line))
	if cap(s.partial) > keepPartial {
		s.partial = nil
	}
	s.partial, s.over = s.partial[:0], false
}

// clean copies line as valid UTF-8 of at most maxLine bytes and the mark of a cut.
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

// Sink returns what takes the output of id at level, as [Buffer.Writer] does.
func (b *Buffer) Sink(id tenement.InstanceID, level Level) *Sink {
	return &Sink{splitter{emit: func(line string) { b.add(id, level, line) }}}
}

// Sink implements runtime.Sink for one stream of one instance.
type Sink struct{ splitter splitter }

// Take takes the whole offer.
func (s *Sink) Take(offer []byte, last bool) int {
	s.splitter.write(offer)
	if last {
		s.splitter.flush()
	}
	return len(offer)
}
