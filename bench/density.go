package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"tenement/bench/measure"
	"tenement/bench/peers"
	"tenement/bench/report"
	"tenement/bench/tenant"
	"tenement/internal/store"
)

// dollarsPerGB is what a GB of memory costs for a month, as a small virtual server: those
// of 1 to 4 GB are offered at 4 to 6 dollars for each. It is an assumption.
const dollarsPerGB = 5.0

const (
	awake   = 20 // of all that are registered
	tenants = 1000
)

var densityMethod = []string{
	"*Registered*: a daemon for each size, all idle at the same time and side by side. The rows are written before it starts. " + strconv.Itoa(awake) + " instances (static Go) are awake " +
		"and checked for health every ten seconds, as by default; nobody asks for anything. *CPU* is user and system time of the daemon, tenants' excluded.",
}

func densitySuite(ctx context.Context, b *bench, s *report.Suite) error {
	s.Method = densityMethod
	return errors.Join(b.registered(ctx, s), b.day(ctx, s))
}

func (b *bench) registered(ctx context.Context, s *report.Suite) (err error) {
	program, ok := b.tenantNamed("go")
	if !ok {
		return errors.New("there is no Go tenant")
	}
	idle := pick(b, time.Minute, time.Second)
	table := s.Table("Registered instances, "+strconv.Itoa(awake)+" awake", fmt.Sprintf("Idle for %s.", idle), "",
		report.Metric{Name: "RSS", Unit: "MB"}, report.Metric{Name: "PSS", Unit: "MB"}, report.Metric{Name: "CPU", Unit: "% of a core"})
	sizes := pick(b, []int{100, 1_000, 10_000, 100_000, 1_000_000}, []int{100, 10_000})
	daemons := make([]*peers.Ten, len(sizes))
	defer func() {
		for _, ten := range daemons {
			if ten != nil {
				err = errors.Join(err, ten.Stop())
			}
		}
	}()
	for i, n := range sizes {
		b.say("%d registered", n)
		dir := filepath.Join(b.dir, "registered", strconv.Itoa(n))
		if err := register(ctx, filepath.Join(dir, "data", ".tenement"), n); err != nil {
			return err
		}
		if daemons[i], err = peers.StartTen(b.ten, dir, program.Service("api", isolation(), "idle_timeout = 0\nhealth = \"/\"")); err != nil {
			return err
		}
		if err := daemons[i].Wake(ctx, peers.Hosts(awake, "api.localhost")...); err != nil {
			return err
		}
	}
	return b.idle(ctx, table, sizes, daemons, idle)
}

// idle measures daemons that have nothing to do.
func (b *bench) idle(ctx context.Context, table *report.Table, sizes []int, daemons []*peers.Ten, during time.Duration) error {
	before := make([]time.Duration, len(daemons))
	for i, ten := range daemons {
		before[i] = measure.CPU([]int{ten.PID})
	}
	begin := time.Now()
	select {
	case <-time.After(during):
	case <-ctx.Done():
		return ctx.Err()
	}
	for i, ten := range daemons {
		cpu := measure.CPU([]int{ten.PID}) - before[i]
		memory, err := measure.MemoryOf([]int{ten.PID})
		if err != nil {
			return err
		}
		table.Add(0, strconv.Itoa(sizes[i]), report.Values{
			"RSS": megabytes(memory.RSS), "PSS": megabytes(memory.PSS), "CPU": 100 * cpu.Seconds() / time.Since(begin).Seconds(),
		})
	}
	most := strconv.Itoa(sizes[len(sizes)-1])
	rss, cpu := table.Median(most, "RSS"), table.Median(most, "CPU")
	b.outcomes[report.DaemonMemory] = report.AtMost(fmt.Sprintf("%s MB (RSS), %s registered", report.Number(rss), most), report.Bound{Value: rss, Milestone: 100, Goal: 64})
	b.outcomes[report.DaemonIdle] = report.AtMost(fmt.Sprintf("%s %%", report.Number(cpu)), report.Bound{Value: cpu, Milestone: 0.5, Goal: 0.1})
	return nil
}

// register writes n instances into a new registry. One statement for all takes seconds
// for a million; the API, which has each on the disk before it answers, hours.
func register(ctx context.Context, dir string, n int) error {
	empty, err := store.Open(ctx, dir)
	if err != nil {
		return err
	}
	if err := empty.Close(); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "state.db"))
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `INSERT INTO instances (service, name, created_at)
		WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
		SELECT 'api', 't' || i, ? FROM n`, n, time.Now().UnixNano())
	return errors.Join(err, db.Close())
}

// day compares a thousand tenants, of which those are awake whom somebody has asked of
// late, with as many processes that always run.
func (b *bench) day(ctx context.Context, s *report.Suite) error {
	program, ok := b.tenantNamed("python")
	if !ok {
		s.Skip("a day of tenants", "there is no Python")
		return nil
	}
	n := pick(b, tenants, 30)
	d := newDay(n, pick(b, awake, 5), pick(b, 3*time.Second, 500*time.Millisecond), pick(b, 2*time.Minute, 3*time.Second))
	table := s.Table(fmt.Sprintf("%d tenants, about %d active", n, d.active), d.note(), alwaysOn,
		report.Metric{Name: "all", Unit: "MB", Ratio: true}, report.Metric{Name: "daemon", Unit: "MB"}, report.Metric{Name: "awake", Unit: ""},
		report.Metric{Name: "a month", Unit: "$"})
	b.say("a day of %d tenants", n)
	if err := b.live(ctx, s, table, program, d); err != nil {
		return err
	}
	b.say("%d processes always on", n)
	if err := b.always(ctx, s, table, program, n); err != nil {
		return err
	}
	total, always := report.Median(table.Row(sleeping).All("all")), table.Median(alwaysOn, "all")
	b.outcomes[report.Density] = report.AtMost(fmt.Sprintf("1/%s: %s MB against %s, $%.2f a month against $%.2f", report.Number(always/total), report.Number(total), report.Number(always),
		dollars(total), dollars(always)), report.Bound{Value: total / always, Milestone: 1.0 / 20, Goal: 1.0 / 40})
	return nil
}

const (
	sleeping = "tenement"
	alwaysOn = "always on"
)

// dollars is what so many megabytes cost for a month.
func dollars(megabytes float64) float64 { return megabytes / 1000 * dollarsPerGB }

// always has n processes run without us and measures them.
func (b *bench) always(ctx context.Context, s *report.Suite, table *report.Table, program tenant.Program, n int) error {
	const each = 16 << 20 // bytes; about twice what one takes
	if free := measure.Available(); free < int64(n)*each {
		s.Skip(alwaysOn, fmt.Sprintf("%d MB of memory are free, and %d processes could take %d", free>>20, n, int64(n)*each>>20))
		return nil
	}
	var children []*peers.Child
	defer func() {
		for _, child := range children {
			_ = child.Kill() // what is left is named at the end
		}
	}()
	pids := make([]int, 0, n)
	for range n {
		_, child, err := program.BareStart(ctx, time.Now(), time.Millisecond, "/")
		if child != nil {
			children = append(children, child)
			pids = append(pids, child.PID)
		}
		if err != nil {
			return err
		}
	}
	memory, err := measure.MemoryOf(pids)
	if err != nil {
		return err
	}
	all := megabytes(memory.PSS)
	for round := range table.Row(sleeping).Rounds { // one figure, beside each of the day's samples
		table.Add(round, alwaysOn, report.Values{"all": all, "awake": float64(n), "a month": dollars(all)})
	}
	return nil
}
