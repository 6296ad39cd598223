package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"tenement/bench/load"
	"tenement/bench/measure"
	"tenement/bench/peers"
	"tenement/bench/report"
	"tenement/bench/tenant"
)

// zipf is the exponent by which the customers of a service differ: the k-th asks
// 1/k^zipf as often as the first.
const zipf = 1.1

// realIdle is the idle_timeout of which a day's is a fraction.
const realIdle = 300 * time.Second

// day is how tenants are asked: each on its own and at random, by Zipf's law, and in all
// so often that on average active of them were asked within the last idle.
type day struct {
	active int
	idle   time.Duration
	during time.Duration
	rates  []float64 // requests a second, of each tenant
}

func newDay(n, active int, idle, during time.Duration) day {
	d := day{active: active, idle: idle, during: during, rates: make([]float64, n)}
	for k := range d.rates {
		d.rates[k] = math.Pow(float64(k+1), -zipf)
	}
	low, high := 0.0, 1e9 // the factor with which that many are active
	for range 200 {
		if middle := (low + high) / 2; d.expect(middle) < float64(active) {
			low = middle
		} else {
			high = middle
		}
	}
	for k := range d.rates {
		d.rates[k] *= low
	}
	return d
}

// expect is how many tenants on average were asked within idle, if all rates are
// multiplied by factor: the probability of at least one Poisson event, summed.
func (d day) expect(factor float64) float64 {
	sum := 0.0
	for _, rate := range d.rates {
		sum += 1 - math.Exp(-factor*rate*d.idle.Seconds())
	}
	return sum
}

func (d day) note() string {
	faster := realIdle.Seconds() / d.idle.Seconds()
	return fmt.Sprintf("Python's `http.server`. Requests come at random, by Zipf's law (exponent %v), so often that on average %d tenants were asked within `idle_timeout`, "+
		"which is %s instead of %s: time runs %.0f times as fast, but for starts and stops, which take what they take and count against us. %s, a sample every second; a figure is the samples' median. "+
		"*All* is the PSS of the daemon and of all that is awake, beside as many processes without us. *A month* is at $%.0f for a GB of memory.",
		zipf, d.active, d.idle, realIdle, faster, d.during, dollarsPerGB)
}

// call is one request of a day.
type call struct {
	at     time.Duration
	tenant int
}

// calls are a day's, in order. They are the same in every run.
func (d day) calls() []call {
	random := rand.New(rand.NewPCG(1, 2))
	var list []call
	for tenant, rate := range d.rates {
		for at := random.ExpFloat64() / rate; at < d.during.Seconds(); at += random.ExpFloat64() / rate {
			list = append(list, call{time.Duration(at * float64(time.Second)), tenant})
		}
	}
	slices.SortFunc(list, func(a, b call) int { return int(a.at - b.at) })
	return list
}

// live has a day pass and samples what it takes.
func (b *bench) live(ctx context.Context, s *report.Suite, table *report.Table, program tenant.Program, d day) (err error) {
	ten, err := peers.StartTen(b.ten, filepath.Join(b.dir, "day"),
		program.Service("api", isolation(), fmt.Sprintf("idle_timeout = %q", d.idle)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ten.Stop()) }()
	if err := ten.Register(ctx, "api", peers.Names(len(d.rates))...); err != nil {
		return err
	}
	sampling, stop := context.WithCancel(ctx)
	var sampled error
	var sampler sync.WaitGroup
	sampler.Go(func() { sampled = sample(sampling, ten, table, d.idle) })
	pass(ctx, s, ten, d)
	stop()
	sampler.Wait()
	return errors.Join(sampled, ctx.Err())
}

// pass asks as the day has it.
func pass(ctx context.Context, s *report.Suite, ten *peers.Ten, d day) {
	hosts := peers.Hosts(len(d.rates), "api.localhost")
	begin := time.Now()
	var asking sync.WaitGroup
	var mu sync.Mutex
	for _, c := range d.calls() {
		select {
		case <-time.After(time.Until(begin.Add(c.at))):
		case <-ctx.Done():
			return
		}
		asking.Go(func() {
			conn := load.Conn{Address: ten.Address}
			defer conn.Close()
			if err := conn.Exchange(ctx, load.Request(hosts[c.tenant], "/")); err != nil && ctx.Err() == nil {
				mu.Lock()
				defer mu.Unlock()
				s.Fail("a day: %s: %v", hosts[c.tenant], err)
			}
		})
	}
	asking.Wait()
}

// sample notes every second what the daemon and its tenants take, until ctx ends. In the
// first idle time there are fewer awake than later.
func sample(ctx context.Context, ten *peers.Ten, table *report.Table, idle time.Duration) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	begin := time.Now()
	for n := 0; ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		if time.Since(begin) < idle {
			continue
		}
		awake, err := ten.Awake(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		pids := peers.PIDs(awake)
		own, err := measure.MemoryOf([]int{ten.PID})
		if err != nil {
			return err
		}
		all, err := measure.MemoryOf(append(pids, ten.PID))
		if err != nil {
			return err
		}
		table.Add(n, sleeping, report.Values{
			"all": megabytes(all.PSS), "daemon": megabytes(own.PSS), "awake": float64(len(pids)), "a month": dollars(megabytes(all.PSS)),
		})
		n++
	}
}
