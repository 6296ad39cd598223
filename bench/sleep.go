package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"tenement"
	"tenement/bench/load"
	"tenement/bench/measure"
	"tenement/bench/peers"
	"tenement/bench/report"
	"tenement/bench/tenant"
	"tenement/internal/api"
)

var sleepMethod = []string{
	"The tenant is the static Go server. *Frozen*: the instance is frozen by its `freeze_timeout`, the machine rests for " + rest.String() + ", and a request over a new connection is timed " +
		"until its first byte; beside it, in turns, the same of an instance that is ready.",
	"*Restart*: the daemon is killed with SIGKILL and started again; all times are from before that start, until it answers a request to an instance that is awake, and until the API " +
		"shows every instance ready with the process that it had. *Upgrade*: requests at a constant rate while one daemon after the other takes over.",
}

func sleepSuite(ctx context.Context, b *bench, s *report.Suite) error {
	s.Method = sleepMethod
	program, ok := b.tenantNamed("go")
	if !ok {
		return errors.New("there is no Go tenant")
	}
	return errors.Join(b.thaw(ctx, s, program), b.restart(ctx, s, program), b.upgrade(ctx, s, program))
}

const ready = "ready"

func (b *bench) thaw(ctx context.Context, s *report.Suite, program tenant.Program) (err error) {
	var text string
	isolations := unboxed() // a sandbox pauses in a way of its own
	for _, isolation := range isolations {
		text += program.Service(isolation, isolation, `freeze_timeout = "100ms"`)
	}
	text += program.Service(ready, isolation(), "idle_timeout = 0")
	dir := filepath.Join(b.dir, "thaw")
	b.say("frozen")
	ten, err := peers.StartTen(b.ten, dir, text)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ten.Stop()) }()
	table := s.Table("Frozen → first byte", "", ready, report.Metric{Name: "answer", Unit: "ms", Ratio: true})
	services := append([]string{ready}, isolations...)
	for _, service := range services {
		if err := errors.Join(ten.Register(ctx, service, "t0"), ten.Wake(ctx, "t0."+service+".localhost")); err != nil {
			return err
		}
	}
	for round := range pick(b, 100, 3) {
		for i := range services {
			service := services[(i+round)%len(services)]
			first, err := thawed(ctx, ten, service)
			if err != nil {
				return err
			}
			table.Add(round, service, report.Values{"answer": milliseconds(first.Took)})
		}
	}
	p50 := table.Median(isolation(), "answer")
	b.outcomes[report.Thaw] = report.AtMost(fmt.Sprintf("%s ms, %s", report.Number(p50), isolation()), report.Bound{Value: p50, Milestone: 2, Goal: 1})
	return nil
}

// thawed asks an instance once it is frozen; one that never is, at once.
func thawed(ctx context.Context, ten *peers.Ten, service string) (*load.First, error) {
	id := tenement.InstanceID{Service: service, Name: "t0"}
	frozen := func() bool {
		instance, err := ten.API.Instance(ctx, id)
		return err == nil && instance.State == tenement.Frozen
	}
	if service != ready {
		if err := until(ctx, "it is frozen", frozen); err != nil {
			return nil, err
		}
	}
	measure.Nap(rest)
	return load.FirstAnswer(ctx, ten.Address, "t0."+service+".localhost", "/", time.Now())
}

// until waits for a condition that is to come true soon.
func until(ctx context.Context, what string, is func() bool) error {
	for end := time.Now().Add(2 * time.Minute); !is(); measure.Nap(2 * time.Millisecond) {
		if ctx.Err() != nil || time.Now().After(end) {
			return errors.Join(fmt.Errorf("waited in vain until %s", what), ctx.Err())
		}
	}
	return nil
}

