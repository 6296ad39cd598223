package route

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"tenement"
)

// Availability ranks the instances that share a service's host, worst first.
type Availability uint8

// The ranks.
const (
	Unavailable Availability = iota // suspended, failed, or waiting for its back-off
	CanWake                         // a request starts it
	Awake                           // serves now
)

// Weights says which instances share the host of their service, and how. All
// methods may be called concurrently; reading takes no lock.
type Weights struct {
	mu        sync.Mutex // held to change shares
	byService atomic.Pointer[shares]
}

// shares holds, per service, the instances with a weight above 0, ordered by
// name. Neither the map nor a slice is ever changed after it was published.
type shares map[string][]share

type share struct {
	id     tenement.InstanceID
	weight int
}

// NewWeights returns weights with no instance in them.
func NewWeights() *Weights {
	w := &Weights{}
	w.byService.Store(&shares{})
	return w
}

// Set gives id a weight; 0 or less takes it out.
func (w *Weights) Set(id tenement.InstanceID, weight int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := maps.Clone(*w.byService.Load())
	next.set(id, weight)
	w.byService.Store(&next)
}

// SetAll changes the weights of several instances and leaves the others alone.
// A reader sees all of the changes or none.
func (w *Weights) SetAll(weights map[tenement.InstanceID]int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := maps.Clone(*w.byService.Load())
	for id, weight := range weights {
		next.set(id, weight)
	}
	w.byService.Store(&next)
}

// Replace puts weights in the place of all there was. A reader sees either the
// old ones or the new ones.
func (w *Weights) Replace(weights map[tenement.InstanceID]int) {
	next := make(shares)
	for id, weight := range weights {
		if weight > 0 {
			next[id.Service] = append(next[id.Service], share{id, weight})
		}
	}
	for _, list := range next {
		slices.SortFunc(list, func(a, b share) int { return cmp.Compare(a.id.Name, b.id.Name) })
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.byService.Store(&next)
}

// set replaces the service's slice: the published one may be in a reader's hands.
func (s shares) set(id tenement.InstanceID, weight int) {
	list := slices.Clone(s[id.Service])
	i, found := slices.BinarySearchFunc(list, id.Name, func(e share, name string) int {
		return cmp.Compare(e.id.Name, name)
	})
	switch {
	case weight > 0 && found:
		list[i].weight = weight
	case weight > 0:
		list = slices.Insert(list, i, share{id, weight})
	case found:
		list = slices.Delete(list, i, i+1)
	}
	if len(list) == 0 {
		delete(s, id.Service)
		return
	}
	s[id.Service] = list
}

// Pick chooses one of the instances of service that have a weight, by chance in
// proportion to it, among those that rank best: the awake ones, else those that
// can be woken, else one that is unavailable, so that its error gets reported.
// It is false when no instance has a weight: weight 0 gets no traffic, also when
// all others are dead.
//
// random returns a number in [0, n); nil means [rand.IntN]. Both funcs are called
// at most once per instance, on the caller's goroutine.
func (w *Weights) Pick(
	service string, rank func(tenement.InstanceID) Availability, random func(n int) int,
) (tenement.InstanceID, bool) {
	if random == nil {
		random = rand.IntN
	}
	// One pass (reservoir sampling), because a rank may change between two calls.
	var picked tenement.InstanceID
	var best Availability
	total := 0
	for _, e := range (*w.byService.Load())[service] {
		r := rank(e.id)
		if total > 0 && r < best {
			continue
		}
		if r > best {
			best, total = r, 0
		}
		total += e.weight
		if total == e.weight || random(total) < e.weight {
			picked = e.id
		}
	}
	return picked, total > 0
}
