package top

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/legible"
)

// The styles are of the terminal's own sixteen colours, which whoever sits there has
// chosen to be legible. Without colours what counts is bold, faint or reversed.
var (
	plain  = lipgloss.NewStyle()
	bold   = lipgloss.NewStyle().Bold(true)
	faint  = lipgloss.NewStyle().Faint(true)
	marked = lipgloss.NewStyle().Reverse(true)
	red    = lipgloss.NewStyle().Foreground(lipgloss.Red)
	green  = lipgloss.NewStyle().Foreground(lipgloss.Green)
	yellow = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	cyan   = lipgloss.NewStyle().Foreground(lipgloss.Cyan)
)

var stateStyles = map[tenement.State]lipgloss.Style{
	tenement.Ready: green, tenement.Starting: yellow, tenement.Draining: yellow, tenement.Stopping: yellow,
	tenement.Frozen: cyan, tenement.Backoff: red, tenement.Failed: red, tenement.Asleep: faint, tenement.Suspended: faint,
}

// urgencies say which states come first; those that are not named come last.
var urgencies = map[tenement.State]int{
	tenement.Failed: 8, tenement.Backoff: 7, tenement.Stopping: 6, tenement.Draining: 5,
	tenement.Starting: 4, tenement.Ready: 3, tenement.Frozen: 2, tenement.Suspended: 1,
}

// What is around the list: title, views and column heads above; status and help below.
const (
	listFrame  = 5
	pagerFrame = 3 // title, status and help
)

func (m *model) listHeight() int  { return max(m.height-listFrame, 1) }
func (m *model) pagerHeight() int { return max(m.height-pagerFrame, 1) }

// View implements [tea.Model].
func (m *model) View() tea.View {
	var lines []string
	switch {
	case m.help.ShowAll:
		lines = append([]string{m.title(), ""}, strings.Split(m.help.FullHelpView(listHelp()), "\n")...)
	case m.pager != nil:
		lines = m.drawPager()
	default:
		lines = m.drawList()
	}
	if room := max(m.height-2, 0); len(lines) > room {
		lines = lines[:room]
	} else {
		lines = append(lines, make([]string, room-len(lines))...)
	}
	bottom, cursor := m.statusLine()
	lines = append(lines, bottom, m.helpLine())
	for i, line := range lines {
		lines[i] = cut(line, m.width)
	}
	v := tea.NewView(strings.Join(lines[max(len(lines)-m.height, 0):], "\n"))
	v.AltScreen, v.WindowTitle, v.Cursor = true, "ten top", cursor
	return v
}

// title counts what there is; of what rests it is known how many, even where it is not listed.
func (m *model) title() string {
	counts := map[string]int{}
	for _, in := range m.list.awake {
		switch {
		case in.State == tenement.Failed || in.State == tenement.Backoff:
			counts["failed"]++
		case in.State == tenement.Starting:
			counts["starting"]++
		case in.State == tenement.Ready || in.State == tenement.Frozen:
			counts["awake"]++
		}
	}
	text := bold.Render("ten top") + " " + faint.Render(legible.Text(m.options.Where)) + "  " + fmt.Sprintf("%d awake", counts["awake"])
	if n := counts["starting"]; n > 0 {
		text += yellow.Render(fmt.Sprintf("  %d starting", n))
	}
	if n := counts["failed"]; n > 0 {
		text += red.Render(fmt.Sprintf("  %d failed", n))
	}
	text += faint.Render(fmt.Sprintf("  %d at rest", max(m.list.total-len(m.list.awake), 0)))
	return spread(text, faint.Render(m.now.Local().Format("15:04:05")), m.width)
}

// views is the line of the views and the filter.
func (m *model) views() string {
	var names []string
	for i, name := range viewNames {
		if view(i) == m.list.view {
			name = marked.Render(" " + name + " ")
		} else {
			name = faint.Render(" " + name + " ")
		}
		names = append(names, name)
	}
	line := strings.Join(names, "")
	if m.list.text != "" {
		line += "  " + bold.Render("/"+legible.Text(m.list.text))
	}
	place := fmt.Sprintf("%d of %d", min(m.list.cursor+1, len(m.list.rows)), len(m.list.rows))
	if m.list.view == all && !m.list.complete {
		place += "+"
	}
	return spread(line, faint.Render(place), m.width)
}

func (m *model) drawList() []string {
	given := widths(m.width)
	lines := []string{m.title(), m.views(), m.heads(given)}
	l := &m.list
	for i := l.top; i < min(l.top+m.listHeight(), len(l.rows)); i++ {
		lines = append(lines, m.row(l.rows[i], given, i == l.cursor))
	}
	if len(l.rows) == 0 {
		lines = append(lines, faint.Render(m.nothing()))
	}
	return lines
}

