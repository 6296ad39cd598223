package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"tenement"
	"tenement/bench/load"
	"tenement/bench/measure"
	"tenement/bench/peers"
	"tenement/bench/report"
	"tenement/bench/tenant"
)

// rest is how long the machine is left alone after an instance was put to sleep, so that
// clearing up after it does not meet the next start.
const rest = 50 * time.Millisecond

const bareStart = "bare start"

var wakeMethod = []string{
	"A wake is the time from before the request's connection is made until the first byte of the answer, of an instance that sleeps. A *bare start* is the time from before `exec` until " +
		"the first byte of an answer of the same program on the same machine without us, asked for again and again, every " + tenant.Poll.String() + ". Both take turns within each round; the order rotates. " +
		"*Beyond* is a wake less the bare start of the same round.",
	"After each the instance is put to sleep by the API, which waits until its process is gone, and the machine rests for " + rest.String() + ". " +
		"Others' ways to start a program with the first connection: `systemd-socket-activate` passes the socket to the program itself, where it can take it, or to `systemd-socket-proxyd`, before which a script starts the program " +
		"and waits for its port; uWSGI's Emperor has on-demand vassals. They are started anew before each wake, which is not counted. " +
		"The page cache is warm, but for the table that says otherwise. `egress` is `deny`: the machine's network is not touched.",
}

// sometimes is how rarely those take part who take long, or are there for comparison.
const sometimes = 5

// waker is a way to start a program and have it answer.
type waker struct {
	name  string
	every int // takes part in one round of so many
	wake  func(context.Context) (*load.First, error)
	sleep func(context.Context) error
}

func wakeSuite(ctx context.Context, b *bench, s *report.Suite) (err error) {
	s.Method = wakeMethod
	s.Skip("Passenger", "its core does not come up as a child without root's directories; Apache answers 500")
	var text strings.Builder
	for _, p := range b.tenants {
		for _, isolation := range degrees() {
			text.WriteString(p.Service(p.Name+"-"+isolation, isolation, "idle_timeout = 0"))
		}
	}
	if program, ok := b.tenantNamed("go"); ok {
		text.WriteString(program.Service(passedService, isolation(), "idle_timeout = 0\nlisten = \"fd\""))
	}
	ten, err := peers.StartTen(b.ten, filepath.Join(b.dir, "wake"), text.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ten.Stop()) }()
	var cold []func() error
	for _, p := range b.tenants[:pick(b, len(b.tenants), min(2, len(b.tenants)))] {
		b.say("%s", p.Name)
		wakers, err := b.wakers(ctx, s, ten, p)
		if err != nil {
			return err
		}
		if err := b.warm(ctx, s, p, wakers); err != nil {
			return err
		}
		cold = append(cold, func() error { return b.cold(ctx, s, p, wakers) })
	}
	if b.quick {
		s.Skip("cold starts", "a smoke run leaves the machine's page cache alone")
		cold = nil
	}
	for _, turns := range cold {
		if err := turns(); err != nil {
			return err
		}
	}
	b.wakeOutcomes(s)
	return nil
}

// passedService runs the Go program with the socket that the daemon makes.
const passedService = "passed"

