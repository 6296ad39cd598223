package config

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
