package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"tenement/bench/load"
	"tenement/bench/measure"
	"tenement/bench/peers"
	"tenement/bench/report"
	"tenement/bench/tenant"
)

const (
	bare      = "ReverseProxy" // what the others are compared with
	direct    = "no proxy"
	inProcess = "tenement, process"
	isolated  = "tenement, namespace"
)

var proxyMethod = []string{
	"Every contestant is up during the whole suite, on loopback; one at a time is asked, in short rounds whose order rotates. A ratio is the median of " +
		"the rounds' own ratios to *" + bare + "*, the standard library's `httputil.ReverseProxy` and nothing else; a figure is the median of the rounds, with quartiles.",
	"The tenant is the same static Go server for all. tenement runs one process for each tenant; the others forward to one process, also for 1,000 names, " +
		"which is in their favour. *CPU* is user and system time of all processes of the contestant, the tenants' excluded, per answer. " +
		"The client shares the cores with all. The first tenth of each round is not counted. Memory is PSS after everything else.",
}

// scenario is one way to ask.
type scenario struct {
	title, note string
	tenants     int // 1, or all
	path        string
	during      time.Duration // of a round
	ask         func(context.Context, *peers.Proxy, load.Target, time.Duration) *load.Result
}

const constantRate = 1000 // requests a second

func scenarios(all int) []scenario {
	saturate := func(n int, keep bool) func(context.Context, *peers.Proxy, load.Target, time.Duration) *load.Result {
		return func(ctx context.Context, _ *peers.Proxy, t load.Target, d time.Duration) *load.Result {
			return load.Saturate(ctx, t, n, d, keep)
		}
	}
	return []scenario{
		{title: throughputTitle, tenants: 1, path: "/", during: 2 * time.Second, ask: saturate(32, true)},
		{
			title: rateTitle, tenants: 1, path: "/", during: 3 * time.Second,
			note: "Sent when they are due, whatever answers take; vegeta's client, which costs more than ours. *Added* is the median less that of asking the tenant itself, in the same round.",
			ask: func(ctx context.Context, _ *peers.Proxy, t load.Target, d time.Duration) *load.Result {
				return load.AtRate(ctx, t, constantRate, d/10, d)
			},
		},
		{title: "1 MiB, kept connections, c = 8", tenants: 1, path: "/1m", during: 1500 * time.Millisecond, ask: saturate(8, true)},
		{title: "1 KiB, a new connection for every request, c = 32", tenants: 1, path: "/", during: 1500 * time.Millisecond, ask: saturate(32, false)},
		{
			title: "1 KiB, HTTP/2 without TLS, 4 connections with 8 streams each", tenants: 1, path: "/", during: 1500 * time.Millisecond,
			note: "The client is Go's and takes more of the cores than the contestants do.",
			ask: func(ctx context.Context, p *peers.Proxy, t load.Target, d time.Duration) *load.Result {
				t.Address = p.H2C
				return load.SaturateH2C(ctx, t, 4, 8, d)
			},
		},
		{
			title: "WebSocket messages of 64 bytes, there and back, 32 sockets", tenants: 1, path: "/ws", during: 1500 * time.Millisecond,
			ask: func(ctx context.Context, _ *peers.Proxy, t load.Target, d time.Duration) *load.Result {
				return load.Messages(ctx, t, 32, d)
			},
		},
		// The last, because only for this one all tenants are woken.
		{title: fmt.Sprintf("1 KiB, kept connections, %d tenants, c = 32", all), tenants: all, path: "/", during: 1500 * time.Millisecond, ask: saturate(32, true)},
	}
}

const (
	throughputTitle = "1 KiB, kept connections, 1 tenant, c = 32"
	rateTitle       = "1 KiB at 1,000 requests/s, 1 tenant"
)

func loadMetrics(title string) []report.Metric {
	metrics := []report.Metric{
		{Name: "rate", Unit: "1/s", Ratio: true}, {Name: "CPU", Unit: "µs", Ratio: true}, {Name: "p50", Unit: "ms", Ratio: true},
		{Name: "p99", Unit: "ms", Ratio: true}, {Name: "p99.9", Unit: "ms"},
	}
	if title == rateTitle {
		metrics[0] = report.Metric{Name: "added p50", Unit: "ms", Ratio: true}
	}
	return metrics
}

func proxySuite(ctx context.Context, b *bench, s *report.Suite) (err error) {
	s.Method = proxyMethod
	all := pick(b, 1000, 20)
	program, ok := b.tenantNamed("go")
	if !ok {
		return errors.New("there is no Go tenant")
	}
	contestants, stop, err := b.contestants(ctx, s, program, all)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	for _, c := range scenarios(all) {
		if err := b.ready(ctx, c, contestants); err != nil {
			return err
		}
		b.say("%s", c.title)
		if err := b.compare(ctx, s, c, contestants); err != nil {
			return err
		}
	}
	if err := memoryTable(s, contestants, all); err != nil {
		return err
	}
	proxyOutcomes(b.outcomes, s)
	return nil
}

// ready wakes the tenants that a scenario asks.
func (b *bench) ready(ctx context.Context, c scenario, contestants []*peers.Proxy) error {
	if c.tenants == 1 {
		return nil
	}
	for _, p := range contestants {
		b.say("waking the tenants of %s", p.Name)
		if err := p.Wake(ctx); err != nil {
			return err
		}
	}
	return nil
}

