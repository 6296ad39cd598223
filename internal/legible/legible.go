// Package legible writes what people read at a terminal: texts that may be a tenant's,
// times and sizes.
package legible

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tenement"
)

// Text is s with everything escaped that could move a terminal's cursor, change its state
// or reorder what stands beside it.
func Text(s string) string { return Escape(s, "") }

// Lines is [Text] for text of ours that may quote a tenant's: it keeps its lines and tabs.
func Lines(s string) string { return Escape(s, "\n\t") }

// Escape is [Text] but for the characters that are allowed.
func Escape(s, allowed string) string {
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

// Ago says how long before now t was; "-" for never.
func Ago(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return Since(t, now) + " ago"
}

// Since is how long before now t was; "-" for never.
func Since(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return Rough(max(0, now.Sub(t)))
}

// Until says how long after now t is; "-" for never.
func Until(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case t.Before(now):
		return "now"
	}
	return "in " + Rough(t.Sub(now).Round(time.Second))
}

// Moment is t itself and, in brackets, how long that is ago; "" for never.
func Moment(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime) + " (" + Ago(t, now) + ")"
}

// Rough is d in the one unit that matters.
func Rough(d time.Duration) string {
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

// Size is n with a unit that people can read.
func Size(n tenement.Bytes) string {
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
