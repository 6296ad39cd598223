package top

import (
	"context"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/legible"
)

// maxLines bounds what a pager keeps; more is for `ten logs`.
const maxLines = 5000

// pager shows lines that come one after the other. It stays at the end, if it is there.
type pager struct {
	title     string
	lines     []string
	top, left int  // the first line and the first column that are shown
	height    int  // how many lines are
	loose     bool // not at the end
	search    string

	id     tenement.InstanceID // of whom; zero for events
	log    *feed[api.LogLine]  // nil where it is no log
	events bool
	cancel context.CancelFunc
}

const sideways = 10 // columns of one step to the side

func (p *pager) add(lines ...string) {
	p.lines = append(p.lines, lines...)
	if extra := len(p.lines) - maxLines; extra > 0 {
		p.lines = append(p.lines[:0], p.lines[extra:]...)
		p.top = max(p.top-extra, 0)
	}
	p.settle()
}

func (p *pager) settle() {
	last := max(len(p.lines)-p.height, 0)
	if !p.loose {
		p.top = last
	}
	p.top = max(min(p.top, last), 0)
}

// scroll moves what is shown by n lines; at the end it holds on to it.
func (p *pager) scroll(n int) {
	p.top += n
	p.loose = p.top < len(p.lines)-p.height
	p.settle()
}

func (p *pager) press(msg tea.KeyPressMsg) {
	switch {
	case is(msg, keyUp):
		p.scroll(-1)
	case is(msg, keyDown):
		p.scroll(1)
	case is(msg, keyPageUp):
		p.scroll(-p.height)
	case is(msg, keyPageDn):
		p.scroll(p.height)
	case is(msg, keyHome):
		p.scroll(-len(p.lines))
	case is(msg, keyEnd):
		p.scroll(len(p.lines))
	case is(msg, keyRight):
		p.left += sideways
	case is(msg, keyLeft):
		p.left = max(p.left-sideways, 0)
	}
}

// visible are the lines on the screen.
func (p *pager) visible() []string {
	return p.lines[p.top:min(p.top+p.height, len(p.lines))]
}

// openLog follows what an instance prints, and before it the last lines.
func (m *model) openLog(id tenement.InstanceID, search string) tea.Cmd {
	p := m.open("log of " + id.String())
	p.id, p.search, p.log = id, search, newFeed[api.LogLine]()
	ctx, cancel := context.WithCancel(m.ctx)
	p.cancel = cancel
	o := api.LogOptions{Instance: id, Search: search, Limit: maxLines}
	return tea.Batch(p.log.next(ctx), p.log.follow(func(each func(api.LogLine) error) error {
		return m.client.FollowLogs(ctx, o, nil, each)
	}))
}

func (p *pager) addLog(lines []api.LogLine) {
	shown := make([]string, len(lines))
	for i, l := range lines {
		mark := " "
		if l.Level == "stderr" {
			mark = "!"
		}
		shown[i] = l.At.Local().Format("15:04:05.000") + mark + " " + legible.Text(strings.ReplaceAll(l.Text, "\t", "    "))
	}
	p.add(shown...)
}

// openEvents shows what has happened since the beginning, and before.
func (m *model) openEvents() tea.Cmd {
	p := m.open("events")
	p.events = true
	p.add(m.happened...)
	return nil
}

func eventLine(e api.Event) string {
	who, outcome := e.Actor, e.Outcome
	if e.From != "" {
		who += " (" + e.From + ")"
	}
	if e.Detail != "" {
		outcome += ": " + e.Detail
	}
	return legible.Text(fmt.Sprintf("%s  %-10s %-20s %s  by %s", e.At.Local().Format(time.TimeOnly), e.Action, e.Target, outcome, who))
}

// inspected is all about an instance.
type inspected struct {
	id   tenement.InstanceID
	rows [][]string
	err  error
}

// openInspect shows all about an instance as it is now, and is not asked again: what its
// files take may be a long count.
func (m *model) openInspect(id tenement.InstanceID) tea.Cmd {
	m.open(id.String() + " at " + m.now.Local().Format(time.TimeOnly)).id = id
	return func() tea.Msg {
		rows, err := m.options.Inspect(m.ctx, id)
		return inspected{id, rows, err}
	}
}

func (p *pager) show(in inspected) {
	p.lines, p.loose = nil, true
	for _, row := range in.rows {
		p.lines = append(p.lines, fmt.Sprintf("%-14s %s", legible.Text(row[0]), legible.Text(row[1])))
	}
	p.settle()
}

// open puts a pager in the place of what is shown.
func (m *model) open(title string) *pager {
	m.close()
	m.pager = &pager{title: title, height: m.pagerHeight(), cancel: func() {}}
	return m.pager
}

// close goes back to the list.
func (m *model) close() {
	if m.pager != nil {
		m.pager.cancel()
		m.pager = nil
	}
}
