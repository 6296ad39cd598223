package telemetry

import (
	"sync"
	"time"

	"tenement"
)

const (
	// maxHeldWakes bounds the records that wait to be kept: while the disk takes nothing,
	// later ones are lost.
	maxHeldWakes = 10_000

	// firstBytePatience is how long the record of a wake waits for the first response.
	firstBytePatience = 10 * time.Second
)

// Wakes holds the records of wakes until they are kept, all at once now and then: nobody
// who wakes or is woken waits for the disk. Its methods may be called concurrently.
type Wakes struct {
	mu   sync.Mutex
	held []*heldWake
}

type heldWake struct {
	record *tenement.WakeRecord // not to be changed
	since  time.Time
	first  time.Duration // until the first byte; 0: there was none yet
}

// Add holds w, which is not changed any more; false: there are too many.
func (h *Wakes) Add(w *tenement.WakeRecord) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.held) >= maxHeldWakes {
		return false
	}
	h.held = append(h.held, &heldWake{record: w, since: time.Now()})
	return true
}

// FirstByte adds to w how long it took from a ready process to the first byte of a response.
// Of several responses the first one counts, and false is returned for all others, and for
// what comes too late.
func (h *Wakes) FirstByte(w *tenement.WakeRecord, took time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, held := range h.held {
		if held.record == w {
			first := held.first == 0
			if first {
				held.first = max(took, 1)
			}
			return first
		}
	}
	return false
}

// Take gives the records that are complete, in the order of Add; with all, every one.
func (h *Wakes) Take(all bool) []tenement.WakeRecord {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []tenement.WakeRecord
	kept := h.held[:0]
	for _, held := range h.held {
		if !all && !held.complete() {
			kept = append(kept, held)
			continue
		}
		w := *held.record
		w.FirstByte = held.first
		list = append(list, w)
	}
	clear(h.held[len(kept):])
	h.held = kept
	return list
}

func (h *heldWake) complete() bool {
	w := h.record
	return w.Outcome != tenement.WakeOK || w.Cause != tenement.CauseRequest || h.first > 0 || time.Since(h.since) > firstBytePatience
}
