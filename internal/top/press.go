package top

import (
	tea "charm.land/bubbletea/v2"
)

// press does what a key stands for.
func (m *model) press(msg tea.KeyPressMsg) tea.Cmd {
	switch {
	case msg.String() == "ctrl+c":
		return tea.Quit
	case is(msg, keyStop):
		return tea.Suspend
	case m.confirms != nil:
		return m.decide(msg)
	case m.input.Focused():
		return m.typed(msg)
	case m.help.ShowAll:
		m.help.ShowAll = false
		return nil
	case is(msg, keyHelp):
		m.help.ShowAll = true
		return nil
	case is(msg, keyFilter) && (m.pager == nil || m.pager.log != nil):
		return m.beginTyping()
	}
	m.status = status{}
	if m.pager != nil {
		return m.pressInPager(msg)
	}
	return m.pressInList(msg)
}

func (m *model) pressInPager(msg tea.KeyPressMsg) tea.Cmd {
	if is(msg, keyBack) && (m.pager.left == 0 || !is(msg, keyLeft)) {
		m.close()
		return nil
	}
	m.pager.press(msg)
	return nil
}

func (m *model) pressInList(msg tea.KeyPressMsg) tea.Cmd {
	l, height := &m.list, m.listHeight()
	switch {
	case is(msg, keyQuit):
		return tea.Quit
	case is(msg, keyUp):
		l.move(-1)
	case is(msg, keyDown):
		l.move(1)
	case is(msg, keyPageUp):
		l.move(-height)
	case is(msg, keyPageDn):
		l.move(height)
	case is(msg, keyHome):
		l.move(-len(l.rows))
	case is(msg, keyEnd):
		l.move(len(l.rows))
		l.reach = jumpSize
	case is(msg, keyView):
		l.view = (l.view + 1) % view(len(viewNames))
		l.top, l.cursor = 0, 0
		l.arrange()
		return m.askAnew()
	case is(msg, keySort):
		l.order = (l.order + 1) % len(columns)
		l.arrange()
	case is(msg, keyReverse):
		l.descending = !l.descending
		l.arrange()
	case is(msg, keyEvents):
		return m.openEvents()
	case msg.String() == "esc" && l.text != "":
		m.input.SetValue("")
		return m.search()
	default:
		return m.pressOnInstance(msg)
	}
	l.scroll(height)
	return m.more()
}

// pressOnInstance is about the instance that is selected.
func (m *model) pressOnInstance(msg tea.KeyPressMsg) tea.Cmd {
	selected, ok := m.list.selected()
	if !ok {
		return nil
	}
	switch {
	case is(msg, keyInspect):
		return m.openInspect(selected.ID)
	case is(msg, keyLog):
		return m.openLog(selected.ID, "")
	}
	for i := range actions {
		if is(msg, actions[i].key) {
			in := intent{&actions[i], selected.ID}
			if in.warning != "" {
				m.confirms = &in
				return nil
			}
			return m.act(in)
		}
	}
	return nil
}

// decide is the key after a question.
func (m *model) decide(msg tea.KeyPressMsg) tea.Cmd {
	in := *m.confirms
	m.confirms = nil
	if msg.String() != "y" && msg.String() != "Y" {
		m.status = status{text: "nothing was done"}
		return nil
	}
	return m.act(in)
}

func (m *model) act(in intent) tea.Cmd {
	m.status = status{text: in.doing + " " + in.id.String() + " …"}
	return in.start(m.ctx, m.client)
}

// beginTyping is for words to search for: in the list, or in the log that is shown.
func (m *model) beginTyping() tea.Cmd {
	m.input.SetValue(m.list.text)
	if m.pager != nil {
		m.input.SetValue(m.pager.search)
	}
	m.input.CursorEnd()
	return m.input.Focus()
}

// typed is a key of such words. The list follows each of them, a log the last one.
func (m *model) typed(msg tea.KeyPressMsg) (cmd tea.Cmd) {
	switch msg.String() {
	case "esc":
		m.input.SetValue("")
		m.input.Blur()
	case "enter":
		m.input.Blur()
	default:
		m.input, cmd = m.input.Update(msg)
	}
	if m.pager == nil {
		return tea.Batch(cmd, m.search())
	}
	if !m.input.Focused() && m.input.Value() != m.pager.search {
		return m.openLog(m.pager.id, m.input.Value())
	}
	return cmd
}

// search lists what has the text that was typed.
func (m *model) search() tea.Cmd {
	if m.pager != nil || m.list.text == m.input.Value() {
		return nil
	}
	m.list.text = m.input.Value()
	m.list.top, m.list.cursor = 0, 0
	m.list.forget()
	return m.askAnew()
}

// askAnew drops the answer that is under way.
func (m *model) askAnew() tea.Cmd {
	m.asking.serial++
	return m.load()
}
