package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"tenement"
)

// printTable prints rows in columns as wide as they need to be. What tenants may
// have made is in it, so every cell is made visible.
func (a *app) printTable(rows [][]string) {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = visible(cell)
		}
		// An empty last column would leave blanks at the end of the line.
		fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	_ = w.Flush() // nobody is left to tell that standard output is gone
}

// printJSON prints v indented.
func (a *app) printJSON(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeJSON(a.stdout, text)
}

// printJSONLine prints v on one line.
func (a *app) printJSONLine(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeJSON(a.stdout, text)
}

// writeJSON escapes what encoding/json leaves in strings though terminals obey it:
// the control characters from U+007F to U+009F.
func writeJSON(w io.Writer, text []byte) error {
	var b bytes.Buffer
	for _, r := range string(text) {
		if r >= 0x7f && r <= 0x9f {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

// visible is s with everything escaped that could move a terminal's cursor, change
// its state or reorder what stands beside it.
func visible(s string) string { return escape(s, "") }

// visibleLines is [visible] for text of ours that may quote a tenant's: it keeps its
// lines and tabs.
func visibleLines(s string) string { return escape(s, "\n\t") }

func escape(s, allowed string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case strings.ContainsRune(allowed, r):
			b.WriteRune(r)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < utf8.RuneSelf && unicode.IsControl(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		i += size
	}
	return b.String()
}

// ago says how long before now t was, in the one unit that matters; "-" for never.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return rough(max(0, now.Sub(t))) + " ago"
}

// until says how long after now t is.
func until(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case t.Before(now):
		return "now"
	}
	return "in " + rough(t.Sub(now).Round(time.Second))
}

// size is n with a unit that people can read.
func size(n tenement.Bytes) string {
	value, unit := float64(n), 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

func rough(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/day)
}
