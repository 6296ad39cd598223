package report

import (
	"fmt"
	"math"
)

// Goal is a line of the table of what the project is to show.
type Goal struct {
	Name      string `json:"name"`
	Milestone string `json:"milestone"`
	Goal      string `json:"goal"`
	Observed  string `json:"observed"`
	Verdict   string `json:"verdict"`
}

// The verdicts, besides "not measured: " and why.
const (
	GoalMet      = "goal"
	MilestoneMet = "milestone"
	Missed       = "missed"
	notMeasured  = "not measured"
)

// The keys of the lines.
const (
	Throughput    = "throughput"
	AddedLatency  = "added latency"
	WakeProcess   = "wake process"
	WakeNamespace = "wake namespace"
	Herd          = "herd"
	DaemonMemory  = "daemon memory"
	DaemonIdle    = "daemon idle"
	Density       = "density"
	Thaw          = "thaw"
	Scrape        = "scrape"
	Dashboard     = "dashboard"
	PS            = "ps"
	OperatorIdle  = "idle with a thousand awake"
)

// goals are the lines, in order.
var goals = []struct {
	key string
	Goal
}{
	{Throughput, Goal{Name: "throughput, 1 KiB keep-alive, c = 32", Milestone: "≥ 1.5 × Caddy and ≥ 0.95 × bare ReverseProxy", Goal: "≥ nginx"}},
	{AddedLatency, Goal{Name: "added p50 at 1,000 req/s", Milestone: "≤ 2 × nginx's", Goal: "≤ nginx's"}},
	{WakeProcess, Goal{Name: "wake beyond bare start, p50 / p99, process", Milestone: "≤ 3 ms / 15 ms", Goal: "≤ 1 ms / 5 ms"}},
	{WakeNamespace, Goal{Name: "the same, namespace", Milestone: "≤ 5 ms / 20 ms", Goal: "≤ 2 ms / 8 ms"}},
	{Herd, Goal{Name: "herd of 100 Python tenants: first answer; last answer", Milestone: "≤ 2 single starts; ≤ 1.15 × unthrottled", Goal: "1.2 single starts; ≤ 1.0 ×"}},
	{DaemonMemory, Goal{Name: "daemon memory, 1,000,000 registered, 20 awake", Milestone: "≤ 100 MB", Goal: "≤ 64 MB"}},
	{DaemonIdle, Goal{Name: "daemon idle CPU with them", Milestone: "≤ 0.5 % of a core", Goal: "≤ 0.1 %"}},
	{Density, Goal{Name: "1,000 tenants, 20 active, against always on", Milestone: "≤ 1/20 of the memory", Goal: "≤ 1/40"}},
	{Thaw, Goal{Name: "frozen → first byte p50", Milestone: "≤ 2 ms", Goal: "≤ 1 ms"}},
	{Scrape, Goal{Name: "`/metrics` p50, 10,000 registered, 1,000 awake", Milestone: "≤ 100 ms", Goal: "–"}},
	{Dashboard, Goal{Name: "dashboard with them: a list that can be searched, p50", Milestone: "≤ 1 s", Goal: "–"}},
	{PS, Goal{Name: "`ten ps` with them, p50", Milestone: "≤ 100 ms", Goal: "–"}},
	{OperatorIdle, Goal{Name: "daemon idle CPU with them", Milestone: "≤ 1 % of a core", Goal: "–"}},
}

// Outcome is what was observed of a line.
type Outcome struct {
	Observed        string
	Milestone, Goal bool
}

// Outcomes are by the keys above.
type Outcomes map[string]Outcome

// Judge gives every line its verdict.
func (o Outcomes) Judge() []Goal {
	var lines []Goal
	for _, g := range goals {
		line, outcome := g.Goal, o[g.key]
		line.Observed = outcome.Observed
		switch {
		case outcome.Observed == "":
			line.Observed, line.Verdict = "–", notMeasured
		case outcome.Goal:
			line.Verdict = GoalMet
		case outcome.Milestone:
			line.Verdict = MilestoneMet
		default:
			line.Verdict = Missed
		}
		lines = append(lines, line)
	}
	return lines
}

// AtMost is the outcome of values that are to be small, each with a bound for the
// milestone and one for the goal. It is nothing if one of them was not measured.
func AtMost(observed string, bounds ...Bound) Outcome {
	o := Outcome{Observed: observed, Milestone: true, Goal: true}
	for _, b := range bounds {
		if math.IsNaN(b.Value) {
			return Outcome{}
		}
		o.Milestone = o.Milestone && b.Value <= b.Milestone
		o.Goal = o.Goal && b.Value <= b.Goal
	}
	return o
}

// Bound is a value and what it may be at most.
type Bound struct{ Value, Milestone, Goal float64 }

// Number writes a value with about three digits that matter; "–" for NaN.
func Number(v float64) string {
	switch magnitude := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case magnitude >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case magnitude >= 10:
		return fmt.Sprintf("%.1f", v)
	case magnitude >= 1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}
