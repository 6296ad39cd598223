package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Markdown is the report for people: what it must show, then suite by suite the ratios
// before the figures that they come from.
func (r *Report) Markdown() string {
	r.finish()
	var w strings.Builder
	fmt.Fprintf(&w, "# Benchmarks, %s\n\n", r.Started.UTC().Format("2006-01-02 15:04 MST"))
	if r.Quick {
		w.WriteString("**A smoke run: it shows that everything works. Its figures mean nothing.**\n\n")
	}
	fmt.Fprintf(&w, "How these are measured and how to repeat them: [docs/performance.md](../../docs/performance.md). The run took %s.\n\n",
		r.Took.Round(time.Second))
	w.WriteString("## What it must show\n\n| | milestone | goal | observed | verdict |\n|---|---|---|---|---|\n")
	for _, g := range r.Goals {
		fmt.Fprintf(&w, "| %s | %s | %s | %s | **%s** |\n", g.Name, g.Milestone, g.Goal, g.Observed, g.Verdict)
	}
	pairs(&w, "Machine", r.Machine)
	pairs(&w, "Versions", r.Versions)
	for _, s := range r.Suites {
		s.markdown(&w)
	}
	return w.String()
}

func pairs(w *strings.Builder, title string, all map[string]string) {
	fmt.Fprintf(w, "\n## %s\n\n", title)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(w, "- %s: %s\n", name, all[name])
	}
}

func (s *Suite) markdown(w *strings.Builder) {
	fmt.Fprintf(w, "\n## %s\n\n", s.Title)
	for _, paragraph := range s.Method {
		fmt.Fprintf(w, "%s\n\n", paragraph)
	}
	fmt.Fprintf(w, "It took %s; %d failures.\n", s.Took.Round(time.Second), len(s.Failures))
	for _, failure := range s.Failures {
		fmt.Fprintf(w, "- failed: %s\n", oneLine(failure))
	}
	for _, skip := range s.Skipped {
		fmt.Fprintf(w, "- skipped: %s (%s)\n", skip.Name, oneLine(skip.Reason))
	}
	for _, t := range s.Tables {
		t.markdown(w)
	}
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// markdown writes the ratios first. A figure is the median of the rounds with their
// quartiles.
func (t *Table) markdown(w *strings.Builder) {
	if len(t.Rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n### %s\n\n", t.Title)
	if t.Note != "" {
		fmt.Fprintf(w, "%s\n\n", t.Note)
	}
	var head []string
	for _, m := range t.Metrics {
		if m.Ratio && t.Reference != "" {
			head = append(head, m.Name+" ÷ "+t.Reference)
		}
	}
	for _, m := range t.Metrics {
		head = append(head, strings.TrimSpace(m.Name+" "+m.Unit))
	}
	fmt.Fprintf(w, "| | n | %s |\n|---%s|\n", strings.Join(head, " | "), strings.Repeat("|---:", len(head)+1))
	for _, row := range t.Rows {
		fmt.Fprintf(w, "| %s | %d | %s |\n", row.Name, row.n(), strings.Join(t.cells(row), " | "))
	}
}

// n is how many rounds there are of what there is most of.
func (r *Row) n() int {
	n := 0
	for _, s := range r.Summary {
		n = max(n, s.N)
	}
	return n
}

func (t *Table) cells(row *Row) []string {
	var cells []string
	for _, m := range t.Metrics {
		if !m.Ratio || t.Reference == "" {
			continue
		}
		cell := "–"
		if ratio := row.Summary[m.Name].Ratio; ratio != nil {
			cell = fmt.Sprintf("%.2f", *ratio)
		}
		cells = append(cells, cell)
	}
	for _, m := range t.Metrics {
		s, ok := row.Summary[m.Name]
		switch {
		case !ok:
			cells = append(cells, "–")
		case s.N == 1:
			cells = append(cells, Number(s.Median))
		default:
			cells = append(cells, fmt.Sprintf("%s (%s–%s)", Number(s.Median), Number(s.Q1), Number(s.Q3)))
		}
	}
	return cells
}
