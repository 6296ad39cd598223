package logs

import (
	"fmt"
	"time"
)

// What one stream of an instance may print and have kept. The burst lets a start or
// a stack trace of any program through; the rate is far above what a person reads, and
// two hundred streams at it still leave the disk and the proxy their share.
const (
	burstLines = 20_000
	burstBytes = 8 << 20
	rateLines  = 1_000   // a second
	rateBytes  = 1 << 20 // a second
)

// throttle is a token bucket for lines and one for bytes. Once one of them is empty,
// everything is dropped until both hold what a second brings: what is kept of a flood
// then are runs of whole lines that can be read, and not one line in fifty.
type throttle struct {
	lines, bytes float64 // what may still pass
	at           time.Time

	dropping                   bool
	droppedLines, droppedBytes int64
}

func newThrottle(now time.Time) throttle {
	return throttle{lines: burstLines, bytes: burstBytes, at: now}
}

// refill adds what the time since the last call brings, and reports whether dropping
// is over with it.
func (t *throttle) refill(now time.Time) (over bool) {
	seconds := max(0, now.Sub(t.at).Seconds())
	t.at = now
	t.lines = min(burstLines, t.lines+seconds*rateLines)
	t.bytes = min(burstBytes, t.bytes+seconds*rateBytes)
	if !t.dropping || t.lines < rateLines || t.bytes < rateBytes {
		return false
	}
	t.dropping = false
	return true
}

// admits takes a line of n bytes from the buckets, if they hold as much.
func (t *throttle) admits(n int) bool {
	if t.lines < 1 || t.bytes < float64(n) {
		t.dropping = true
		return false
	}
	t.lines--
	t.bytes -= float64(n)
	return true
}

func (t *throttle) drop(lines, bytes int) {
	t.droppedLines += int64(lines)
	t.droppedBytes += int64(bytes)
}

// began and ended are what the instance's own log says about it.
const began = "tenement: it prints more than 1000 lines or 1 MiB a second: what follows is dropped"

func (t *throttle) ended() string {
	text := fmt.Sprintf("tenement: %d lines (%d bytes) were dropped", t.droppedLines, t.droppedBytes)
	t.droppedLines, t.droppedBytes = 0, 0
	return text
}