// contestants starts them all. stop ends those that were started, also after an error.
func (b *bench) contestants(ctx context.Context, s *report.Suite, program tenant.Program, all int) (list []*peers.Proxy, stop func() error, err error) {
	var started []func() error
	stop = func() error {
		var failed error
		for i := len(started) - 1; i >= 0; i-- {
			failed = errors.Join(failed, started[i]())
		}
		return failed
	}
	port, err := peers.FreePort()
	if err != nil {
		return nil, stop, err
	}
	backend, err := program.Start(port)
	if err != nil {
		return nil, stop, err
	}
	started = append(started, backend.Stop)
	address := "127.0.0.1:" + strconv.Itoa(port)
	list = peers.StartProxies(ctx, b.programs, filepath.Join(b.dir, "peers"), address, peers.Hosts(all, "bench.localhost"), s.Skip)
	for _, p := range list {
		started = append(started, p.Stop)
	}
	list = append(list, &peers.Proxy{
		Name: direct, Address: address, H2C: address, Hosts: []string{address},
		PIDs: func() []int { return []int{backend.PID} },
	})
	ten, err := peers.StartTen(b.ten, filepath.Join(b.dir, "proxy"), services(program))
	if err != nil {
		return list, stop, err
	}
	started = append(started, ten.Stop)
	for _, isolation := range unboxed() {
		proxy, err := ten.Proxy(ctx, isolation, all)
		if err != nil {
			s.Skip("tenement, "+isolation, err.Error())
			continue
		}
		list = append(list, proxy)
	}
	return list, stop, nil
}

// services run a program in each degree of isolation but the sandbox, in which it is
// another kernel's work that would be measured.
func services(program tenant.Program) string {
	text := ""
	for _, isolation := range unboxed() {
		text += program.Service(isolation, isolation, "idle_timeout = 0")
	}
	return text
}

func unboxed() []string { return degrees()[:min(2, len(degrees()))] }

// compare asks the contestants in turns.
func (b *bench) compare(ctx context.Context, s *report.Suite, c scenario, contestants []*peers.Proxy) error {
	table := s.Table(c.title, c.note, bare, loadMetrics(c.title)...)
	during := pick(b, c.during, 100*time.Millisecond)
	out := make(map[string]bool) // those that cannot do it
	for round := range pick(b, 10, 1) {
		for i := range contestants {
			p := contestants[(i+round)%len(contestants)]
			if out[p.Name] || p.Name == direct && c.tenants > 1 {
				continue
			}
			target := load.Target{Address: p.Address, Path: c.path, Hosts: p.Hosts[:min(c.tenants, len(p.Hosts))], Meter: p.CPU}
			result := c.ask(ctx, p, target, during)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if result.Answers == 0 {
				s.Skip(p.Name+": "+c.title, fmt.Sprint("no answer: ", result.First))
				out[p.Name] = true
				continue
			}
			if err := result.Err(); err != nil {
				s.Fail("%s: %s: %v", c.title, p.Name, err)
			}
			table.Add(round, p.Name, values(result))
		}
	}
	if c.title == rateTitle {
		addLatencies(table)
	}
	return nil
}

func values(r *load.Result) report.Values {
	return report.Values{
		"rate": r.Rate(), "CPU": r.CPUPerAnswer(), "p50": r.Quantile(0.5), "p99": r.Quantile(0.99), "p99.9": r.Quantile(0.999),
	}
}

// addLatencies notes for every round how much longer answers took than the tenant's own.
func addLatencies(t *report.Table) {
	own := t.Row(direct)
	if own == nil {
		return
	}
	for _, row := range t.Rows {
		for n := range min(len(row.Rounds), len(own.Rounds)) {
			if row != own && row.Rounds[n] != nil && own.Rounds[n] != nil {
				row.Rounds[n]["added p50"] = row.Rounds[n]["p50"] - own.Rounds[n]["p50"]
			}
		}
	}
}

func memoryTable(s *report.Suite, contestants []*peers.Proxy, all int) error {
	table := s.Table("Memory", fmt.Sprintf("Of the contestant's processes, without tenants', after all of the above. tenement's daemon is one for both lines, with %d tenants awake.", 2*all),
		bare, report.Metric{Name: "PSS", Unit: "MB", Ratio: true}, report.Metric{Name: "RSS", Unit: "MB"})
	for _, p := range contestants {
		if p.Name == direct {
			continue
		}
		memory, err := measure.MemoryOf(p.PIDs())
		if err != nil {
			return err
		}
		table.Add(0, p.Name, report.Values{"PSS": megabytes(memory.PSS), "RSS": megabytes(memory.RSS)})
	}
	return nil
}

func megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }

// proxyOutcomes are for the default, which isolates; without root, for what there is.
func proxyOutcomes(o report.Outcomes, s *report.Suite) {
	full, rate := s.Tables[0], s.Tables[1]
	us := isolated
	if full.Row(us) == nil {
		us = inProcess
	}
	caddy, own, nginx := full.Ratio(us, "Caddy", "rate"), full.Ratio(us, bare, "rate"), full.Ratio(us, "nginx", "rate")
	o[report.Throughput] = report.Outcome{
		Observed: fmt.Sprintf("%s × Caddy, %s × ReverseProxy, %s × nginx (%s); process: %s, %s, %s", report.Number(caddy), report.Number(own), report.Number(nginx), us,
			report.Number(full.Ratio(inProcess, "Caddy", "rate")), report.Number(full.Ratio(inProcess, bare, "rate")), report.Number(full.Ratio(inProcess, "nginx", "rate"))),
		Milestone: caddy >= 1.5 && own >= 0.95, Goal: nginx >= 1,
	}
	added := rate.Ratio(us, "nginx", "added p50")
	observed := fmt.Sprintf("%s ms against nginx's %s: %s × (%s)", report.Number(rate.Median(us, "added p50")), report.Number(rate.Median("nginx", "added p50")), report.Number(added), us)
	o[report.AddedLatency] = report.AtMost(observed, report.Bound{Value: added, Milestone: 2, Goal: 1})
}