// restart kills a daemon with many instances awake.
func (b *bench) restart(ctx context.Context, s *report.Suite, program tenant.Program) (err error) {
	n := pick(b, 1000, 10)
	b.say("restart with %d awake", n)
	ten, err := peers.StartTen(b.ten, filepath.Join(b.dir, "restart"), program.Service("api", isolation(), "idle_timeout = 0"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ten.Stop()) }()
	hosts := peers.Hosts(n, "api.localhost")
	if err := errors.Join(ten.Register(ctx, "api", peers.Names(n)...), ten.Wake(ctx, hosts...)); err != nil {
		return err
	}
	before, err := ten.Awake(ctx)
	if err != nil {
		return err
	}
	pids := peers.PIDs(before)
	table := s.Table(fmt.Sprintf("Restart of the daemon with %d awake", n), "", "",
		report.Metric{Name: "serves", Unit: "ms"}, report.Metric{Name: "all adopted", Unit: "ms"})
	for round := range pick(b, 5, 1) {
		if err := ten.Crash(); err != nil {
			return err
		}
		begin := time.Now()
		if err := ten.Restart(); err != nil {
			return err
		}
		first, err := load.FirstAnswer(ctx, ten.Address, hosts[n-1], "/", begin)
		if err != nil {
			return err
		}
		if err := until(ctx, "all are adopted", func() bool { return adopted(ctx, ten, pids) }); err != nil {
			return err
		}
		table.Add(round, isolation(), report.Values{"serves": milliseconds(first.Took), "all adopted": milliseconds(time.Since(begin))})
	}
	return nil
}

// adopted says whether exactly those processes are ready.
func adopted(ctx context.Context, ten *peers.Ten, pids []int) bool {
	awake, err := ten.Awake(ctx)
	return err == nil && slices.Equal(peers.PIDs(awake), pids) &&
		!slices.ContainsFunc(awake, func(i api.Instance) bool { return i.State != tenement.Ready })
}

const upgradeRate = 200 // requests a second

func (b *bench) upgrade(ctx context.Context, s *report.Suite, program tenant.Program) (err error) {
	b.say("upgrade under load")
	ten, err := peers.StartTen(b.ten, filepath.Join(b.dir, "upgrade"), program.Service("api", isolation(), "idle_timeout = 0"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ten.Stop()) }()
	hosts := peers.Hosts(20, "api.localhost")
	if err := errors.Join(ten.Register(ctx, "api", peers.Names(len(hosts))...), ten.Wake(ctx, hosts...)); err != nil {
		return err
	}
	upgrades := pick(b, 5, 1)
	target := load.Target{Address: ten.Address, Path: "/", Hosts: hosts, Meter: func() time.Duration { return 0 }}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	asked := make(chan *load.Result, 1)
	go func() { asked <- load.AtRate(loading, target, upgradeRate, 0, longest) }()
	var took []float64
	for range upgrades {
		measure.Nap(pick(b, 2*time.Second, 300*time.Millisecond))
		begin := time.Now()
		if err := ten.Upgrade(ctx); err != nil {
			stop()
			<-asked
			return err
		}
		took = append(took, milliseconds(time.Since(begin)))
	}
	measure.Nap(pick(b, 2*time.Second, 300*time.Millisecond))
	stop()
	result := <-asked
	if err := result.Err(); err != nil {
		s.Fail("upgrade: %v", err)
	}
	table := s.Table(fmt.Sprintf("Upgrade under %d requests a second, %d tenants", upgradeRate, len(hosts)),
		"An upgrade ends when the daemon before has ended. Latencies are of all requests.", "",
		report.Metric{Name: "upgrade", Unit: "ms"}, report.Metric{Name: "requests"}, report.Metric{Name: "failed"},
		report.Metric{Name: "p50", Unit: "ms"}, report.Metric{Name: "p99", Unit: "ms"}, report.Metric{Name: "slowest", Unit: "ms"})
	for round, ms := range took {
		table.Add(round, isolation(), report.Values{"upgrade": ms})
	}
	table.Add(0, isolation(), report.Values{
		"requests": float64(result.Answers + result.Failed), "failed": float64(result.Failed),
		"p50": result.Quantile(0.5), "p99": result.Quantile(0.99), "slowest": result.Quantile(1),
	})
	return nil
}
