// Package logs keeps the last lines that instances printed, in bounded memory.
package logs

import (
	"cmp"
	"container/list"
	"slices"
	"strings"
	"sync"
	"time"

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
	Seq      uint64 // rises with every line of any instance, from 1
	At       time.Time
	Instance tenement.InstanceID
	Level    Level
	Text     string // valid UTF-8 of at most 16 KiB and the mark of a cut; may hold control bytes
}

// Limits bounds what a [Buffer] keeps. A field that is 0 means its default. Every
// line, and every instance with a line, counts for a little more than its text:
// for the memory it takes.
type Limits struct {
	Lines int            // per instance; 1,000
	Bytes tenement.Bytes // per instance; 256 KiB
	Total tenement.Bytes // of all instances; 16 MiB
}

// The defaults of [Limits], and of [Query]'s Limit.
const (
	defaultLines = 1000
	defaultBytes = 256 << 10
	defaultTotal = 16 << 20
	defaultLimit = 1000
)

// What is counted besides the text, rounded up from what the heap says: an entry
// and the spare room of its slice; a map entry, a list element and a tail.
const (
	lineOverhead     = 96
	instanceOverhead = 512
)

// Buffer holds the last lines of each instance. When all of them together are too
// much, the instance that has been silent for longest loses its lines first. All
// methods may be called concurrently.
type Buffer struct {
	limits Limits

	mu    sync.Mutex
	seq   uint64
	bytes int64 // of all tails
	tails map[tenement.InstanceID]*tail
	// silence orders the tails, the least recently written first.
	silence list.List
}

// tail is the last lines of one instance, oldest first.
type tail struct {
	id      tenement.InstanceID
	entries []entry
	bytes   int64
	place   *list.Element // in Buffer.silence
}

// entry is a [Line] without what its tail knows.
type entry struct {
	seq   uint64
	at    int64 // Unix nanoseconds
	level Level
	text  string
}

func (e *entry) size() int64 { return int64(len(e.text)) + lineOverhead }

// New returns an empty buffer.
func New(limits Limits) *Buffer {
	limits.Lines = cmp.Or(max(limits.Lines, 0), defaultLines)
	limits.Bytes = cmp.Or(max(limits.Bytes, 0), defaultBytes)
	limits.Total = cmp.Or(max(limits.Total, 0), defaultTotal)
	return &Buffer{limits: limits, tails: make(map[tenement.InstanceID]*tail)}
}

// Append adds text, split into lines as a [Buffer.Writer] does: the daemon's own
// remarks about an instance.
func (b *Buffer) Append(id tenement.InstanceID, level Level, text string) {
	s := splitter{emit: func(line string) { b.add(id, level, line) }}
	s.write([]byte(text))
	s.flush()
}

// Drop forgets all lines of id.
func (b *Buffer) Drop(id tenement.InstanceID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t, ok := b.tails[id]; ok {
		b.remove(t)
	}
}

func (b *Buffer) add(id tenement.InstanceID, level Level, text string) {
	now := time.Now().UnixNano()
	b.mu.Lock()
	defer b.mu.Unlock()
	t, ok := b.tails[id]
	if !ok {
		t = &tail{id: id, bytes: instanceOverhead}
		t.place = b.silence.PushBack(t)
		b.tails[id] = t
		b.bytes += t.bytes
	}
	b.silence.MoveToBack(t.place)
	b.seq++
	e := entry{seq: b.seq, at: now, level: level, text: text}
	t.entries = append(t.entries, e)
	t.bytes += e.size()
	b.bytes += e.size()
	for len(t.entries) > b.limits.Lines || t.bytes > int64(b.limits.Bytes) && len(t.entries) > 0 {
		b.bytes -= t.dropFirst()
	}
	for b.bytes > int64(b.limits.Total) {
		b.remove(b.silence.Front().Value.(*tail))
	}
}

// dropFirst returns what it freed. The slice is moved to a new array by append
// when its room is used up, so that it stays within about twice its bound.
func (t *tail) dropFirst() int64 {
	size := t.entries[0].size()
	t.entries[0] = entry{} // let go of the text now, not when append moves
	t.entries = t.entries[1:]
	t.bytes -= size
	return size
}

func (b *Buffer) remove(t *tail) {
	b.silence.Remove(t.place)
	delete(b.tails, t.id)
	b.bytes -= t.bytes
}

// Query says which lines to show. Zero fields ask for everything.
type Query struct {
	Instance tenement.InstanceID
	Allowed  func(tenement.InstanceID) bool // nil allows all; called without a lock held
	Level    Level
	Limit    int    // at most so many lines, the newest; 0 = 1,000
	Search   string // text within the line, upper and lower case alike
	Since    time.Time
}

// Tail returns the newest lines that match q, oldest first.
func (b *Buffer) Tail(q Query) []Line {
	if q.Limit <= 0 {
		q.Limit = defaultLimit
	}
	q.Search = strings.ToLower(q.Search)
	var lines []Line
	for _, id := range b.instances(q) {
		lines = append(lines, q.newest(id, b.snapshot(id))...)
	}
	slices.SortFunc(lines, func(a, b Line) int { return cmp.Compare(a.Seq, b.Seq) })
	return lines[max(0, len(lines)-q.Limit):]
}

func (b *Buffer) instances(q Query) []tenement.InstanceID {
	ids := []tenement.InstanceID{q.Instance}
	if q.Instance.IsZero() {
		ids = b.all()
	}
	return slices.DeleteFunc(ids, func(id tenement.InstanceID) bool {
		return q.Allowed != nil && !q.Allowed(id)
	})
}

func (b *Buffer) all() []tenement.InstanceID {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := make([]tenement.InstanceID, 0, len(b.tails))
	for id := range b.tails {
		ids = append(ids, id)
	}
	return ids
}

// snapshot copies the entries, so that a slow search holds up nobody who writes.
func (b *Buffer) snapshot(id tenement.InstanceID) []entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t, ok := b.tails[id]; ok {
		return slices.Clone(t.entries)
	}
	return nil
}

// newest returns the last q.Limit entries that match, newest first.
func (q *Query) newest(id tenement.InstanceID, entries []entry) []Line {
	var lines []Line
	for _, e := range slices.Backward(entries) {
		if len(lines) == q.Limit {
			break
		}
		if q.matches(&e) {
			lines = append(lines, Line{e.seq, time.Unix(0, e.at), id, e.level, e.text})
		}
	}
	return lines
}

func (q *Query) matches(e *entry) bool {
	return (q.Level == "" || q.Level == e.level) &&
		(q.Since.IsZero() || !time.Unix(0, e.at).Before(q.Since)) &&
		(q.Search == "" || strings.Contains(strings.ToLower(e.text), q.Search))
}
