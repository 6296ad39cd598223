package daemon

import (
	"context"
	"slices"
	"sync"
	"time"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/telemetry"
)

// sampleAge is how old it may be what a sample says of processes.
const sampleAge = time.Second

// boxSamples is an hour of them.
const boxSamples = int(time.Hour / telemetry.SampleStep)

// boxHistory keeps how the machine did in the last hour. Its methods may be called
// concurrently.
type boxHistory struct {
	mu      sync.Mutex
	samples []api.BoxSample
}

func (h *boxHistory) add(s api.BoxSample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.samples) == boxSamples {
		h.samples = slices.Delete(h.samples, 0, 1)
	}
	h.samples = append(h.samples, s)
}

func (h *boxHistory) all() []api.BoxSample {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]api.BoxSample{}, h.samples...) // none are none, and not null
}

// keepHistory takes a sample of what is awake, and of the machine, at every step until ctx
// ends.
func (t *tenancy) keepHistory(ctx context.Context) {
	tick := time.NewTicker(telemetry.SampleStep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			t.sample()
		}
	}
}

func (t *tenancy) sample() {
	t.look(sampleAge)
	all := t.history.Step(t.ledger)
	s := api.BoxSample{
		At: time.Now(), Requests: all.Requests, Errors: all.Errors, CPUSeconds: all.CPU.Seconds(),
		Load: load(), Pressure: pressure(),
	}
	if available, err := t.isolation.availableMemory(); err == nil { // else the system does not say
		s.Available = available
	}
	for _, st := range t.supervisor.Awake() {
		s.Leases += st.Leases
		s.Waiting += st.Waiting
		if !st.State.Rests() {
			s.Awake++
		}
	}
	t.boxHistory.add(s)
}

// Timeline implements [api.Backend].
func (b *backend) Timeline(ctx context.Context, id tenement.InstanceID) (tenement.Timeline, error) {
	if _, err := b.store.Instance(ctx, id); err != nil {
		return tenement.Timeline{}, err
	}
	return b.history.Timeline(id), nil
}

// BoxTimeline implements [api.Backend].
func (b *backend) BoxTimeline(context.Context) (api.BoxTimeline, error) {
	return api.BoxTimeline{StepSeconds: telemetry.SampleStep.Seconds(), Samples: b.boxHistory.all()}, nil
}

// UsageTotals implements [api.Backend].
func (b *backend) UsageTotals(ctx context.Context, q tenement.UsageQuery, by tenement.UsageBy, limit int) ([]tenement.UsageHour, error) {
	b.look(lookAge)
	b.book(ctx)
	return b.store.UsageTotals(ctx, q, by, limit)
}
