package alert

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"tenement"
)

const (
	// patience is how long an alert is tried again.
	patience = 24 * time.Hour

	// firstDelay comes after the first attempt, and is doubled after each further one up to
	// longestDelay. Each is up to a quarter longer, by chance, so that those who wait for the
	// same receiver do not come at once.
	firstDelay   = 5 * time.Second
	longestDelay = time.Hour

	// breather is what comes after every attempt that has failed: the next one may be of
	// another alert, and the receiver is the same.
	breather = time.Second

	// never is longer than anything waits.
	never = time.Hour
)

// outcome is what became of one attempt.
type outcome struct {
	entry  *entry
	answer Answer
}

// sendNext begins to send what is due first, if it is due. Otherwise it says how long
// nothing will be.
func (o *Outbox) sendNext(ctx context.Context) (underWay <-chan outcome, wait time.Duration) {
	receiver := o.receiver.Load()
	if receiver != o.served { // it may take what the one before did not
		o.served, o.resumeAt = receiver, time.Time{}
		o.hurry()
	}
	var next *entry
	for _, e := range o.pending {
		if next == nil || e.Due.Before(next.Due) {
			next = e
		}
	}
	if receiver == nil || next == nil {
		return nil, never
	}
	if wait = max(time.Until(next.Due), time.Until(o.resumeAt)); wait > 0 {
		return nil, wait
	}
	done := make(chan outcome, 1)
	alert := next.Alert
	go func() { done <- outcome{next, receiver.send(ctx, alert)} }()
	return done, never
}

// hurry has everything be due now.
func (o *Outbox) hurry() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.pending {
		e.Due = time.Now()
	}
}

// settle draws the consequences of an attempt. One that was cut short by the end of ctx
// has none: the next daemon makes it again.
func (o *Outbox) settle(ctx context.Context, done outcome) {
	e, answer := done.entry, done.answer
	switch {
	case answer.Delivered():
		o.Sent(e.Kind)
		o.remove(ctx, e)
	case ctx.Err() != nil, !slices.Contains(o.pending, e): // or it had to make way meanwhile
	case answer.final():
		o.giveUp(ctx, e, answer.Error)
	default:
		wait := max(delay(e.Attempts), answer.RetryAfter)
		o.resumeAt = time.Now().Add(max(breather, answer.RetryAfter))
		o.mu.Lock()
		e.Attempts++
		e.Error = answer.Error
		e.Due = time.Now().Add(wait)
		o.mu.Unlock()
		if e.Attempts == 1 {
			o.Log.Warn("an alert could not be sent; tried again for a day", "kind", e.Kind, "instance", e.Instance, "error", e.Error)
		}
		o.put(ctx, e)
	}
}

// delay is the wait after an attempt, with so many before it.
func delay(before int) time.Duration {
	d := min(firstDelay<<min(before, 20), longestDelay)
	return d + rand.N(d/4) //nolint:gosec // no secret
}

func (o *Outbox) giveUp(ctx context.Context, e *entry, reason string) {
	o.Log.Error("an alert is given up", "kind", e.Kind, "instance", e.Instance, "attempts", e.Attempts+1, "error", reason)
	o.GaveUp(e.Kind)
	o.remove(ctx, e)
}

// expire gives up what was tried for a day.
func (o *Outbox) expire(ctx context.Context) {
	var old []*entry
	for _, e := range o.pending {
		if time.Since(e.At) > patience {
			old = append(old, e)
		}
	}
	for _, e := range old {
		o.giveUp(ctx, e, e.Error)
	}
}

// Test sends an alert that says nothing, once, and gives the receiver's answer. It is
// CodeConflict if there is no receiver.
func (o *Outbox) Test(ctx context.Context) (Answer, error) {
	receiver := o.receiver.Load()
	if receiver == nil {
		return Answer{}, errNoReceiver
	}
	n := news{kind: tenement.AlertTest, at: time.Now(), reason: "somebody has asked for this test"}
	return receiver.send(ctx, tenement.Alert{ID: newID(), Kind: n.kind, At: n.at, Body: o.body(n)}), nil
}
