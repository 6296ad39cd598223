// Package escape lets a hostile tenant program try what an attacker would, against other
// tenants, the daemon and the machine, at each level of isolation.
package escape

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
)

var update = flag.Bool("update", false, "write what was found into docs/security.md")

// programs is where the daemon's program is built.
var programs string

var hostSecret string

func TestMain(m *testing.M) {
	hostileMain()
	runtimetest.OwnNetwork()
	flag.Parse()
	dir, err := os.MkdirTemp("", "tenement-escape-")
	if err != nil {
		panic(err)
	}
	programs = dir
	status := m.Run()
	_ = os.RemoveAll(dir) // left-overs in the temporary directory are no failure
	os.Exit(status)
}

// levels are the columns of the table.
var levels = []tenement.Isolation{tenement.IsolationProcess, tenement.IsolationNamespace, withoutRoot, tenement.IsolationSandbox}

// withoutRoot is "namespace" under a daemon of an ordinary user.
const withoutRoot tenement.Isolation = "namespace, no root"

// TestEscape makes every attempt at every level and compares what came of it with the
// table that users are shown.
func TestEscape(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "root", "run as root")
	}
	hostSecret = serveHost(t)
	found := map[tenement.Isolation]map[string]verdict{}
	for _, level := range levels {
		found[level] = map[string]verdict{}
	}
	t.Run("levels", func(t *testing.T) {
		for _, level := range levels {
			t.Run(string(level), func(t *testing.T) {
				t.Parallel()
				requireLevel(t, level)
				tryAll(newWorld(t, level), found[level])
			})
		}
	})
	for _, level := range levels[1:] {
		for name, v := range found[level] {
			if v == succeeds {
				t.Errorf("with %s a tenant can %s", level, name)
			}
		}
	}
	compare(t, found)
}

func tryAll(w *world, found map[string]verdict) {
	for _, a := range attempts {
		t := w.t
		t.Run(strings.ReplaceAll(a.name, " ", "_"), func(t *testing.T) {
			w.t = t
			defer func(outer *testing.T) { w.t = outer }(t)
			found[a.name] = a.try(w)
			if w.level == tenement.IsolationProcess && a.needs != 0 && !may(t, a.needs) {
				found[a.name] = untold
			}
			t.Logf("%s: %s", w.level, found[a.name])
		})
		w.t = t
	}
}

// may reports whether the test, and so its daemon, has a capability.
func may(t *testing.T, capability int) bool {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	must(t, unix.Capget(&header, &sets[0]))
	return sets[capability/32].Effective&(1<<(capability%32)) != 0
}

func requireLevel(t *testing.T, level tenement.Isolation) {
	t.Helper()
	if level == withoutRoot {
		runtimetest.RequireUser(t)
	}
	if level != tenement.IsolationSandbox {
		return
	}
	if _, err := runtime.FindRunsc(); err != nil {
		missing(t, "runsc", tenement.HintOf(err))
	}
}

// missing skips the test, or fails it when TENEMENT_REQUIRE, a comma-separated list, names
// what is missing.
func missing(t *testing.T, what, how string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), what) {
		t.Fatalf("%s is missing: %s", what, how)
	}
	t.Skipf("%s is missing: %s", what, how)
}

// document is where the table is kept, between two lines.
const (
	document  = "../../docs/security.md"
	tableFrom = "<!-- attempts: kept by go test ./test/escape -update -->\n"
	tableTo   = "<!-- end of attempts -->\n"
)

// compare holds what was found against the document, but for what this machine could not
// show.
func compare(t *testing.T, found map[tenement.Isolation]map[string]verdict) {
	t.Helper()
	text, err := os.ReadFile(document)
	must(t, err)
	before, rest, ok := strings.Cut(string(text), tableFrom)
	table, after, ok2 := strings.Cut(rest, tableTo)
	if !ok || !ok2 {
		t.Fatalf("%s has no table", document)
	}
	now := render(found, parse(table))
	t.Logf("what a hostile tenant achieves:\n\n%s", now)
	if *update {
		must(t, os.WriteFile(document, []byte(before+tableFrom+now+tableTo+after), 0o644))
		return
	}
	if now != table {
		t.Errorf("%s says something else; if that is meant, run go test ./test/escape -update\n%s", document, table)
	}
}

// untried is what the table says of an attempt that was not made at a level yet.
const untried = "–"

// render is the table of what was found, and where nothing was, of what was known.
func render(found map[tenement.Isolation]map[string]verdict, known map[string]map[tenement.Isolation]verdict) string {
	var b strings.Builder
	b.WriteString("| A hostile tenant tries to |")
	for _, level := range levels {
		fmt.Fprintf(&b, " `%s` |", level)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(levels)) + "\n")
	for _, a := range attempts {
		fmt.Fprintf(&b, "| %s |", a.name)
		for _, level := range levels {
			cell := found[level][a.name]
			if cell == untold {
				cell = known[a.name][level]
			}
			if cell == "" {
				cell = untried
			}
			fmt.Fprintf(&b, " %s |", cell)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// parse reads what render wrote.
func parse(table string) map[string]map[tenement.Isolation]verdict {
	known := map[string]map[tenement.Isolation]verdict{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 1+len(levels) {
			continue
		}
		row := map[tenement.Isolation]verdict{}
		for i, level := range levels {
			row[level] = verdict(strings.TrimSpace(cells[i+1]))
		}
		known[strings.TrimSpace(cells[0])] = row
	}
	return known
}
