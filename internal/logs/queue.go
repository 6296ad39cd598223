package logs

import (
	"errors"
	"sync"
	"time"

	"tenement"
)

// batch is what one stream gives to the writer at once, or the order to drop what an
// instance has. Whoever waits for it may not touch it until done has the outcome.
type batch struct {
	instance tenement.InstanceID
	level    Level
	at       time.Time
	text     []byte // lines, with \n between them
	lines    int
	drop     bool
	pressing bool
	done     chan error // with room for the outcome; nil: nobody waits

	// What was offered for it is removed where it came from once it is committed, and
	// before a follower is shown it; nil: nowhere.
	remove func(bytes int)
	taken  int
}

// begin makes room for one more line.
func (b *batch) begin() {
	if b.lines > 0 {
		b.text = append(b.text, '\n')
	}
	b.lines++
}

func (b *batch) answer(err error) {
	if b.done != nil {
		b.done <- err
	}
}

// errClosed refuses what comes after Close.
var errClosed = errors.New("the log store is closed")

// maxRemarks bounds the batches in the queue that nobody waits for. All others are
// bounded by the streams: each waits for its own.
const maxRemarks = 256

// queue is the batches on their way to the writer, in the order in which they came.
type queue struct {
	mu       sync.Mutex
	list     []*batch
	remarks  int // batches nobody waits for
	pressing bool
	closed   bool
	changed  chan struct{} // has room for one: somebody should look
}

// put reports whether b was accepted.
func (q *queue) put(b *batch) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	if b.done == nil && !b.drop {
		if q.remarks == maxRemarks {
			return false
		}
		q.remarks++
	}
	if len(q.list) == 0 || b.pressing && !q.pressing {
		q.signal()
	}
	q.list = append(q.list, b)
	q.pressing = q.pressing || b.pressing
	return true
}

// take empties the queue. The list it returns is valid until the next but one.
func (q *queue) take(spare []*batch) []*batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.list
	q.list, q.remarks, q.pressing = spare[:0], 0, false
	return list
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

func (q *queue) look() (waiting, pressing, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.list) > 0, q.pressing, q.closed
}

func (q *queue) signal() {
	select {
	case q.changed <- struct{}{}:
	default:
	}
}
