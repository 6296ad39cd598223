package top

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"tenement/internal/api"
	"tenement/internal/legible"
)

// column is one of the list's.
type column struct {
	title   string
	width   int  // in cells; 0: what is left
	number  bool // or an age
	text    func(in api.Instance, now time.Time) string
	compare func(a, b api.Instance) int
}

// The least width of the two columns that take what is left, and the most of the first.
const (
	leastName, mostName = 16, 40
	leastTrouble        = 8
)

// columns are in the order in which they are given up where the screen is too narrow, the
// last one first, but for the trouble that an instance is in.
var columns = []column{
	{"INSTANCE", 0, false, func(in api.Instance, _ time.Time) string { return in.ID.String() },
		func(a, b api.Instance) int { return a.ID.Compare(b.ID) }},
	{"STATE", 9, false, func(in api.Instance, _ time.Time) string { return in.State.String() },
		func(a, b api.Instance) int { return cmp.Compare(urgency(b), urgency(a)) }},
	{"HEALTH", 9, false, func(in api.Instance, _ time.Time) string { return string(in.Health) },
		func(a, b api.Instance) int { return strings.Compare(string(a.Health), string(b.Health)) }},
	{"REQ", 5, true, func(in api.Instance, _ time.Time) string { return strconv.Itoa(in.Leases) },
		func(a, b api.Instance) int { return cmp.Compare(b.Leases, a.Leases) }},
	{"WAIT", 5, true, func(in api.Instance, _ time.Time) string { return strconv.Itoa(in.Waiting) },
		func(a, b api.Instance) int { return cmp.Compare(b.Waiting, a.Waiting) }},
	{"UP", 4, true, func(in api.Instance, now time.Time) string { return legible.Since(in.StartedAt, now) },
		func(a, b api.Instance) int { return a.StartedAt.Compare(b.StartedAt) }},
	{"ACTIVE", 6, true, func(in api.Instance, now time.Time) string { return legible.Since(in.LastActiveAt, now) },
		func(a, b api.Instance) int { return b.LastActiveAt.Compare(a.LastActiveAt) }},
	{"CRASH", 5, true, func(in api.Instance, _ time.Time) string { return strconv.Itoa(in.Restarts) },
		func(a, b api.Instance) int { return cmp.Compare(b.Restarts, a.Restarts) }},
	{"TROUBLE", 0, false, func(in api.Instance, _ time.Time) string { return reason(in) },
		func(a, b api.Instance) int { return strings.Compare(reason(b), reason(a)) }},
}

const (
	nameColumn    = 0
	stateColumn   = 1
	troubleColumn = 8
)

// urgency is how soon a state should be looked at.
func urgency(in api.Instance) int { return urgencies[in.State] }

// reason is why an instance is not ready, or what it has gone through.
func reason(in api.Instance) string {
	if in.Reason == "" && in.OOMKills > 0 {
		return "out of memory: " + strconv.Itoa(in.OOMKills)
	}
	return in.Reason
}

// widths is how wide each column is on a screen, 0 for those that have no room.
func widths(screen int) []int {
	const gap = 1
	given := make([]int, len(columns))
	left := screen - leastName
	for i, c := range columns {
		if c.width > 0 && left >= c.width+gap {
			given[i] = c.width
			left -= c.width + gap
		}
	}
	if left > leastTrouble+gap {
		left -= leastTrouble + gap
		given[troubleColumn] = leastTrouble
	}
	name := min(max(left, 0), mostName-leastName)
	given[nameColumn] = min(leastName+name, screen)
	if given[troubleColumn] > 0 {
		given[troubleColumn] += left - name
	}
	return given
}
