package config

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/pelletier/go-toml/v2/unstable"

	"tenement"
)

// TestWakeIgnore: a list takes the place of its default, the others stay; false empties all.
func TestWakeIgnore(t *testing.T) {
	t.Parallel()
	standard := defaultWake()
	none := tenement.WakeRules{Paths: []string{}, UserAgents: []string{}, Monitors: []string{}, Methods: []string{}, Self: true}
	with := func(rules tenement.WakeRules, change func(*tenement.WakeRules)) tenement.WakeRules {
		change(&rules)
		return rules
	}
	for text, want := range map[string]tenement.WakeRules{
		"":                            standard,
		"wake = {}":                   standard,
		"wake.ignore = {}":            standard,
		"wake.ignore = false":         none,
		"wake.ignore.paths = []":      with(standard, func(w *tenement.WakeRules) { w.Paths = []string{} }),
		"wake.health = true":          with(standard, func(w *tenement.WakeRules) { w.Health = true }),
		"wake.ignore.monitors=[]":     with(standard, func(w *tenement.WakeRules) { w.Monitors = []string{} }),
		"wake.ignore.methods=['X-Y']": with(standard, func(w *tenement.WakeRules) { w.Methods = []string{"X-Y"} }),
		"wake.ignore.paths = ['/ping', 'defaults']": with(standard, func(w *tenement.WakeRules) { w.Paths = append([]string{"/ping"}, ignoredPaths...) }),
		"wake = { health = true, ignore = false }":  with(none, func(w *tenement.WakeRules) { w.Health = true }),
		"wake = { ignore = false, health = true }":  with(none, func(w *tenement.WakeRules) { w.Health = true }),
	} {
		got := mustParse(t, "tenement.toml", "[service.api]\ncommand = 'a'\n"+text, Overrides{})
		if diff := cmp.Diff(want, got.Services["api"].Wake); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

// TestDefaultWakeIsValid: what `ten config` prints of it can be read again.
func TestDefaultWakeIsValid(t *testing.T) {
	t.Parallel()
	valid := func(k kind, list []string) {
		for _, text := range list {
			if !k.read(&node{kind: unstable.String, text: text}, &value{}) {
				t.Errorf("%q is not %s", text, k.what)
			}
		}
	}
	valid(ignoredPath, ignoredPaths)
	valid(agentPart, ignoredAgents)
	valid(agentPart, monitors)
}

// TestDefaultWakeIsDocumented: people must be able to know who is refused in their name.
func TestDefaultWakeIsDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/waking.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range slices.Concat(ignoredPaths, ignoredAgents, monitors) {
		if !strings.Contains(string(page), "`"+text+"`") {
			t.Errorf("docs/waking.md does not name %q", text)
		}
	}
}

func TestCronLines(t *testing.T) {
	t.Parallel()
	service := mustParse(t, "tenement.toml", `
[service.api]
command = 'a'
[service.api.cron]
nightly = { schedule = "0 3 * * *", path = "/jobs/nightly?all=1" }
report = { schedule = "30 8-18/2 * * 1-5", path = "/report", method = "PUT", timezone = "Europe/Berlin", spread = 0, timeout = "5m" }
either = { schedule = "0 0 10 * 5", path = "/" }
weekly = { schedule = "@weekly", path = "/" }
`, Overrides{}).Services["api"]
	nightly := tenement.CronLine{
		Name: "nightly", Schedule: "0 3 * * *", Zone: "UTC", Method: "POST", Path: "/jobs/nightly?all=1", Spread: 5 * time.Minute, Timeout: time.Hour,
	}
	report := tenement.CronLine{
		Name: "report", Schedule: "30 8-18/2 * * 1-5", Zone: "Europe/Berlin", Method: "PUT", Path: "/report", Timeout: 5 * time.Minute,
	}
	withoutTimes := cmpopts.IgnoreFields(tenement.CronLine{}, "Times")
	if diff := cmp.Diff([]tenement.CronLine{nightly, report}, service.Cron[:2], withoutTimes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	from := time.Date(2026, 3, 6, 12, 0, 0, 0, time.UTC) // a Friday
	for n, want := range []string{"2026-03-07T03:00:00Z", "2026-03-06T13:30:00Z", "2026-03-10T00:00:00Z", "2026-03-08T00:00:00Z"} {
		if got := service.Cron[n].Times.Next(from).UTC().Format(time.RFC3339); got != want {
			t.Errorf("%s is run next at %s, want %s", service.Cron[n].Schedule, got, want)
		}
	}
}
