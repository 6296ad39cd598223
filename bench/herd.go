package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"tenement/bench/load"
	"tenement/bench/measure"
	"tenement/bench/peers"
	"tenement/bench/report"
	"tenement/bench/tenant"
)

var herdMethod = []string{
	"Sleeping tenants, each the standard library's `http.server` in Python, are all asked at the same instant, each over a connection of its own. " +
		"*Bare starts* are as many of the same program, all started at once without us, and each asked until it answers; so that the asking itself costs little, " +
		"each is asked every half millisecond times their number. *Single* is the median bare start of one. Turns rotate as elsewhere; then all are put to sleep and the machine rests.",
}

const (
	herdPoll = 500 * time.Microsecond
	herdRest = 300 * time.Millisecond
	bareHerd = "bare starts"
)

// herdSizes are how many are asked, and in how many rounds.
var herdSizes = []struct{ n, rounds int }{{1, 15}, {20, 7}, {100, 5}, {500, 3}}

// judgedHerd is the one of the line in what it must show.
func judgedHerd(b *bench) int { return pick(b, 100, 5) }

var herdMetrics = []report.Metric{
	{Name: "first", Unit: "ms", Ratio: true}, {Name: "median", Unit: "ms", Ratio: true}, {Name: "last", Unit: "ms", Ratio: true},
	{Name: "failures", Unit: ""},
}

// herd is a way to start n tenants at once; it puts them to sleep again.
type herd struct {
	name string
	ask  func(ctx context.Context, n int) *herdResult
}

// herdResult is when each answered, since all were asked.
type herdResult struct {
	mu    sync.Mutex
	took  []float64 // milliseconds
	fails []error
}

func (r *herdResult) add(first *load.First, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.fails = append(r.fails, err)
	} else {
		r.took = append(r.took, milliseconds(first.Took))
	}
}

func herdSuite(ctx context.Context, b *bench, s *report.Suite) (err error) {
	s.Method = herdMethod
	python, ok := b.tenantNamed("python")
	if !ok {
		s.Skip("all", "there is no Python")
		return nil
	}
	sizes := herdSizes
	if b.quick {
		sizes = []struct{ n, rounds int }{{1, 1}, {judgedHerd(b), 1}}
	}
	most := sizes[len(sizes)-1].n
	ten, err := peers.StartTen(b.ten, filepath.Join(b.dir, "herd"), services(python))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ten.Stop()) }()
	herds := []herd{{bareHerd, func(ctx context.Context, n int) *herdResult { return bareStarts(ctx, python, n) }}}
	for _, isolation := range unboxed() {
		if err := ten.Register(ctx, isolation, peers.Names(most)...); err != nil {
			return err
		}
		if err := errors.Join(ten.Wake(ctx, "t0."+isolation+".localhost"), ten.Sleep(ctx, isolation, "t0")); err != nil {
			return err
		}
		herds = append(herds, herd{"tenement, " + isolation, func(ctx context.Context, n int) *herdResult { return wakeHerd(ctx, ten, isolation, n) }})
	}
	for _, size := range sizes {
		b.say("herd of %d", size.n)
		table := s.Table(herdTitle(size.n), "", bareHerd, herdMetrics...)
		for round := range size.rounds {
			for i := range herds {
				if err := askHerd(ctx, s, table, round, herds[(i+round)%len(herds)], size.n); err != nil {
					return err
				}
			}
		}
	}
	herdOutcomes(b.outcomes, s, judgedHerd(b))
	return nil
}

func herdTitle(n int) string { return fmt.Sprintf("Herd of %d", n) }

func askHerd(ctx context.Context, s *report.Suite, table *report.Table, round int, h herd, n int) error {
	r := h.ask(ctx, n)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for i, err := range r.fails {
		if i < 3 {
			s.Fail("%s: %s: %v", table.Title, h.name, err)
		}
	}
	table.Add(round, h.name, report.Values{
		"first": report.Quantile(r.took, 0), "median": report.Median(r.took), "last": report.Quantile(r.took, 1),
		"failures": float64(len(r.fails)),
	})
	measure.Nap(herdRest)
	return nil
}

// wakeHerd asks n tenants at once and puts them to sleep again.
func wakeHerd(ctx context.Context, ten *peers.Ten, service string, n int) *herdResult {
	r := &herdResult{}
	gate := make(chan struct{})
	var begin time.Time
	var asking sync.WaitGroup
	for _, host := range peers.Hosts(n, service+".localhost") {
		asking.Go(func() {
			<-gate
			r.add(load.FirstAnswer(ctx, ten.Address, host, "/", begin))
		})
	}
	begin = time.Now()
	close(gate)
	asking.Wait()
	if err := ten.Sleep(ctx, service, peers.Names(n)...); err != nil {
		r.add(nil, err)
	}
	return r
}

// bareStarts starts n programs at once and ends them when all have answered.
func bareStarts(ctx context.Context, p tenant.Program, n int) *herdResult {
	r := &herdResult{}
	begin := time.Now()
	var starting sync.WaitGroup
	children := make([]*peers.Child, n)
	for i := range n {
		starting.Go(func() {
			first, child, err := p.BareStart(ctx, begin, max(tenant.Poll, herdPoll*time.Duration(n)), "/")
			children[i] = child
			r.add(first, err)
		})
	}
	starting.Wait()
	for _, child := range children {
		if child == nil {
			continue
		}
		if err := child.Kill(); err != nil {
			r.add(nil, err)
		}
	}
	return r
}

func herdOutcomes(o report.Outcomes, s *report.Suite, size int) {
	var single, many *report.Table
	for _, t := range s.Tables {
		switch t.Title {
		case herdTitle(1):
			single = t
		case herdTitle(size):
			many = t
		}
	}
	us := isolated
	if many.Row(us) == nil {
		us = inProcess
	}
	first := many.Median(us, "first") / single.Median(bareHerd, "first")
	last := many.Ratio(us, bareHerd, "last")
	failed := 0.0
	for _, n := range many.Row(us).All("failures") {
		failed += n
	}
	observed := fmt.Sprintf("%s single starts; %s × unthrottled, %.0f failures (%s)", report.Number(first), report.Number(last), failed, us)
	o[report.Herd] = report.AtMost(observed, report.Bound{Value: first, Milestone: 2, Goal: 1.2},
		report.Bound{Value: last, Milestone: 1.15, Goal: 1}, report.Bound{Value: failed})
}
