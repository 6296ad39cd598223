package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// span is a length of time on the command line: a number of seconds, or what
// time.ParseDuration reads, or days such as 90d.
type span time.Duration

// String makes a span a pflag.Value; it is the default that help shows.
func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	return time.Duration(*s).String()
}

// Type makes a span a pflag.Value.
func (s *span) Type() string { return "duration" }

// Set makes a span a pflag.Value. It must be more than nothing and fit a
// time.Duration.
func (s *span) Set(text string) error {
	d, err := parseSpan(text)
	if err != nil || d <= 0 {
		return errors.New("write a number of seconds, or a time like 90s, 10m, 1h or 30d")
	}
	*s = span(d)
	return nil
}

func parseSpan(text string) (time.Duration, error) {
	unit := time.Second
	number, days := strings.CutSuffix(text, "d")
	if days {
		unit = 24 * time.Hour
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return time.ParseDuration(text)
	}
	if length := n * float64(unit); length < math.MaxInt64 { // false for NaN
		return time.Duration(length), nil
	}
	return 0, strconv.ErrRange
}
