package top

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"tenement"
	"tenement/internal/api"
)

// view is which instances are listed.
type view int

const (
	awake   view = iota // and what has failed
	trouble             // what is not as it should be
	all
)

var viewNames = []string{awake: "awake", trouble: "trouble", all: "all"}

// listing is the list, and what the daemon was asked for it. All that is awake is known;
// of what rests only so much as was scrolled to, in the order of ids. So a look at a
// daemon with a million instances costs it what a look at the awake ones costs.
type listing struct {
	view       view
	text       string // that must be in service:id
	order      int    // the column to sort by
	descending bool

	awake, resting []api.Instance
	complete       bool // resting lacks nothing
	total          int  // that match text, whether they are listed or not

	rows        []api.Instance // as listed: what is awake in order, and then what rests
	awakeRows   int            // how many of them are awake
	cursor, top int            // the row that is selected, and the first one on the screen
	reach       int            // how many more resting ones are wanted at once
}

// Bounds of the pages of what rests.
const (
	pageSize = 100
	jumpSize = api.MaxInstances // for who wants to see the end
)

// question is what is asked of the daemon at once.
type question struct {
	serial int // of the text and view that it is for
	text   string
	rests  bool // what rests is asked for, too
	after  tenement.InstanceID
	limit  int
}

// answer is what the daemon says to a question.
type answer struct {
	question
	awake   []api.Instance
	resting api.InstancePage
	total   int
	err     error
}

// ask asks the daemon; a resting instance that wakes meanwhile may be in both lists.
func (q question) ask(ctx context.Context, client *api.Client) answer {
	a := answer{question: q}
	page, err := client.Instances(ctx, api.ListOptions{Text: q.text, Limit: 1})
	if page.Total != nil {
		a.total = *page.Total
	}
	for o := (api.ListOptions{Text: q.text, AwakeOnly: true, Limit: api.MaxInstances}); err == nil; o.After = page.Next {
		page, err = client.Instances(ctx, o)
		a.awake = append(a.awake, page.Instances...)
		if page.Next.IsZero() {
			break
		}
	}
	if err == nil && q.rests {
		a.resting, err = client.Instances(ctx, api.ListOptions{
			Text: q.text, States: []tenement.State{tenement.Asleep, tenement.Suspended}, After: q.after, Limit: q.limit,
		})
	}
	a.err = err
	return a
}

// question is what must be asked to show height rows and the next ones.
func (l *listing) question(height int) question {
	q := question{text: l.text}
	if l.view != all {
		return q
	}
	from := min(max(l.top-l.awakeRows, 0), len(l.resting))
	to := l.top + 2*height - l.awakeRows
	if to <= 0 && l.reach == 0 {
		return q
	}
	if from > 0 {
		q.after = l.resting[from-1].ID
	}
	q.rests, q.limit = true, min(max(to-from, pageSize, l.reach), api.MaxInstances)
	l.reach = 0
	return q
}

// wantsMore reports whether rows that are about to be shown were not asked for yet.
func (l *listing) wantsMore(height int) bool {
	return l.view == all && !l.complete && l.top+2*height > len(l.rows)
}

// take takes up an answer.
func (l *listing) take(a answer) {
	l.awake, l.total = a.awake, a.total
	if a.rests {
		l.splice(a.after, a.resting)
	}
	l.arrange()
}

// splice puts a page in the place of what was known of its part of the order.
func (l *listing) splice(after tenement.InstanceID, page api.InstancePage) {
	begin, _ := slices.BinarySearchFunc(l.resting, after, func(in api.Instance, id tenement.InstanceID) int {
		if in.ID.Compare(id) <= 0 {
			return -1
		}
		return 1
	})
	end := len(l.resting)
	if !page.Next.IsZero() {
		end = begin
		for end < len(l.resting) && l.resting[end].ID.Compare(page.Next) <= 0 {
			end++
		}
	}
	l.complete = page.Next.IsZero() || l.complete && end < len(l.resting)
	l.resting = slices.Concat(l.resting[:begin], page.Instances, l.resting[end:])
}

// forget is for another text: what was known is not of it.
func (l *listing) forget() {
	l.resting, l.complete = nil, false
	l.arrange()
}

// arrange makes the rows, and stays with the instance that is selected.
func (l *listing) arrange() {
	selected, had := l.selected()
	known := make(map[tenement.InstanceID]bool, len(l.awake))
	l.rows = make([]api.Instance, 0, len(l.awake)+len(l.resting))
	for _, in := range l.awake {
		known[in.ID] = true
		if l.lists(in) {
			l.rows = append(l.rows, in)
		}
	}
	slices.SortStableFunc(l.rows, l.compare)
	l.awakeRows = len(l.rows)
	if l.view == all {
		for _, in := range l.resting {
			if !known[in.ID] {
				l.rows = append(l.rows, in)
			}
		}
	}
	if at := slices.IndexFunc(l.rows, func(in api.Instance) bool { return in.ID == selected.ID }); had && at >= 0 {
		l.cursor = at
	}
	l.cursor = max(min(l.cursor, len(l.rows)-1), 0)
}

// lists is about what is awake. What was typed since the question was asked holds at once.
func (l *listing) lists(in api.Instance) bool {
	if !strings.Contains(in.ID.String(), strings.ToLower(l.text)) {
		return false
	}
	return l.view != trouble || troubled(in)
}

// troubled reports whether somebody should have a look at in.
func troubled(in api.Instance) bool {
	switch in.State {
	case tenement.Failed, tenement.Backoff:
		return true
	}
	return in.Health == tenement.HealthDegraded || in.Health == tenement.HealthUnhealthy || in.Restarts > 0
}

func (l *listing) compare(a, b api.Instance) int {
	order := cmp.Or(columns[l.order].compare(a, b), a.ID.Compare(b.ID))
	if l.descending {
		return -order
	}
	return order
}

// selected is the instance that keys are about.
func (l *listing) selected() (in api.Instance, ok bool) {
	if l.cursor >= len(l.rows) {
		return in, false
	}
	return l.rows[l.cursor], true
}

// move moves the selection by n rows.
func (l *listing) move(n int) {
	l.cursor = max(min(l.cursor+n, len(l.rows)-1), 0)
}

// scroll keeps the selection on a screen of height rows.
func (l *listing) scroll(height int) {
	l.top = max(min(l.top, l.cursor, len(l.rows)-height), l.cursor-height+1, 0)
}
