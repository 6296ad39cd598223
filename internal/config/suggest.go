package config

import (
	"strconv"
	"strings"
)

// didYouMean is a hint at the name that was probably meant, or "".
func didYouMean(name string, names []string) string {
	const most = 2     // slips of one or two keys; more is another word
	const longest = 63 // no key and no name is longer
	if len(name) > longest {
		return ""
	}
	best, nearest := "", most+1
	for _, candidate := range names {
		if d := distance(name, candidate, most); d < nearest && d < len(candidate) {
			best, nearest = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + quote(best) + "?"
}

// belongsIn is a hint at the section that has a key of this name, or "".
func belongsIn(name string) string {
	for _, row := range schema {
		if row.name == name {
			return "it belongs in [" + row.section + "]"
		}
	}
	return ""
}

// distance counts the letters inserted, deleted, changed or swapped with their
// neighbour that make a into b (optimal string alignment); above most, any
// number above most.
func distance(a, b string, most int) int {
	if max(len(a)-len(b), len(b)-len(a)) > most {
		return most + 1
	}
	var previous []int
	current := make([]int, len(b)+1)
	for j := range current {
		current[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			change := current[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			next[j] = min(change, current[j]+1, next[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], previous[j-2]+1)
			}
		}
		previous, current = current, next
	}
	return current[len(b)]
}

// quote is a name of the file in a message, short and on one line.
func quote(s string) string { return strconv.Quote(shorten(s)) }

// shorten keeps a message readable whatever the file holds.
func shorten(s string) string {
	const most = 60 // characters
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most]) + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
