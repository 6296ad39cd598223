// Package report holds what a run of the benchmarks has measured, and writes it as JSON
// and as Markdown.
package report

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Report is one run.
type Report struct {
	Started  time.Time         `json:"started"`
	Took     time.Duration     `json:"took_ns"`
	Quick    bool              `json:"quick"` // a smoke run, whose figures mean nothing
	Machine  map[string]string `json:"machine"`
	Versions map[string]string `json:"versions"`
	Goals    []Goal            `json:"goals"`
	Suites   []*Suite          `json:"suites"`
}

// Suite is what belongs together, with how it was measured.
type Suite struct {
	Name     string        `json:"name"`
	Title    string        `json:"title"`
	Method   []string      `json:"method"` // paragraphs
	Took     time.Duration `json:"took_ns"`
	Tables   []*Table      `json:"tables"`
	Skipped  []Skip        `json:"skipped,omitempty"`
	Failures []string      `json:"failures,omitempty"`
}

// Skip is a contestant or a measurement that is not in the report, and why.
type Skip struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Skip notes what could not be measured.
func (s *Suite) Skip(name, reason string) { s.Skipped = append(s.Skipped, Skip{name, reason}) }

// Fail notes what should not have happened: a request without its answer.
func (s *Suite) Fail(format string, args ...any) {
	s.Failures = append(s.Failures, fmt.Sprintf(format, args...))
}

// Table begins a table of the suite. reference is the row that the others are compared
// with, round by round; "" for no ratios.
func (s *Suite) Table(title, note, reference string, metrics ...Metric) *Table {
	t := &Table{Title: title, Note: note, Reference: reference, Metrics: metrics}
	s.Tables = append(s.Tables, t)
	return t
}

// Metric is a column.
type Metric struct {
	Name  string `json:"name"`
	Unit  string `json:"unit"`
	Ratio bool   `json:"ratio,omitempty"` // whether a ratio to the reference says something
}

// Values are one round's, by the metric's name.
type Values map[string]float64

// Table is a comparison of contestants that were measured in turns.
type Table struct {
	Title     string   `json:"title"`
	Note      string   `json:"note,omitempty"`
	Reference string   `json:"reference,omitempty"`
	Metrics   []Metric `json:"metrics"`
	Rows      []*Row   `json:"rows"`
}

// Row is one contestant.
type Row struct {
	Name    string             `json:"name"`
	Summary map[string]Summary `json:"summary"`
	Rounds  []Values           `json:"rounds"` // by their number; null where it has none
}

// Add notes what name did in a round, which are numbered from 0. Adding to the same
// round again adds metrics.
func (t *Table) Add(round int, name string, values Values) {
	row := t.Row(name)
	if row == nil {
		row = &Row{Name: name}
		t.Rows = append(t.Rows, row)
	}
	for len(row.Rounds) <= round {
		row.Rounds = append(row.Rounds, nil)
	}
	if row.Rounds[round] == nil {
		row.Rounds[round] = Values{}
	}
	for metric, value := range values {
		if !math.IsNaN(value) && !math.IsInf(value, 0) {
			row.Rounds[round][metric] = value
		}
	}
}

// Row is the contestant of that name; nil if nothing was measured of it.
func (t *Table) Row(name string) *Row {
	for _, row := range t.Rows {
		if row.Name == name {
			return row
		}
	}
	return nil
}

// All is every value of a metric, by round; nothing of a nil row.
func (r *Row) All(metric string) []float64 {
	if r == nil {
		return nil
	}
	var list []float64
	for _, round := range r.Rounds {
		if value, ok := round[metric]; ok {
			list = append(list, value)
		}
	}
	return list
}

// Median is the metric's median for name; NaN if nothing was measured of it.
func (t *Table) Median(name, metric string) float64 { return Median(t.Row(name).All(metric)) }

// Ratio is the median of name's value divided by other's in the same round; NaN if they
// have no round in common.
func (t *Table) Ratio(name, other, metric string) float64 {
	a, b := t.Row(name), t.Row(other)
	if a == nil || b == nil {
		return math.NaN()
	}
	var ratios []float64
	for n := range min(len(a.Rounds), len(b.Rounds)) {
		x, hasX := a.Rounds[n][metric]
		y, hasY := b.Rounds[n][metric]
		if hasX && hasY && y != 0 {
			ratios = append(ratios, x/y)
		}
	}
	return Median(ratios)
}

// finish computes every row's summary.
func (t *Table) finish() {
	for _, row := range t.Rows {
		row.Summary = make(map[string]Summary)
		for _, m := range t.Metrics {
			all := row.All(m.Name)
			if len(all) == 0 {
				continue
			}
			s := summarize(all)
			if ratio := t.Ratio(row.Name, t.Reference, m.Name); m.Ratio && !math.IsNaN(ratio) {
				s.Ratio = &ratio
			}
			row.Summary[m.Name] = s
		}
	}
}

// JSON is the whole report, every round included.
func (r *Report) JSON() ([]byte, error) {
	r.finish()
	return json.MarshalIndent(r, "", " ")
}

func (r *Report) finish() {
	for _, s := range r.Suites {
		for _, t := range s.Tables {
			t.finish()
		}
	}
}
