package daemon

import (
	"context"
	"sync"
	"time"

	"tenement"
	"tenement/internal/proxy"
	"tenement/internal/supervisor"
	"tenement/internal/telemetry"
	"tenement/internal/tracing"
)

const (
	// recordPace is how soon the record of a wake is kept.
	recordPace = time.Second

	// bookPace is how soon it is kept what an instance has used: what a daemon that is killed
	// may forget.
	bookPace = time.Minute

	// lookAge is how old it may be what is shown of processes: to look at a thousand of them
	// takes some 20 ms, however many ask.
	lookAge = 5 * time.Second

	// countAge is how old the counts of instances may be: a million take 14 ms.
	countAge = time.Second
)

func (d *daemon) newMetrics() *telemetry.Metrics {
	return telemetry.New(telemetry.Sources{
		Version: d.Version,
		Instances: func() (map[tenement.State]int, error) {
			t := d.tenancy.Load()
			return t.counts.within(countAge, t.countStates)
		},
		Held:      func() int { return d.tenancy.Load().supervisor.Waiting() },
		LogBytes:  func() int64 { return d.tenancy.Load().logs.Taken() },
		SpansLost: func() int64 { return d.tracer.Lost() },
		Ledger: func() *telemetry.Ledger {
			t := d.tenancy.Load()
			t.look(lookAge)
			return t.ledger
		},
	})
}

// newTracer makes the tracer that the configuration asks for; nil: none.
func newTracer(ctx context.Context, o Options) (*tracing.Tracer, error) {
	c := o.Config.Tracing
	if c.Endpoint == "" {
		return nil, nil
	}
	return tracing.New(ctx, tracing.Config{Endpoint: c.Endpoint, Sample: c.Sample, Version: o.Version, Log: o.Log})
}

// served counts a request. On the direct way it must not allocate, but for the access log.
func (d *daemon) served(s proxy.Served) {
	d.metrics.Served(s.ID.Service, s.Status, s.Took, s.BytesIn, s.BytesOut)
	if s.Reached {
		d.tenancy.Load().ledger.Served(s.ID, s.Status, s.Took, s.BytesIn, s.BytesOut)
	}
	if d.access != nil {
		d.access.write(&s)
	}
}

// firstByte completes the record of a wake.
func (d *daemon) firstByte(w *tenement.WakeRecord, took time.Duration) {
	if d.tenancy.Load().wakes.FirstByte(w, took) {
		d.metrics.FirstByte(w.Instance, took)
	}
}

// observer is what the supervisor tells of instances.
func (t *tenancy) observer() supervisor.Observer {
	m := t.daemon.metrics
	return supervisor.Observer{
		Changed: t.history.Changed,
		Started: m.Started,
		Troubled: func(id tenement.InstanceID, what tenement.AlertKind, text string) {
			t.alerts.Tell(what, id, text)
		},
		Woken: func(w *tenement.WakeRecord) {
			m.Woken(w)
			if !t.wakes.Add(w) {
				m.Lost(1)
			}
		},
		Ended: func(id tenement.InstanceID, e supervisor.End) {
			switch e.Why {
			case supervisor.EndCrash:
				m.Crashed(id)
			case supervisor.EndRestart:
			default:
				m.Slept(id, string(e.Why))
			}
			if e.OOM {
				m.OutOfMemory(id)
			}
			t.ledger.Ended(id, e.Since, e.Usage)
		},
	}
}

// stateCounts are the last that were counted.
type stateCounts struct {
	mu     sync.Mutex
	at     time.Time
	counts map[tenement.State]int
}

// within is what count gives, or gave within age. The caller must not change it.
func (c *stateCounts) within(age time.Duration, count func() (map[tenement.State]int, error)) (map[tenement.State]int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts != nil && time.Since(c.at) < age {
		return c.counts, nil
	}
	counts, err := count()
	if err == nil {
		c.counts, c.at = counts, time.Now()
	}
	return counts, err
}

// countStates counts the registered instances in each state. What is just changing may be
// counted where it was.
func (t *tenancy) countStates() (map[tenement.State]int, error) {
	counts, err := t.store.CountResting(t.backend.ctx)
	if err != nil {
		return nil, err
	}
	for _, st := range t.supervisor.Awake() {
		switch st.State {
		case tenement.Asleep, tenement.Suspended, tenement.Failed: // its row says so, too
		default:
			counts[st.State]++
			counts[tenement.Asleep] = max(counts[tenement.Asleep]-1, 0)
		}
	}
	return counts, nil
}

// keepRecords writes down, until ctx ends, what is known of wakes and of what was used.
func (t *tenancy) keepRecords(ctx context.Context) {
	tick := time.NewTicker(recordPace)
	defer tick.Stop()
	booked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		t.keepWakes(ctx, false)
		if time.Since(booked) >= bookPace {
			booked = time.Now()
			t.look(lookAge)
			t.book(ctx)
		}
	}
}

// keepWakes writes down the records of wakes that are complete, or all of them. While the
// disk takes nothing they wait.
func (t *tenancy) keepWakes(ctx context.Context, all bool) {
	if t.store.Refused() != nil && !all {
		return
	}
	list := t.wakes.Take(all)
	if len(list) == 0 {
		return
	}
	if err := t.store.AppendWakes(context.WithoutCancel(ctx), list); err != nil {
		t.daemon.metrics.Lost(len(list))
		t.unkept("records of wakes", err)
	}
}

// look has the ledger see what the processes use, unless it did so within age.
func (t *tenancy) look(age time.Duration) { t.ledger.Look(age, t.supervisor.EachUsage) }

// book writes down what was used.
func (t *tenancy) book(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	err := t.ledger.Book(time.Now(), func(rows []tenement.UsageHour) error { return t.store.AddUsage(ctx, rows) })
	if err != nil {
		t.unkept("what instances have used", err)
	}
}

// unkept reports what could not be written down, unless the disk refuses everything, which
// is reported once.
func (t *tenancy) unkept(what string, err error) {
	if t.store.Refused() == nil {
		t.daemon.Log.Error("could not be kept", "what", what, "error", err)
	}
}

// Metrics implements [api.Backend].
func (b *backend) Metrics(context.Context) ([]byte, error) { return b.daemon.metrics.Text() }

// Wakes implements [api.Backend].
func (b *backend) Wakes(ctx context.Context, q tenement.WakeQuery) ([]tenement.WakeRecord, error) {
	b.keepWakes(ctx, false)
	return b.store.Wakes(ctx, q)
}

// Usage implements [api.Backend].
func (b *backend) Usage(ctx context.Context, q tenement.UsageQuery) ([]tenement.UsageHour, time.Time, error) {
	b.look(lookAge)
	b.book(ctx)
	return b.store.Usage(ctx, q)
}