// wakers are the ways to start p that work here: each was tried once.
func (b *bench) wakers(ctx context.Context, s *report.Suite, ten *peers.Ten, p tenant.Program) ([]waker, error) {
	all := []waker{bareWaker(p)}
	for _, isolation := range degrees() {
		if _, err := exec.LookPath("runsc"); isolation == "sandbox" && err != nil {
			s.Skip(p.Name+", sandbox", "runsc is not in PATH; tools/runsc.sh builds it")
			continue
		}
		w, err := instanceWaker(ctx, ten, p.Name+"-"+isolation, isolation, path(p))
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	if p.Name == "go" {
		w, err := instanceWaker(ctx, ten, passedService, isolation()+", listen = \"fd\"", path(p))
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	others, err := b.sleepers(p, s.Skip)
	if err != nil {
		return nil, err
	}
	all = append(all, others...)
	var working []waker
	for _, w := range all {
		if _, err := w.wake(ctx); err != nil {
			s.Skip(p.Name+", "+w.name, err.Error())
		} else {
			working = append(working, w)
		}
		if err := w.sleep(ctx); err != nil {
			return nil, err
		}
	}
	return working, nil
}

// sleepers are others' ways to start p with the first connection.
func (b *bench) sleepers(p tenant.Program, skip func(name, why string)) ([]waker, error) {
	var list []*peers.Sleeper
	add := func(name string, s *peers.Sleeper, err error) {
		if err != nil {
			skip(p.Name+", "+name, err.Error())
			return
		}
		list = append(list, s)
	}
	dir := filepath.Join(b.dir, "sleepers", p.Name)
	proxy, err := peers.SocketProxy(dir, filepath.Join(b.dir, "apps"), p.Command)
	add("systemd-socket-activate, -proxyd", proxy, err)
	if p.Name == "go" {
		passed, err := peers.SocketActivation(p.Command)
		add("systemd-socket-activate", passed, err)
	}
	if p.Name == "uwsgi" {
		emperor, err := peers.Emperor(filepath.Join(dir, "vassals"), filepath.Join(b.dir, "apps", "wsgi.py"))
		add("uWSGI Emperor", emperor, err)
	}
	var wakers []waker
	for _, s := range list {
		wakers = append(wakers, waker{
			name: s.Name, every: sometimes,
			wake: func(ctx context.Context) (*load.First, error) {
				if err := s.Listen(ctx); err != nil {
					return nil, err
				}
				measure.Nap(rest)
				return load.FirstAnswer(ctx, s.Address, s.Address, path(p), time.Now())
			},
			sleep: func(context.Context) error { return s.Stop() },
		})
	}
	return wakers, nil
}

// path is where a program tells of its start, if it can.
func path(p tenant.Program) string {
	if p.Name == "go" {
		return "/times"
	}
	return "/"
}

func bareWaker(p tenant.Program) waker {
	var child *peers.Child
	return waker{
		name: bareStart, every: 1,
		wake: func(ctx context.Context) (first *load.First, err error) {
			first, child, err = p.BareStart(ctx, time.Now(), tenant.Poll, path(p))
			return first, err
		},
		sleep: func(context.Context) error {
			if child == nil {
				return nil
			}
			return child.Kill()
		},
	}
}

func instanceWaker(ctx context.Context, ten *peers.Ten, service, isolation, path string) (waker, error) {
	w := waker{
		name: isolation, every: 1,
		wake: func(ctx context.Context) (*load.First, error) {
			return load.FirstAnswer(ctx, ten.Address, "t0."+service+".localhost", path, time.Now())
		},
		sleep: func(ctx context.Context) error { return ten.Sleep(ctx, service, "t0") },
	}
	if isolation == "sandbox" {
		w.every = sometimes
	}
	id := tenement.InstanceID{Service: service, Name: "t0"}
	return w, ten.Register(ctx, id.Service, id.Name)
}

var wakeMetrics = []report.Metric{
	{Name: "start", Unit: "ms", Ratio: true}, {Name: "beyond", Unit: "ms"},
}

func (b *bench) warm(ctx context.Context, s *report.Suite, p tenant.Program, wakers []waker) error {
	n := pick(b, 100, 2)
	if p.Name == "go" {
		n = pick(b, 200, 5)
	}
	note := "Sandboxes and others' ways take part in every fifth round."
	table := s.Table(wakeTitle(p), note, bareStart, wakeMetrics...)
	phases := s.Table("Phases of a wake: "+p.Name, phasesNote, "", phaseMetrics...)
	return b.turns(ctx, table, phases, wakers, n, func() error { return nil })
}

func wakeTitle(p tenant.Program) string { return "Wake, page cache warm: " + p.Name }

// cold drops the page cache before each start, which the whole machine feels: it comes last.
func (b *bench) cold(ctx context.Context, s *report.Suite, p tenant.Program, wakers []waker) error {
	if err := measure.DropCaches(); err != nil {
		s.Skip("cold starts: "+p.Name, err.Error())
		return nil
	}
	table := s.Table("Wake, page cache cold: "+p.Name, "The cache is dropped before each start. The daemon has to be read again, too.", bareStart, wakeMetrics...)
	var few []waker
	for _, w := range wakers {
		if w.every == 1 {
			few = append(few, w)
		}
	}
	return b.turns(ctx, table, nil, few, pick(b, 15, 1), measure.DropCaches)
}

// turns starts by each of the wakers in turn, n times. One start in ten may fail, which is
// noted below the table.
func (b *bench) turns(ctx context.Context, table, phases *report.Table, wakers []waker, n int, before func() error) error {
	failed := make(map[string][]error)
	for round := range n {
		for i := range wakers {
			w := wakers[(i+round)%len(wakers)]
			if round%w.every != 0 {
				continue
			}
			if err := before(); err != nil {
				return err
			}
			first, err := w.wake(ctx)
			if err := errors.Join(err, w.sleep(ctx)); err != nil {
				failed[w.name] = append(failed[w.name], err)
				if len(failed[w.name]) > 1+n/10 || ctx.Err() != nil {
					return fmt.Errorf("%s: %w", w.name, errors.Join(failed[w.name]...))
				}
				continue
			}
			measure.Nap(rest)
			table.Add(round, w.name, report.Values{"start": milliseconds(first.Took)})
			if values := phasesOf(first); phases != nil && values != nil {
				phases.Add(round, w.name, values)
			}
		}
	}
	for name, errs := range failed {
		table.Note += fmt.Sprintf(" %d of the starts by %s failed and are not in it: %v.", len(errs), name, errs[0])
	}
	addBeyond(table)
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// addBeyond notes for every round how much longer a wake took than the bare start.
func addBeyond(t *report.Table) {
	own := t.Row(bareStart)
	if own == nil {
		return
	}
	for _, row := range t.Rows {
		for n := range min(len(row.Rounds), len(own.Rounds)) {
			if row != own && row.Rounds[n] != nil && own.Rounds[n] != nil {
				row.Rounds[n]["beyond"] = row.Rounds[n]["start"] - own.Rounds[n]["start"]
			}
		}
	}
}

const phasesNote = "As the program itself tells them, by the machine's clock. *begins*: from the request, or `exec`, to the program's first instruction after the Go runtime's; *listens*: from there until it listens; " +
	"*connected*: until somebody first connects, which is when the daemon sees that it is ready; *asked*: until the request is there; *answered*: until the answer's first byte is at the client. What happens within *begins* only the daemon could tell."

var phaseMetrics = []report.Metric{
	{Name: "begins", Unit: "ms"}, {Name: "listens", Unit: "ms"}, {Name: "connected", Unit: "ms"}, {Name: "asked", Unit: "ms"}, {Name: "answered", Unit: "ms"},
}

// phasesOf reads what the Go tenant tells of its start; nil of another.
func phasesOf(first *load.First) report.Values {
	var begun, listening, accepted, asked int64
	if n, _ := fmt.Sscan(first.Body, &begun, &listening, &accepted, &asked); n != 4 {
		return nil
	}
	moments := []int64{first.Began.UnixNano(), begun, listening, accepted, asked, first.Began.Add(first.Took).UnixNano()}
	values := report.Values{}
	for i, metric := range phaseMetrics {
		values[metric.Name] = milliseconds(time.Duration(moments[i+1] - moments[i]))
	}
	return values
}

// wakeOutcomes are of the Go program. The slowest wakes are set against the median of the
// bare starts: the slowest of those have nothing to do with them.
func (b *bench) wakeOutcomes(s *report.Suite) {
	for _, table := range s.Tables {
		if table.Title != wakeTitle(tenant.Program{Name: "go"}) {
			continue
		}
		for isolation, bounds := range map[string][4]float64{"process": {3, 1, 15, 5}, "namespace": {5, 2, 20, 8}} {
			p50 := report.Median(table.Row(isolation).All("beyond"))
			p99 := report.Quantile(table.Row(isolation).All("start"), 0.99) - table.Median(bareStart, "start")
			observed := fmt.Sprintf("%s ms / %s ms, n = %d", report.Number(p50), report.Number(p99), len(table.Row(isolation).All("start")))
			b.outcomes["wake "+isolation] = report.AtMost(observed,
				report.Bound{Value: p50, Milestone: bounds[0], Goal: bounds[1]}, report.Bound{Value: p99, Milestone: bounds[2], Goal: bounds[3]})
		}
	}
}
