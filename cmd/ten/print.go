package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"tenement/internal/legible"
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

// What package legible writes is used all over this one, under these names.
var (
	visible      = legible.Text
	visibleLines = legible.Lines
	escape       = legible.Escape
	ago          = legible.Ago
	until        = legible.Until
	moment       = legible.Moment
	size         = legible.Size
)