func (m *model) nothing() string {
	switch {
	case m.asking.at.IsZero() || m.asking.pending && m.list.total == 0:
		return "asking the daemon …"
	case m.list.text != "":
		return "nothing has this in its name"
	case m.list.view == trouble:
		return "all is well"
	}
	return "nothing is awake; tab shows what rests"
}

func (m *model) heads(given []int) string {
	cells := make([]string, 0, len(columns))
	for i, c := range columns {
		if given[i] == 0 {
			continue
		}
		title := c.title
		if i == m.list.order {
			title = map[bool]string{false: "↓", true: "↑"}[m.list.descending] + title
		}
		cells = append(cells, c.fit(title, given[i]))
	}
	return bold.Render(strings.Join(cells, " "))
}

func (m *model) row(in api.Instance, given []int, selected bool) string {
	cells := make([]string, 0, len(columns))
	for i, c := range columns {
		if given[i] == 0 {
			continue
		}
		cell := c.fit(legible.Text(c.text(in, m.now)), given[i])
		if i == stateColumn && !selected {
			cell = stateStyles[in.State].Render(cell)
		}
		cells = append(cells, cell)
	}
	line := strings.Join(cells, " ")
	if selected {
		return marked.Render(line)
	}
	return line
}

func (m *model) drawPager() []string {
	p := m.pager
	title := bold.Render(p.title)
	if p.search != "" {
		title += "  " + bold.Render("/"+legible.Text(p.search))
	}
	place := fmt.Sprintf("%d lines", len(p.lines))
	if p.loose && p.top+p.height < len(p.lines) {
		place = fmt.Sprintf("%d to %d of %d lines", p.top+1, min(p.top+p.height, len(p.lines)), len(p.lines))
	}
	lines := []string{spread(title, faint.Render(place), m.width)}
	for _, line := range p.visible() {
		lines = append(lines, cutLeft(line, p.left))
	}
	return lines
}

// statusLine is a question, words that are typed, what was done last, or more about the
// instance that is selected.
func (m *model) statusLine() (string, *tea.Cursor) {
	switch {
	case m.confirms != nil:
		return bold.Render(fmt.Sprintf("%s %s? ", m.confirms.key.Help().Desc, m.confirms.id)) + m.confirms.warning, nil
	case m.input.Focused():
		cursor := m.input.Cursor()
		if cursor != nil {
			cursor.Y = max(m.height-2, 0)
		}
		return m.input.View(), cursor
	case m.status.bad:
		return red.Render(m.status.text), nil
	case m.status.text != "":
		return m.status.text, nil
	case m.pager != nil:
		return "", nil
	}
	selected, ok := m.list.selected()
	if !ok {
		return "", nil
	}
	if why := reason(selected); why != "" {
		return yellow.Render(legible.Text(selected.ID.String() + ": " + why)), nil
	}
	return faint.Render(legible.Text(selected.URL)), nil
}

func (m *model) helpLine() string {
	switch {
	case m.confirms != nil:
		return m.help.ShortHelpView(askLine)
	case m.input.Focused():
		return m.help.ShortHelpView(typeLine)
	case m.help.ShowAll:
		return faint.Render("any key goes back")
	case m.pager != nil && m.pager.log != nil:
		return m.help.ShortHelpView(logLine)
	case m.pager != nil:
		return m.help.ShortHelpView(pagerLine)
	}
	return m.help.ShortHelpView(listLine)
}

// fit makes a plain text exactly so many cells wide; numbers stand to the right.
func (c column) fit(text string, width int) string {
	if lipgloss.Width(text) > width {
		text = cut(text, max(width-1, 0)) + "…"
	}
	blanks := strings.Repeat(" ", max(width-lipgloss.Width(text), 0))
	if c.number {
		return blanks + text
	}
	return text + blanks
}

// cut shortens a line with styles to so many cells.
func cut(line string, width int) string {
	if lipgloss.Width(line) <= width {
		return line
	}
	return lipgloss.NewStyle().MaxWidth(width).Inline(true).Render(line)
}

// cutLeft leaves the first n characters of a plain line away.
func cutLeft(line string, n int) string {
	for i := range line {
		if n == 0 {
			return line[i:]
		}
		n--
	}
	if n > 0 {
		return ""
	}
	return line
}

// spread puts two texts at both ends of a line.
func spread(left, right string, width int) string {
	gap := width - lipgloss.Width(left) - lipgloss.Width(right)
	if gap < 1 {
		return left
	}
	return left + strings.Repeat(" ", gap) + right
}
