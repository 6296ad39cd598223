package top

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"tenement"
	"tenement/internal/api"
)

// fakeDaemon answers the questions of the list, and notes what it is asked to do.
type fakeDaemon struct {
	mu        sync.Mutex
	instances []api.Instance // in the order of ids
	done      []string
	sent      int // instances in answers
}

func (d *fakeDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Method != http.MethodGet {
		d.done = append(d.done, r.Method+" "+r.URL.Path)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	q := r.URL.Query()
	limit, _ := strconv.Atoi(q.Get("limit"))
	page, total := api.InstancePage{Instances: []api.Instance{}}, 0
	for _, in := range d.instances {
		rests := in.State == tenement.Asleep || in.State == tenement.Suspended
		if !strings.Contains(in.ID.String(), q.Get("text")) || q.Get("awake") == "true" && rests || q.Get("state") != "" && !rests {
			continue
		}
		total++
		if in.ID.String() > q.Get("after") && len(page.Instances) < limit {
			page.Instances = append(page.Instances, in)
		}
	}
	if q.Get("after") == "" {
		page.Total = &total
	}
	if len(page.Instances) == limit {
		page.Next = page.Instances[limit-1].ID
	}
	d.sent += len(page.Instances)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(page)
}

// has notes instances of the service api.
func (d *fakeDaemon) has(state tenement.State, names ...string) {
	for _, name := range names {
		d.instances = append(d.instances, api.Instance{ID: tenement.InstanceID{Service: "api", Name: name}, State: state})
	}
	slices.SortFunc(d.instances, func(a, b api.Instance) int { return strings.Compare(a.ID.String(), b.ID.String()) })
}

// screen is a model whose commands the test runs.
type screen struct {
	*model
	t *testing.T
}

func newScreen(t *testing.T, d *fakeDaemon) *screen {
	t.Helper()
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	client, err := api.NewClient(api.Target{Server: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	m := newModel(t.Context(), Options{Client: client, Where: "here", Inspect: func(_ context.Context, id tenement.InstanceID) ([][]string, error) {
		return [][]string{{"instance", id.String()}, {"reason", "\x1b[2Jgone"}}, nil
	}})
	s := &screen{m, t}
	s.send(tea.WindowSizeMsg{Width: 80, Height: 24})
	s.run(m.load())
	return s
}

// run does what a command waits for, and what follows from it. Streams are the test's.
func (s *screen) run(cmd tea.Cmd) {
	s.t.Helper()
	if cmd == nil {
		return
	}
	switch msg := cmd().(type) {
	case nil:
	case tea.BatchMsg:
		for _, c := range msg {
			s.run(c)
		}
	default:
		s.send(msg)
	}
}

func (s *screen) send(msg tea.Msg) {
	s.t.Helper()
	_, cmd := s.Update(msg)
	s.run(cmd)
}

// update is send without what follows.
func (s *screen) update(msg tea.Msg) tea.Cmd {
	_, cmd := s.Update(msg)
	return cmd
}

var named = map[string]rune{
	"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "down": tea.KeyDown, "up": tea.KeyUp,
	"end": tea.KeyEnd, "home": tea.KeyHome, "pgup": tea.KeyPgUp, "pgdown": tea.KeyPgDown, "left": tea.KeyLeft, "right": tea.KeyRight,
}

func press(key string) tea.KeyPressMsg {
	if code, ok := named[key]; ok {
		return tea.KeyPressMsg{Code: code}
	}
	return tea.KeyPressMsg{Code: []rune(key)[0], Text: key}
}

func (s *screen) press(keys ...string) {
	s.t.Helper()
	for _, key := range keys {
		s.send(press(key))
	}
}

// text is the screen without its styles.
func (s *screen) text() string { return plainText(s.View().Content) }

var style = regexp.MustCompile(`\x1b\[[0-9;]*m`)

func plainText(text string) string { return style.ReplaceAllString(text, "") }

func (s *screen) wants(texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		if !strings.Contains(s.text(), text) {
			s.t.Errorf("%q is not on the screen:\n%s", text, s.text())
		}
	}
}

func (s *screen) wantsNot(text string) {
	s.t.Helper()
	if strings.Contains(s.text(), text) {
		s.t.Errorf("%q is on the screen:\n%s", text, s.text())
	}
}

func names(n int, prefix string) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%s%05d", prefix, i)
	}
	return list
}

