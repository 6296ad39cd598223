// Package load asks servers as fast as they answer, or at a constant rate. Its client
// shares the machine's cores with what it measures, so it does as little as it can.
package load

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Target is a server and what to ask it for.
type Target struct {
	Address string   // host:port
	Hosts   []string // the names to ask for, in turn
	Path    string
	Meter   func() time.Duration // what the server has used of processors until now
}

// Result is what came of asking for a while.
type Result struct {
	Answers int
	Failed  int
	First   error         // of the failures; nil without one
	Took    time.Duration // in which the answers came
	CPU     time.Duration // that the server used for them

	latencies []time.Duration // sorted
}

// Rate is answers a second.
func (r *Result) Rate() float64 { return float64(r.Answers) / r.Took.Seconds() }

// CPUPerAnswer is in microseconds.
func (r *Result) CPUPerAnswer() float64 {
	return float64(r.CPU) / float64(r.Answers) / float64(time.Microsecond)
}

// Quantile is the latency, in milliseconds, that the share q (0 to 1) of answers did not
// exceed; 0 without answers.
func (r *Result) Quantile(q float64) float64 {
	if len(r.latencies) == 0 {
		return 0
	}
	n := min(int(q*float64(len(r.latencies))), len(r.latencies)-1)
	return float64(r.latencies[n]) / float64(time.Millisecond)
}

// maxFailures ends a client that has nobody to talk to.
const maxFailures = 100

// warmUp is the share of a run in which connections are made and pools fill up; what is
// answered then is not counted, but what fails is.
const warmUp = 10 // one in

// client asks once; it dials when it has to.
type client interface {
	ask(ctx context.Context) error
	close()
}

// closedLoop has n clients ask for d, each again as soon as it is answered.
func closedLoop(ctx context.Context, t Target, n int, d time.Duration, newClient func(i int) client) *Result {
	counting := time.Now().Add(d / warmUp)
	end := counting.Add(d)
	asking := make([]asker, n)
	var running sync.WaitGroup
	for i := range asking {
		running.Go(func() { asking[i].run(ctx, newClient(i), counting, end) })
	}
	gone := make(chan struct{})
	go func() { running.Wait(); close(gone) }()
	select {
	case <-time.After(time.Until(counting)):
	case <-gone:
	}
	r := &Result{CPU: -t.Meter()}
	<-gone
	r.CPU += t.Meter()
	r.Took = time.Since(counting)
	for _, a := range asking {
		r.latencies = append(r.latencies, a.latencies...)
		r.Failed += a.failed
		if r.First == nil {
			r.First = a.first
		}
	}
	return r.sorted()
}

func (r *Result) sorted() *Result {
	r.Answers = len(r.latencies)
	slices.Sort(r.latencies)
	return r
}

// asker is one of several clients, and what it has counted.
type asker struct {
	latencies []time.Duration
	failed    int
	first     error
}

func (a *asker) run(ctx context.Context, c client, counting, end time.Time) {
	defer c.close()
	for now := time.Now(); now.Before(end) && ctx.Err() == nil && a.failed < maxFailures; {
		err := c.ask(ctx)
		answered := time.Now()
		if err != nil {
			a.fail(err)
		} else if now.After(counting) {
			a.latencies = append(a.latencies, answered.Sub(now))
		}
		now = answered
	}
}

func (a *asker) fail(err error) {
	a.failed++
	if a.first == nil {
		a.first = err
	}
}

// Err says what failed; nil if nothing did.
func (r *Result) Err() error {
	if r.Failed == 0 {
		return nil
	}
	return fmt.Errorf("%d requests failed, the first: %w", r.Failed, r.First)
}
