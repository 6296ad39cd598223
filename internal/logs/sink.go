package logs

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"tenement"
)

// Sink takes one stream of one instance, as runtime.Sink demands. Its calls come one
// after the other.
type Sink struct {
	store *Store
	batch batch
	notes int // how many of the batch's lines are remarks of ours
	state sinkState
}

// sinkState is what a [Sink] knows between two offers.
type sinkState struct {
	throttle throttle
	over     bool  // the line under way was cut and kept: its rest is skipped
	lost     int64 // lines that could not be stored
}

// Sink returns what takes the output of id at level.
func (s *Store) Sink(id tenement.InstanceID, level Level) *Sink {
	return &Sink{
		store: s,
		batch: batch{instance: id, level: level, done: make(chan error, 1)},
		state: sinkState{throttle: newThrottle(time.Now())},
	}
}

// wholeOffer is an offer that a reader cannot add to: something of it must be taken.
const wholeOffer = 64 << 10

// buffers are room for the text of batches: there are thousands of sinks, and few of them
// have one at once. None is garbage, for collecting it would be noticed by requests.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// Take takes the whole lines of the offer, a line too long to be kept whole, and all
// of the last offer. It returns once they are committed, or dropped: because the
// stream prints too much, or because they cannot be stored. The rest stays with the
// caller, and survives the daemon there. A [Follower] is given what was committed after
// remove has returned: a line it has seen is not offered to a later daemon.
//
// After [Store.Close] it takes nothing that the next daemon can be offered instead.
func (k *Sink) Take(offer []byte, pressing, last bool, remove func(bytes int)) {
	before := k.state
	now := time.Now()
	text := buffers.Get().(*[]byte)
	defer func() {
		*text, k.batch.text = k.batch.text, nil
		buffers.Put(text)
	}()
	k.batch.at, k.batch.pressing = now, pressing || last
	k.batch.text, k.batch.lines, k.notes = (*text)[:0], 0, 0
	taken := k.cut(offer, last, now)
	k.store.taken.Add(int64(taken))
	if k.batch.lines == 0 {
		if taken > 0 {
			remove(taken)
		}
		return
	}
	k.batch.remove, k.batch.taken = remove, taken
	err := k.store.put(&k.batch)
	switch {
	case errors.Is(err, errClosed) && !last && len(offer) < wholeOffer:
		k.state = before
		k.store.taken.Add(-int64(taken))
	case err != nil:
		k.state.lost = before.lost + int64(k.batch.lines-k.notes)
		remove(taken)
	}
}

// cut puts the lines of the offer into the batch and returns how far it came.
func (k *Sink) cut(offer []byte, last bool, now time.Time) (taken int) {
	state := &k.state
	if state.throttle.refill(now) {
		k.note(state.throttle.ended())
	}
	for rest := offer; len(rest) > 0; rest = offer[taken:] {
		if state.throttle.dropping && !last {
			return taken + k.drop(rest)
		}
		end := bytes.IndexByte(rest, '\n')
		switch {
		case end >= 0:
			k.line(rest[:end])
			state.over = false
			taken += end + 1
		case last, state.over, len(rest) > maxLine+1:
			k.line(rest)
			state.over = !last
			taken = len(offer)
		default:
			return taken
		}
	}
	if last && state.throttle.droppedLines > 0 {
		k.note(state.throttle.ended())
	}
	return taken
}

// line adds one line, unless it is the rest of a line or there are too many.
func (k *Sink) line(raw []byte) {
	t := &k.state.throttle
	switch {
	case k.state.over:
	case t.dropping:
		t.drop(1, len(raw))
	case !t.admits(min(len(raw), maxLine)):
		k.note(began)
		t.drop(1, len(raw))
	default:
		k.tellLost()
		k.batch.begin()
		k.batch.text = appendLine(k.batch.text, raw)
	}
}

// drop passes over whole lines, and what is too long for one, without a look at them.
func (k *Sink) drop(rest []byte) (taken int) {
	state := &k.state
	taken = bytes.LastIndexByte(rest, '\n') + 1
	lines := bytes.Count(rest[:taken], []byte{'\n'})
	if taken > 0 && state.over {
		lines-- // the end of one that was cut and kept, or counted
		state.over = false
	}
	if len(rest)-taken > maxLine+1 || state.over {
		if !state.over {
			lines++
		}
		state.over = true
		taken = len(rest)
	}
	state.throttle.drop(lines, taken)
	return taken
}

// note adds a remark of ours.
func (k *Sink) note(text string) {
	k.tellLost()
	k.notes++
	k.batch.begin()
	k.batch.text = append(k.batch.text, text...)
}

func (k *Sink) tellLost() {
	if lost := k.state.lost; lost > 0 {
		k.state.lost = 0
		k.note(fmt.Sprintf("tenement: %d lines were lost here: they could not be stored", lost))
	}
}
