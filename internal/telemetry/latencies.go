package telemetry

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// latencySteps are the steps of [latencies]: four in each octave of microseconds, up to
// more than two minutes.
const latencySteps = 4 * 27

// latencies counts requests by how long they took, as exactly as a quarter of an octave.
// Its methods may be called concurrently.
type latencies [latencySteps]atomic.Uint32

func (l *latencies) add(took time.Duration) {
	us := uint64(max(took.Microseconds(), 1))
	octave := bits.Len64(us) - 1
	quarter := us << 2 >> octave & 3
	l[min(4*octave+int(quarter), latencySteps-1)].Add(1)
}

// stepEnd is what all requests of a step took less than.
func stepEnd(step int) time.Duration {
	return time.Duration(4+step%4+1) * time.Microsecond << (step / 4) / 4
}

// take empties l and gives what half of the requests took at most, and 95 of 100; both
// are 0 without any.
func (l *latencies) take() (median, p95 time.Duration) {
	var counts [latencySteps]uint32
	total := uint32(0)
	for step := range l {
		counts[step] = l[step].Swap(0)
		total += counts[step]
	}
	seen := uint32(0)
	for step, n := range counts {
		if n == 0 {
			continue
		}
		seen += n
		if median == 0 && 2*seen >= total {
			median = stepEnd(step)
		}
		if uint64(seen)*100 >= uint64(total)*95 {
			return median, stepEnd(step)
		}
	}
	return 0, 0
}
