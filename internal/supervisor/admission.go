package supervisor

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// admission says which start comes next, so that as many are under way at once as there
// are slots. A start that a request waits for comes before those nobody waits for;
// within these two lines the services take turns, and of one service the oldest start
// is first. What does not wait costs nothing.
type admission struct {
	mu         sync.Mutex
	free       int // slots that nobody has
	urgent     line
	background line
	overtaken  int    // urgent starts admitted since a background one waits
	serial     uint64 // of the ticket made last
}

// backgroundShare: while both kinds wait, every so manyth slot goes to a start that
// nobody waits for, so that it is late and not never.
const backgroundShare = 8

// ticket is one start's place in the admission queue, then its slot.
type ticket struct {
	admission *admission
	service   string
	serial    uint64        // its age: lower is older
	granted   chan struct{} // receives when it has a slot

	// These need admission.mu.
	stage  stage
	urgent bool
	expiry *time.Timer // gives the slot back; nil before it has one
}

type stage uint8

const (
	outside stage = iota
	queued
	admitted
)

// ticket makes one for a start of service that begins to wait now.
func (a *admission) ticket(service string) *ticket {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serial++
	return &ticket{admission: a, service: service, serial: a.serial, granted: make(chan struct{}, 1)}
}

// enter queues t. One that has left may enter again, and is as old as before.
func (t *ticket) enter(urgent bool) {
	a := t.admission
	a.mu.Lock()
	defer a.mu.Unlock()
	t.stage, t.urgent = queued, urgent
	a.lineOf(t).add(t)
	a.admit()
}

// prefer says anew whether a request waits for this start.
func (t *ticket) prefer(urgent bool) {
	a := t.admission
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.stage != queued || t.urgent == urgent {
		return
	}
	a.lineOf(t).remove(t)
	t.urgent = urgent
	a.lineOf(t).add(t)
}

// leave gives up the place in the queue, or the slot. To leave again does nothing.
func (t *ticket) leave() {
	a := t.admission
	a.mu.Lock()
	defer a.mu.Unlock()
	switch t.stage {
	case queued:
		a.lineOf(t).remove(t)
	case admitted:
		select {
		case <-t.granted:
		default:
		}
		a.free++
		a.admit()
	}
	t.stage = outside
	if t.expiry != nil {
		t.expiry.Stop()
	}
}

// expireAfter bounds how long t has its slot.
func (t *ticket) expireAfter(d time.Duration) {
	t.admission.mu.Lock()
	defer t.admission.mu.Unlock()
	t.expiry = time.AfterFunc(d, t.leave)
}

func (a *admission) lineOf(t *ticket) *line {
	if t.urgent {
		return &a.urgent
	}
	return &a.background
}

// admit hands out the free slots. It needs mu.
func (a *admission) admit() {
	for a.free > 0 {
		t := a.next()
		if t == nil {
			return
		}
		a.free--
		t.stage = admitted
		t.granted <- struct{}{}
	}
}

// next takes whose turn it is out of the queue; nil if nobody waits.
func (a *admission) next() *ticket {
	switch {
	case a.background.empty():
		a.overtaken = 0
		return a.urgent.pop()
	case a.urgent.empty() || a.overtaken == backgroundShare-1:
		a.overtaken = 0
		return a.background.pop()
	}
	a.overtaken++
	return a.urgent.pop()
}

// line is the starts of one kind that wait.
type line struct {
	turns   []string             // the services that have one, the next one first
	waiting map[string][]*ticket // by service, the oldest first; none is empty
}

func (l *line) empty() bool { return len(l.turns) == 0 }

func (l *line) add(t *ticket) {
	if l.waiting == nil {
		l.waiting = make(map[string][]*ticket)
	}
	list := l.waiting[t.service]
	if len(list) == 0 {
		l.turns = append(l.turns, t.service)
	}
	at, _ := slices.BinarySearchFunc(list, t, byAge)
	l.waiting[t.service] = slices.Insert(list, at, t)
}

func (l *line) remove(t *ticket) {
	list := l.waiting[t.service]
	if at, ok := slices.BinarySearchFunc(list, t, byAge); ok {
		l.keep(t.service, slices.Delete(list, at, at+1))
	}
}

// pop takes the oldest start of the service whose turn it is, which then waits for all
// other services; nil if the line is empty.
func (l *line) pop() *ticket {
	if l.empty() {
		return nil
	}
	service := l.turns[0]
	l.turns = append(l.turns[1:], service)
	list := l.waiting[service]
	l.keep(service, list[1:])
	return list[0]
}

// keep has list wait, or the service lose its turn.
func (l *line) keep(service string, list []*ticket) {
	if len(list) > 0 {
		l.waiting[service] = list
		return
	}
	delete(l.waiting, service)
	l.turns = slices.DeleteFunc(l.turns, func(s string) bool { return s == service })
}

func byAge(a, b *ticket) int { return cmp.Compare(a.serial, b.serial) }

// queue puts a start into the admission queue, as soon as there is room for it.
func (i *instance) queue() {
	if i.own.ticket == nil {
		i.own.ticket = i.sup.admission.ticket(i.id.Service)
	}
	if i.hasRoom() {
		i.own.ticket.enter(i.urgent())
	}
}

// onGranted starts with the slot just obtained, unless room has become short meanwhile.
func (i *instance) onGranted() {
	if i.hasRoom() {
		i.start()
	}
}

// granted receives once a start that is queued has its slot.
func (i *instance) granted() <-chan struct{} {
	if i.own.ticket == nil {
		return nil
	}
	return i.own.ticket.granted
}

// urgent reports whether a request waits, and not the operator alone.
func (i *instance) urgent() bool { return i.requests.Load() > 0 }

// reorder follows requests that came or gave up while the start was queued.
func (i *instance) reorder() {
	if i.own.ticket != nil {
		i.own.ticket.prefer(i.urgent())
	}
}

// leaveQueue gives back the place in the queue, or the slot.
func (i *instance) leaveQueue() {
	if i.own.ticket != nil {
		i.own.ticket.leave()
		i.own.ticket = nil
	}
}