// TestEveryScreenFits: whatever is shown, and however small the screen is, it has so many
// lines and columns, and no control character of a tenant's.
func TestEveryScreenFits(t *testing.T) {
	t.Parallel()
	d := &fakeDaemon{}
	d.has(tenement.Ready, names(30, "awake-with-a-long-name-")...)
	d.has(tenement.Failed, "broken")
	d.instances[30].Reason, d.instances[30].Restarts = "\x1b[2J\x07 says 日本語日本語日本語日本語日本語日本語\u202e", 7
	ways := map[string]func(s *screen){
		"list":    func(*screen) {},
		"broken":  func(s *screen) { s.press("end") },
		"all":     func(s *screen) { s.press("tab", "tab") },
		"trouble": func(s *screen) { s.press("tab") },
		"none":    func(s *screen) { s.press("/", "x", "x", "enter") },
		"typing":  func(s *screen) { s.press("/", "a", "w") },
		"asking":  func(s *screen) { s.press("r") },
		"help":    func(s *screen) { s.press("?") },
		"inspect": func(s *screen) { s.press("enter") },
		"events": func(s *screen) {
			s.press("e")
			s.update(fed[api.Event]{s.events, []api.Event{{Action: "spawn", Target: "api:x", Detail: "\x1b]0;title\x07"}}})
		},
		"log": func(s *screen) {
			s.update(press("l"))
			for range 50 {
				s.update(fed[api.LogLine]{s.pager.log, []api.LogLine{{Text: "日本語\t\x1b[31m\rred\x9b2J" + strings.Repeat("=", 300)}}})
			}
		},
	}
	for name, way := range ways {
		for _, size := range [][2]int{{80, 24}, {200, 60}, {40, 10}, {17, 4}, {5, 2}, {1, 1}} {
			t.Run(fmt.Sprintf("%s %dx%d", name, size[0], size[1]), func(t *testing.T) {
				t.Parallel()
				s := newScreen(t, d)
				way(s)
				s.send(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
				lines := strings.Split(s.View().Content, "\n")
				if len(lines) != size[1] {
					t.Errorf("%d lines, want %d", len(lines), size[1])
				}
				for _, line := range lines {
					if lipgloss.Width(line) > size[0] {
						t.Errorf("%d columns, want at most %d: %q", lipgloss.Width(line), size[0], line)
					}
				}
				if at := strings.IndexFunc(s.text(), func(r rune) bool { return r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e') }); at >= 0 {
					t.Errorf("a control character is on the screen: %q", s.text()[at:])
				}
			})
		}
	}
}

// TestTenThousandInstances: what rests is asked for page by page, as far as it is looked at.
func TestTenThousandInstances(t *testing.T) {
	t.Parallel()
	d := &fakeDaemon{}
	d.has(tenement.Ready, names(1000, "awake")...)
	d.has(tenement.Asleep, names(9000, "tired")...)
	s := newScreen(t, d)
	s.wants("1000 awake", "9000 at rest", "api:awake00000", "1 of 1000")
	if d.sent > 1001 {
		t.Errorf("%d instances were asked for", d.sent)
	}
	d.sent = 0
	s.press("tab", "tab")
	if d.sent > 2*1001 {
		t.Errorf("%d instances were asked for, and none that rests is near", d.sent)
	}
	d.sent = 0
	s.press("end", "end")
	s.wants("api:tired")
	if d.sent > 2*(1001+jumpSize) {
		t.Errorf("%d instances were asked for, to see two pages", d.sent)
	}
	for range 20 {
		s.press("end")
	}
	s.wants("api:tired08999", "10000 of 10000")
	if len(s.list.rows) != 10000 || !s.list.complete {
		t.Errorf("%d rows", len(s.list.rows))
	}
	for i, in := range s.list.rows {
		if i > 0 && in.ID.Compare(s.list.rows[i-1].ID) <= 0 {
			t.Fatalf("%s comes after %s", in.ID, s.list.rows[i-1].ID)
		}
	}

	// Scrolling alone leads to the end as well.
	s = newScreen(t, d)
	s.press("tab", "tab")
	for range 10000 / 19 {
		s.press("pgdown")
	}
	s.press("pgdown")
	s.wants("api:tired08999", "10000 of 10000")

	d.sent = 0
	s.press("/", "d", "0", "7", "7")
	s.wants("api:tired07700", "1 of 100")
	if d.sent > 4*2200 {
		t.Errorf("%d instances were asked for, to search", d.sent)
	}
}

// TestRestingPagesChange: what is asked for again takes the place of its part of the order.
func TestRestingPagesChange(t *testing.T) {
	t.Parallel()
	page := func(next string, names ...string) api.InstancePage {
		d := &fakeDaemon{}
		d.has(tenement.Asleep, names...)
		p := api.InstancePage{Instances: d.instances}
		if next != "" {
			p.Next = tenement.InstanceID{Service: "api", Name: next}
		}
		return p
	}
	after := func(name string) tenement.InstanceID { return tenement.InstanceID{Service: "api", Name: name} }
	for _, test := range []struct {
		name     string
		after    tenement.InstanceID
		page     api.InstancePage
		want     string
		complete bool
	}{
		{"first", tenement.InstanceID{}, page("", "b", "d"), "b d", true},
		{"more there is", tenement.InstanceID{}, page("c", "a", "c"), "a c d f h", true},
		{"some left", tenement.InstanceID{}, page("d", "d"), "d f h", true},
		{"in the middle", after("b"), page("e", "c", "e"), "b c e f h", true},
		{"the end", after("d"), page("", "e"), "b d e", true},
		{"beyond the end", after("h"), page("k", "i", "k"), "b d f h i k", false},
		{"all gone", tenement.InstanceID{}, page(""), "", true},
	} {
		l := listing{view: all, complete: true, resting: page("", "b", "d", "f", "h").Instances}
		l.splice(test.after, test.page)
		l.arrange()
		var got []string
		for _, in := range l.rows {
			got = append(got, in.ID.Name)
		}
		if strings.Join(got, " ") != test.want || l.complete != test.complete {
			t.Errorf("%s: %v, complete %t; want %s, %t", test.name, got, l.complete, test.want, test.complete)
		}
	}
}

// TestWokenMeanwhile: what is in both lists is awake.
func TestWokenMeanwhile(t *testing.T) {
	t.Parallel()
	d := &fakeDaemon{}
	d.has(tenement.Ready, "alice")
	s := newScreen(t, d)
	s.press("tab", "tab")
	asleep := &fakeDaemon{}
	asleep.has(tenement.Asleep, "alice", "bob")
	s.send(answer{question: question{serial: s.asking.serial, rests: true}, awake: d.instances, resting: api.InstancePage{Instances: asleep.instances}})
	s.wants("1 of 2")
	if in := s.list.rows[0]; in.ID.Name != "alice" || in.State != tenement.Ready {
		t.Errorf("%s is %s", in.ID, in.State)
	}
}

// TestSelectionStays with its instance, whatever comes before it.
func TestSelectionStays(t *testing.T) {
	t.Parallel()
	d := &fakeDaemon{}
	d.has(tenement.Ready, "b", "c", "d")
	s := newScreen(t, d)
	s.press("down")
	selected := func() string {
		in, _ := s.list.selected()
		return in.ID.Name
	}
	d.has(tenement.Failed, "a")
	s.run(s.load())
	if selected() != "c" {
		t.Errorf("%s is selected after one came before it", selected())
	}
	s.press("s")
	if first := s.list.rows[0].ID.Name; first != "a" || selected() != "c" {
		t.Errorf("by state %s is first and %s selected", first, selected())
	}
	s.press("S")
	if last := s.list.rows[3].ID.Name; last != "a" || selected() != "c" {
		t.Errorf("the other way round %s is last and %s selected", last, selected())
	}
	d.instances = d.instances[:1]
	s.run(s.load())
	if selected() != "a" {
		t.Errorf("%s is selected, and only a is there", selected())
	}
}

// TestActions are done, the destructive ones after a yes alone.
func TestActions(t *testing.T) {
	t.Parallel()
	const alice = "POST /api/instances/api:alice/"
	for _, test := range []struct {
		keys []string
		want string
	}{
		{[]string{"w"}, alice + "start"},
		{[]string{"u"}, alice + "resume"},
		{[]string{"z"}, ""}, {[]string{"z", "y"}, alice + "stop"},
		{[]string{"r"}, ""}, {[]string{"r", "y"}, alice + "restart"},
		{[]string{"p", "n"}, ""}, {[]string{"p", "y"}, alice + "suspend"},
		{[]string{"D", "enter"}, ""}, {[]string{"D", "y"}, "DELETE /api/instances/api:alice"},
		{[]string{"D", "q", "y"}, ""},
	} {
		d := &fakeDaemon{}
		d.has(tenement.Ready, "alice", "bob")
		s := newScreen(t, d)
		s.press(test.keys...)
		if got := strings.Join(d.done, ", "); got != test.want {
			t.Errorf("%v: %q, want %q", test.keys, got, test.want)
		}
		if test.want == "" && test.keys[len(test.keys)-1] == "y" {
			s.wantsNot("alice?")
		}
	}
}

// TestActionStaysWithItsInstance: the list may change between the key and the yes.
func TestActionStaysWithItsInstance(t *testing.T) {
	t.Parallel()
	d := &fakeDaemon{}
	d.has(tenement.Ready, "bob")
	s := newScreen(t, d)
	s.press("D")
	s.wants("delete api:bob? ")
	d.instances = nil
	d.has(tenement.Ready, "alice")
	s.run(s.load())
	s.press("y")
	if got := strings.Join(d.done, ", "); got != "DELETE /api/instances/api:bob" {
		t.Errorf("done: %q", got)
	}
}

// TestFilter drops the answer to what was typed before.
func TestFilter(t *testing.T) {
	t.Parallel()
	d := &fakeDaemon{}
	d.has(tenement.Ready, "alice", "bob")
	s := newScreen(t, d)
	s.update(press("/"))
	old := s.update(press("b")) // under way
	s.update(press("o"))
	s.run(old)
	s.wants("/bo", "api:bob", "1 of 1")
	s.wantsNot("api:alice")
	s.press("enter", "q")
	if s.input.Focused() {
		t.Error("still typing")
	}
	s.press("esc")
	s.wants("api:alice", " of 2")

	s.press("/", "b", "esc")
	s.wants("api:alice", " of 2")

	d.has(tenement.Asleep, "carol", "dora")
	s.press("tab", "tab")
	s.update(press("/"))
	old = s.update(press("c"))
	s.update(press("x"))
	s.run(old)
	s.wants("nothing has this in its name")
	if d.done != nil {
		t.Errorf("done: %v", d.done)
	}
}

// TestLog stays at the end unless one has scrolled away from it, and is bounded.
func TestLog(t *testing.T) {
	t.Parallel()
	d := &fakeDaemon{}
	d.has(tenement.Ready, "alice")
	s := newScreen(t, d)
	s.update(press("l"))
	line := func(from *feed[api.LogLine], texts ...string) {
		var lines []api.LogLine
		for _, text := range texts {
			lines = append(lines, api.LogLine{Text: text, Level: "stderr"})
		}
		s.update(fed[api.LogLine]{from, lines})
	}
	log := s.pager.log
	line(log, names(100, "line")...)
	s.wants("log of api:alice", "line00099", "! line00098")
	s.press("up", "up")
	line(log, "more")
	s.wantsNot("more")
	s.wants("line00097", "78 to 98 of 101 lines")
	line(log, names(maxLines-50, "many")...)
	s.wants("line00097", "27 to 47 of 5000 lines")
	s.press("G")
	s.wants("many04949")
	line(log, names(maxLines, "again")...)
	if len(s.pager.lines) != maxLines {
		t.Errorf("%d lines are kept", len(s.pager.lines))
	}
	s.press("home", "right")
	s.wantsNot("00:00:00")
	s.wants("again00000")

	s.press("esc", "esc", "esc")
	if s.pager != nil {
		s.press("q")
	}
	s.wants("INSTANCE")
	line(log, "late")
	s.update(ended{log, http.ErrServerClosed})
	s.wantsNot("late")
	s.wantsNot("closed")
}

// TestDaemonAway is said, and what was known stays until there is an answer again.
func TestDaemonAway(t *testing.T) {
	t.Parallel()
	d := &fakeDaemon{}
	d.has(tenement.Ready, "alice")
	s := newScreen(t, d)
	s.send(answer{err: &tenement.Error{Code: tenement.CodeUnreachable, Op: "reach the daemon", Hint: "start it"}})
	s.wants("api:alice", "reach the daemon", "start it")
	s.run(s.load())
	s.wantsNot("reach the daemon")
}

// TestListIsRefreshed when it is old, or something has happened; but one question at a time.
func TestListIsRefreshed(t *testing.T) {
	t.Parallel()
	s := newScreen(t, &fakeDaemon{})
	begun := s.asking.at
	asks := func(after time.Duration) bool {
		s.update(ticked(begun.Add(after)))
		return s.asking.pending
	}
	if asks(tick) {
		t.Error("asked again, and nothing has happened")
	}
	s.update(fed[api.Event]{s.events, []api.Event{{Action: "stop"}}})
	if !asks(2 * tick) {
		t.Error("not asked, and something has happened")
	}
	s.send(answer{})
	if asks(2*tick + refresh - 1) {
		t.Error("asked again too soon")
	}
	if !asks(2*tick + refresh) {
		t.Error("not asked, and the list is old")
	}
	if cmd := s.load(); cmd != nil {
		t.Error("two questions at once")
	}
}

// TestFeed brings what has come at once, the last of it if it is too much.
func TestFeed(t *testing.T) {
	t.Parallel()
	f := newFeed[int]()
	for n := range feedSize + 10 {
		f.put(n)
	}
	got, ok := f.next(t.Context())().(fed[int])
	if !ok || got.from != f || len(got.items) != feedSize || got.items[0] != 10 {
		t.Errorf("%d items from %v", len(got.items), got.items[:1])
	}
}
