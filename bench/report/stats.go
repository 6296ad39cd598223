package report

import (
	"math"
	"slices"
)

// Quantile is the value below which the share q (0 to 1) of values lies, by nearest
// rank; NaN of nothing. values need not be sorted and are left as they are.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}

// Median is the middle of values, or between the two in the middle; NaN of nothing.
func Median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Summary is what a row's rounds were, in one metric.
type Summary struct {
	N      int      `json:"n"`
	Median float64  `json:"median"`
	Q1     float64  `json:"q1"`
	Q3     float64  `json:"q3"`
	Min    float64  `json:"min"`
	Max    float64  `json:"max"`
	Ratio  *float64 `json:"ratio,omitempty"` // median of the rounds' own to the reference
}

func summarize(values []float64) Summary {
	return Summary{
		N: len(values), Median: Median(values),
		Q1: Quantile(values, 0.25), Q3: Quantile(values, 0.75),
		Min: slices.Min(values), Max: slices.Max(values),
	}
}
