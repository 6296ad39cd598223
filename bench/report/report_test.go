package report

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func sample() *Report {
	s := &Suite{Name: "proxy", Title: "Proxy", Method: []string{"as one does"}}
	t := s.Table("throughput", "", "bare", Metric{Name: "rate", Unit: "1/s", Ratio: true}, Metric{Name: "lag", Unit: "ms"})
	for round, rate := range []float64{100, 200, 400} {
		t.Add(round, "bare", Values{"rate": rate})
		t.Add(round, "ours", Values{"rate": rate * float64(round+1), "lag": math.NaN()})
	}
	t.Add(2, "late", Values{"rate": 40})
	s.Skip("nginx", "it is\nnot here")
	s.Fail("one of %d", 2)
	return &Report{Suites: []*Suite{s}, Goals: Outcomes{Throughput: {Observed: "2 ×", Milestone: true}}.Judge()}
}

// TestRatiosAreOfTheSameRound: not of the medians, which would be 6 here.
func TestRatiosAreOfTheSameRound(t *testing.T) {
	t.Parallel()
	table := sample().Suites[0].Tables[0]
	for name, want := range map[string]float64{"bare": 1, "ours": 2, "late": 0.1} {
		if got := table.Ratio(name, "bare", "rate"); math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if got := table.Ratio("nobody", "bare", "rate"); !math.IsNaN(got) {
		t.Errorf("nobody: %v", got)
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	text := sample().Markdown()
	for _, want := range []string{
		"| throughput, 1 KiB keep-alive, c = 32 | ≥ 1.5 × Caddy and ≥ 0.95 × bare ReverseProxy | ≥ nginx | 2 × | **milestone** |",
		"| frozen → first byte p50 | ≤ 2 ms | ≤ 1 ms | – | **not measured** |",
		"| | n | rate ÷ bare | rate 1/s | lag ms |",
		"| ours | 3 | 2.00 | 400 (100–1200) | – |",
		"| late | 1 | 0.10 | 40.0 | – |",
		"- skipped: nginx (it is not here)",
		"- failed: one of 2",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

func TestJSONHasEveryRound(t *testing.T) {
	t.Parallel()
	text, err := sample().JSON()
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	row := r.Suites[0].Tables[0].Row("ours")
	if len(row.Rounds) != 3 || row.Rounds[2]["rate"] != 1200 || row.Summary["rate"].Max != 1200 {
		t.Errorf("%+v", row)
	}
	if late := r.Suites[0].Tables[0].Row("late"); late.Rounds[0] != nil || late.Rounds[2]["rate"] != 40 {
		t.Errorf("%+v", late)
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	bounds := func(a, b float64) Outcome { return AtMost("so much", Bound{a, 3, 1}, Bound{b, 15, 5}) }
	for want, outcome := range map[string]Outcome{
		GoalMet: bounds(1, 5), MilestoneMet: bounds(0.5, 6), Missed: bounds(4, 1), notMeasured: bounds(math.NaN(), 1),
	} {
		if got := (Outcomes{WakeProcess: outcome}).Judge()[2].Verdict; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	values := []float64{5, 1, 4, 2, 3}
	for q, want := range map[float64]float64{0: 1, 0.25: 2, 0.5: 3, 0.99: 5, 1: 5} {
		if got := Quantile(values, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := Median([]float64{4, 1, 2, 3}); got != 2.5 {
		t.Errorf("median %v", got)
	}
	if !math.IsNaN(Median(nil)) || !math.IsNaN(Quantile(nil, 0.5)) {
		t.Error("something of nothing")
	}
}
