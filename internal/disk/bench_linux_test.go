package disk

import (
	"fmt"
	"os"
	"testing"
)

// BenchmarkStart is what a start pays for a directory that is as it should be.
func BenchmarkStart(b *testing.B) {
	r, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for _, uid := range []int{0, aliceUID} {
		if uid != 0 && os.Geteuid() != 0 {
			continue
		}
		b.Run(fmt.Sprintf("uid=%d", uid), func(b *testing.B) {
			for b.Loop() {
				if _, err := r.Make(b.Context(), alice, uid); err != nil {
					b.Fatal(err)
				}
				if _, err := r.Limit(b.Context(), alice, uid, 1<<20); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMeasure is what a look at a directory costs for each file.
func BenchmarkMeasure(b *testing.B) {
	r, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	dir, err := r.Make(b.Context(), alice, 0)
	if err != nil {
		b.Fatal(err)
	}
	const files = 10_000
	for n := range files {
		sub := fmt.Sprintf("%s/%d", dir, n/100)
		if err := os.MkdirAll(sub, 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(fmt.Sprintf("%s/%d", sub, n), nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := r.Measure(b.Context(), alice, Limit{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/files, "ns/file")
}
