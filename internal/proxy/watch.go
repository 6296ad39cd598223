package proxy

import (
	"sync"
	"time"
)

// watch calls expired when somebody takes longer than limit over one step. It
// costs nothing between steps, and so needs no deadline on a connection that
// could outlive the step it was meant for. Its methods may be called concurrently.
type watch struct {
	limit   time.Duration // 0: any time is fine
	expired func()        // called at most once, and never after end

	mu       sync.Mutex
	timer    *time.Timer
	deadline time.Time // of the step under way; zero between steps
	over     bool      // ended or expired
	late     bool      // expired
}

// start begins a step.
func (w *watch) start() {
	if w.limit <= 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	w.deadline = time.Now().Add(w.limit)
	if w.timer == nil {
		w.timer = time.AfterFunc(w.limit, w.fire)
	} else {
		w.timer.Reset(w.limit)
	}
}

// stop ends a step.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = time.Time{}
	if w.timer != nil {
		w.timer.Stop()
	}
}

// end stops watching for good and reports whether the limit was exceeded before.
func (w *watch) end() bool {
	w.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	return w.late
}

// isLate reports whether the limit was exceeded.
func (w *watch) isLate() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.late
}

func (w *watch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	// A timer that had fired when it was stopped finds no step, or the next one.
	if w.over || w.deadline.IsZero() || time.Now().Before(w.deadline) {
		return
	}
	w.over, w.late = true, true
	w.expired()
}
