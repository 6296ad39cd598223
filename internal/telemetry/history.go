package telemetry

import (
	"slices"
	"sync"
	"time"

	"tenement"
)

const (
	// SampleStep is the time between two samples of what is awake.
	SampleStep = 15 * time.Second

	// historySpan is how far back a timeline goes.
	historySpan = time.Hour

	maxSamples = int(historySpan / SampleStep)

	// maxChanges bounds the changes of state of a timeline: some twenty wakes.
	maxChanges = 100

	// maxResting bounds how many timelines there are of what sleeps: those of the last ones.
	maxResting = 1000
)

// History keeps the last hour of what is awake, and of what has fallen asleep lately, in
// memory: of an awake instance some ten kilobytes, of a sleeping one nothing after an hour,
// or when a thousand others have fallen asleep since. Its methods may be called concurrently.
type History struct {
	mu    sync.Mutex
	lines map[tenement.InstanceID]*timeline
}

// timeline is what is kept of one instance.
type timeline struct {
	samples []sample
	changes []tenement.StateChange
	resting bool      // it was when it was heard of last
	heard   time.Time // last
}

// sample is a [tenement.Sample] in less room.
type sample struct {
	at                    int64 // Unix milliseconds
	memory                tenement.Bytes
	requests, errors      uint32
	medianUS, p95US, cpus uint32 // microseconds
}

// Total is what all instances did within one step.
type Total struct {
	Requests, Errors int
	CPU              time.Duration
}

// NewHistory makes an empty one.
func NewHistory() *History {
	return &History{lines: make(map[tenement.InstanceID]*timeline)}
}

// Changed notes that an instance has gone from one state to another.
func (h *History) Changed(id tenement.InstanceID, from, to tenement.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	line := h.line(id)
	line.heard = time.Now()
	line.resting = to.Rests()
	line.changes = appendBounded(line.changes, tenement.StateChange{At: line.heard, From: from, To: to}, maxChanges)
}

// line is that of id, which is made unless there is one. It needs mu.
func (h *History) line(id tenement.InstanceID) *timeline {
	line := h.lines[id]
	if line == nil {
		line = &timeline{}
		h.lines[id] = line
	}
	return line
}

// appendBounded lets go of the first one when there would be more than most.
func appendBounded[T any](list []T, item T, most int) []T {
	if len(list) >= most {
		list = slices.Delete(list, 0, len(list)-most+1)
	}
	return append(list, item)
}

// Step takes a sample of every account of l, which has just looked at the processes, and
// forgets what is too old. It is what all have done since the last step.
func (h *History) Step(l *Ledger) (all Total) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	l.Sample(func(id tenement.InstanceID, alive bool, s tenement.Sample) {
		all.Requests += s.Requests
		all.Errors += s.Errors
		all.CPU += s.CPU
		line := h.line(id)
		if line.heard.IsZero() {
			line.resting = !alive
		}
		line.heard = now
		line.samples = appendBounded(line.samples, sample{
			at: now.UnixMilli(), memory: s.Memory, requests: uint32(s.Requests), errors: uint32(s.Errors),
			medianUS: microseconds(s.Median), p95US: microseconds(s.P95), cpus: microseconds(s.CPU),
		}, maxSamples)
	})
	h.forget(now)
	return all
}

// microseconds is d in what a sample has room for: more than an hour.
func microseconds(d time.Duration) uint32 { return uint32(min(d.Microseconds(), 1<<32-1)) }

// forget lets go of what is older than an hour, and of what rests beyond maxResting. It
// needs mu.
func (h *History) forget(now time.Time) {
	oldest := now.Add(-historySpan)
	type rest struct {
		id    tenement.InstanceID
		since time.Time
	}
	var resting []rest
	for id, line := range h.lines {
		line.forget(oldest)
		switch {
		case line.resting && len(line.samples) == 0 && len(line.changes) == 0:
			delete(h.lines, id)
		case line.resting:
			resting = append(resting, rest{id, line.heard})
		}
	}
	if len(resting) <= maxResting {
		return
	}
	slices.SortFunc(resting, func(a, b rest) int { return a.since.Compare(b.since) })
	for _, r := range resting[:len(resting)-maxResting] {
		delete(h.lines, r.id)
	}
}

// forget lets go of what was before oldest.
func (t *timeline) forget(oldest time.Time) {
	if n := slices.IndexFunc(t.samples, func(s sample) bool { return s.at >= oldest.UnixMilli() }); n != 0 {
		t.samples = cut(t.samples, n)
	}
	if n := slices.IndexFunc(t.changes, func(c tenement.StateChange) bool { return !c.At.Before(oldest) }); n != 0 {
		t.changes = cut(t.changes, n)
	}
}

// cut is list without its first n, or, with n < 0, without any.
func cut[T any](list []T, n int) []T {
	if n < 0 {
		return nil
	}
	return slices.Delete(list, 0, n)
}

// Timeline is what is known of id; of what has not been awake lately that is nothing.
func (h *History) Timeline(id tenement.InstanceID) tenement.Timeline {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := tenement.Timeline{Step: SampleStep}
	line := h.lines[id]
	if line == nil {
		return t
	}
	t.Changes = slices.Clone(line.changes)
	t.Samples = make([]tenement.Sample, len(line.samples))
	for i, s := range line.samples {
		t.Samples[i] = tenement.Sample{
			At: time.UnixMilli(s.at), Requests: int(s.requests), Errors: int(s.errors),
			Median: time.Duration(s.medianUS) * time.Microsecond, P95: time.Duration(s.p95US) * time.Microsecond,
			CPU: time.Duration(s.cpus) * time.Microsecond, Memory: s.memory,
		}
	}
	return t
}

// Forget lets go of an instance that was deleted: another one of its name begins anew.
func (h *History) Forget(id tenement.InstanceID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.lines, id)
}
