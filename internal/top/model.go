package top

import (
	"context"
	"time"

	"charm.land/bubbles/v2/help"
	"charm.land/bubbles/v2/textinput"
	tea "charm.land/bubbletea/v2"

	"tenement/internal/api"
)

const (
	// tick is how often the ages on the screen are made good, and how soon after an event
	// the list is.
	tick = 500 * time.Millisecond
	// refresh is how old the list may become.
	refresh = 2 * time.Second
	// firstEvents is how many events of before are shown.
	firstEvents = 200
)

// model is all that is shown.
type model struct {
	options Options
	client  *api.Client
	ctx     context.Context // ends with the program; a tea.Cmd has none of its own

	now           time.Time
	width, height int

	list     listing
	asking   asking
	events   *feed[api.Event]
	happened []string // the last events

	pager    *pager // in the place of the list; nil without
	input    textinput.Model
	confirms *intent // that a key decides about
	help     help.Model
	status   status
}

// asking is what the daemon is asked.
type asking struct {
	serial  int       // of the question whose answer counts
	pending bool      // one is under way
	stale   bool      // something has happened since
	at      time.Time // of the last one
	failed  bool
}

// status is the line above the help.
type status struct {
	text string
	bad  bool
}

// ticked is the passing of time.
type ticked time.Time

func newModel(ctx context.Context, o Options) *model {
	input := textinput.New()
	input.Prompt = "/"
	input.CharLimit = 100
	input.SetVirtualCursor(false)
	input.KeyMap.Paste.Unbind() // it would start a program; the terminal's own works
	return &model{
		options: o, client: o.Client, ctx: ctx, now: time.Now(), width: 80, height: 24,
		events: newFeed[api.Event](), input: input, help: newHelp(),
	}
}

// Init implements [tea.Model].
func (m *model) Init() tea.Cmd {
	return tea.Batch(m.load(), wait(), m.events.next(m.ctx), m.events.follow(func(each func(api.Event) error) error {
		return m.client.FollowEvents(m.ctx, api.EventOptions{Limit: firstEvents}, nil, each)
	}))
}

func wait() tea.Cmd {
	return tea.Tick(tick, func(t time.Time) tea.Msg { return ticked(t) })
}

// load asks for the list, one question after the other.
func (m *model) load() tea.Cmd {
	if m.asking.pending {
		m.asking.stale = true
		return nil
	}
	q := m.list.question(m.listHeight())
	q.serial = m.asking.serial
	m.asking.pending, m.asking.stale, m.asking.at = true, false, m.now
	return func() tea.Msg { return q.ask(m.ctx, m.client) }
}

// Update implements [tea.Model].
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	var cmd tea.Cmd
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		cmd = m.resize(msg.Width, msg.Height)
	case ticked:
		cmd = m.pass(time.Time(msg))
	case answer:
		cmd = m.answered(msg)
	case fed[api.Event]:
		cmd = m.happen(msg)
	case fed[api.LogLine]:
		if m.pager != nil && m.pager.log == msg.from {
			m.pager.addLog(msg.items)
			cmd = msg.from.next(m.ctx)
		}
	case ended:
		m.ended(msg)
	case inspected:
		if m.pager != nil && m.pager.id == msg.id && m.pager.log == nil && msg.err == nil {
			m.pager.show(msg)
		} else if msg.err != nil {
			m.status = status{problem(msg.err), true}
		}
	case did:
		m.status.text, m.status.bad = msg.say()
		cmd = m.load()
	case tea.KeyPressMsg:
		cmd = m.press(msg)
	case tea.PasteMsg:
		if m.input.Focused() {
			m.input, cmd = m.input.Update(msg)
			cmd = tea.Batch(cmd, m.search())
		}
	}
	return m, cmd
}

func (m *model) resize(width, height int) tea.Cmd {
	m.width, m.height = width, height
	m.help.SetWidth(width)
	m.input.SetWidth(max(width-len(m.input.Prompt)-1, 1))
	m.list.scroll(m.listHeight())
	if m.pager != nil {
		m.pager.height = m.pagerHeight()
		m.pager.settle()
	}
	return m.more()
}

// pass asks again if the list is old, or something has happened.
func (m *model) pass(now time.Time) tea.Cmd {
	m.now = now
	if m.asking.pending || !m.asking.stale && now.Sub(m.asking.at) < refresh {
		return wait()
	}
	return tea.Batch(wait(), m.load())
}

// answered takes the daemon's answer up, unless something else is asked by now.
func (m *model) answered(a answer) tea.Cmd {
	m.asking.pending = false
	switch {
	case a.serial != m.asking.serial:
		return m.load()
	case a.err != nil && m.ctx.Err() == nil:
		m.asking.failed = true
		m.status = status{problem(a.err), true}
		return nil
	}
	if m.asking.failed {
		m.asking.failed, m.status = false, status{}
	}
	m.list.take(a)
	m.list.scroll(m.listHeight())
	return m.more()
}

// more asks for rows that were not asked for before.
func (m *model) more() tea.Cmd {
	if m.list.wantsMore(m.listHeight()) {
		return m.load()
	}
	return nil
}

func (m *model) happen(msg fed[api.Event]) tea.Cmd {
	for _, e := range msg.items {
		line := eventLine(e)
		m.happened = append(m.happened, line)
		if m.pager != nil && m.pager.events {
			m.pager.add(line)
		}
	}
	if extra := len(m.happened) - maxLines; extra > 0 {
		m.happened = append(m.happened[:0], m.happened[extra:]...)
	}
	m.asking.stale = true
	return msg.from.next(m.ctx)
}

// ended says why a stream has ended, if it was not asked to.
func (m *model) ended(msg ended) {
	if m.pager != nil && msg.from == any(m.pager.log) || msg.from == any(m.events) {
		if msg.err != nil && m.ctx.Err() == nil {
			m.status = status{problem(msg.err), true}
		}
	}
}
