package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"tenement/bench/report"
)

func TestMain(m *testing.M) {
	if err := ownNetwork(); err != nil {
		panic(err)
	}
	m.Run()
}

// TestSmokeRun runs every suite small, with the peers that are here: the report is
// whole, no request fails, and nothing is left behind, which would be an error. What is
// measured is no matter.
func TestSmokeRun(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	results, temporary := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temporary)
	path, err := run(t.Context(), options{quick: true, results: results, root: "..", log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(strings.TrimSuffix(path, ".md") + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var r report.Report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if !r.Quick || len(r.Goals) != 13 || r.Machine["kernel"] == "" || r.Versions["Go"] == "" {
		t.Errorf("the report lacks something: %+v", r)
	}
	for i, s := range r.Suites {
		if s.Name != suites[i].name {
			t.Errorf("suite %d is %s, want %s", i, s.Name, suites[i].name)
		}
		for _, failure := range s.Failures {
			t.Errorf("%s: %s", s.Name, failure)
		}
		for _, skip := range s.Skipped {
			t.Logf("%s: skipped: %s: %s", s.Name, skip.Name, skip.Reason)
		}
		checkTables(t, s)
	}
	if len(r.Suites) != len(suites) {
		t.Errorf("%d suites, want %d", len(r.Suites), len(suites))
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// checkTables wants every contestant to have a figure for what needs no other one.
func checkTables(t *testing.T, s *report.Suite) {
	t.Helper()
	if len(s.Tables) == 0 {
		t.Errorf("%s: nothing was measured", s.Name)
	}
	for _, table := range s.Tables {
		if len(table.Rows) == 0 && !strings.HasPrefix(table.Title, "Phases") {
			t.Errorf("%s: %s: no rows", s.Name, table.Title)
		}
		for _, row := range table.Rows {
			if len(row.Summary) == 0 {
				t.Errorf("%s: %s: %s has no figures", s.Name, table.Title, row.Name)
			}
		}
	}
}

// TestSuitesByName: an unknown one is refused before anything runs.
func TestSuitesByName(t *testing.T) {
	t.Parallel()
	all, err := choose("")
	if err != nil || len(all) != len(suites) {
		t.Errorf("%d suites, %v", len(all), err)
	}
	two, err := choose("herd,proxy")
	if err != nil || len(two) != 2 || two[0].name != "herd" || two[1].name != "proxy" {
		t.Errorf("%+v, %v", two, err)
	}
	if _, err := choose("proxy,lunch"); err == nil || !strings.Contains(err.Error(), `"lunch"`) {
		t.Errorf("lunch: %v", err)
	}
}

// TestDayHasSoManyActive counts, in the calls of a day, the tenants that were asked within
// the last idle time: what the rates are computed for.
func TestDayHasSoManyActive(t *testing.T) {
	t.Parallel()
	const want = 20
	d := newDay(1000, want, 3e9, 200e9)
	calls := d.calls()
	total, moments := 0, 0
	for at := d.idle; at < d.during; at += d.idle {
		active := make(map[int]bool)
		for _, c := range calls {
			if at-d.idle < c.at && c.at <= at {
				active[c.tenant] = true
			}
		}
		total += len(active)
		moments++
	}
	if mean := float64(total) / float64(moments); mean < want-2 || mean > want+2 {
		t.Errorf("%.1f are active, want %d", mean, want)
	}
	if !slices.IsSortedFunc(calls, func(a, b call) int { return int(a.at - b.at) }) {
		t.Error("not in order")
	}
}
