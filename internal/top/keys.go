package top

import (
	"charm.land/bubbles/v2/help"
	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"
)

func bind(does, shown string, keys ...string) key.Binding {
	return key.NewBinding(key.WithKeys(append(keys, shown)...), key.WithHelp(shown, does))
}

// The keys. Those of actions stand with them.
var (
	keyQuit    = bind("quit", "q", "ctrl+c")
	keyStop    = bind("suspend ten top", "ctrl+z")
	keyHelp    = bind("help", "?")
	keyBack    = bind("back", "esc", "q", "backspace", "left", "h")
	keyUp      = bind("up", "↑ k", "up", "k")
	keyDown    = bind("down", "↓ j", "down", "j")
	keyPageUp  = bind("page up", "pgup", "ctrl+b")
	keyPageDn  = bind("page down", "pgdn", "pgdown", "ctrl+f", "space")
	keyHome    = bind("first", "g", "home")
	keyEnd     = bind("last", "G", "end")
	keyLeft    = bind("left", "←", "left", "h")
	keyRight   = bind("right", "→", "right", "l")
	keyView    = bind("awake, trouble, all", "tab")
	keySort    = bind("sort by the next column", "s")
	keyReverse = bind("the other way round", "S")
	keyFilter  = bind("filter", "/")
	keyInspect = bind("all about it", "enter", "i")
	keyLog     = bind("log", "l")
	keyEvents  = bind("events", "e")
)

func is(msg tea.KeyPressMsg, keys ...key.Binding) bool { return key.Matches(msg, keys...) }

// listHelp is the help line of the list, and the help that ? shows.
func listHelp() [][]key.Binding {
	does := make([]key.Binding, len(actions))
	for i, a := range actions {
		does[i] = a.key
	}
	return [][]key.Binding{
		{keyUp, keyDown, keyPageUp, keyPageDn, keyHome, keyEnd, keyHelp, keyStop, keyQuit},
		{keyView, keyFilter, keySort, keyReverse, keyInspect, keyLog, keyEvents},
		does,
	}
}

// The help lines, in words that a screen of 80 columns has room for.
var (
	listLine = []key.Binding{
		bind("filter", "/"), bind("view", "tab"), bind("sort", "s"), bind("more", "enter"), bind("log", "l"),
		bind("wake", "w"), bind("sleep", "z"), bind("help", "?"), bind("quit", "q"),
	}
	pagerLine = []key.Binding{bind("back", "esc"), bind("scroll", "↑↓"), bind("sideways", "←→"), bind("end", "G")}
	logLine   = append([]key.Binding{bind("search", "/")}, pagerLine...)
	askLine   = []key.Binding{bind("yes", "y"), bind("no", "any other key")}
	typeLine  = []key.Binding{bind("done", "enter"), bind("without", "esc")}
)

// newHelp draws keys in colours that hold on dark and on light ground.
func newHelp() help.Model {
	h := help.New()
	h.ShortSeparator = "  "
	h.Styles = help.Styles{
		Ellipsis: faint, ShortKey: bold, ShortDesc: faint, ShortSeparator: faint,
		FullKey: bold, FullDesc: plain, FullSeparator: plain,
	}
	return h
}
