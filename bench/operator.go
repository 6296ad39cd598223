package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"tenement"
	"tenement/bench/measure"
	"tenement/bench/peers"
	"tenement/bench/report"
	"tenement/internal/api"
)

const (
	manyRegistered = 10_000
	manyAwake      = 1000

	// stale is after how long the daemon looks at all processes anew for a scrape: one that
	// comes sooner, as no Prometheus does, is told what the one before was told.
	stale = 5200 * time.Millisecond

	// scrapePace is how often a Prometheus asks.
	scrapePace = 15 * time.Second
)

var operatorMethod = []string{
	"One daemon with 10,000 registered instances, whose rows are written before it starts, of which 1,000 (static Go) are awake and checked for health every ten seconds, as by default.",
	"*Asked*: `GET` is over a kept connection with a token, until the whole answer is there; `ten` is the program from its start to its end, over the daemon's socket. All are asked in turns. " +
		"A round begins when what the daemon knows of the processes is older than it lets that become, so that the first scrape has it look at all of them; *again* is at once after that. " +
		"`ten --version` asks nobody: it is what it takes to start the program.",
	"*Dashboard*: headless Chromium, which is logged in and has the page's parts in its cache, goes to the list anew, and as soon as there are rows it types the name of the last instance into the search field. " +
		"Both times are the page's own, since the navigation began, until the frame after the rows; the field waits 200 ms for more to be typed, which is part of *searched*.",
	"*Idle*: nobody asks for anything, or for `/metrics` alone, every 15 s. *CPU* is user and system time of the daemon, tenants' excluded.",
}

// operated is a daemon with many instances, and who operates it.
type operated struct {
	ten   *peers.Ten
	last  string // the name of the last of its instances
	token string // an admin's
	http  *http.Client
}

func operatorSuite(ctx context.Context, b *bench, s *report.Suite) (err error) {
	s.Method = operatorMethod
	o, err := b.operate(ctx)
	if err != nil {
		return err
	}
	defer func() {
		o.http.CloseIdleConnections()
		err = errors.Join(err, o.ten.Stop())
	}()
	return errors.Join(b.asked(ctx, s, o), b.dashboard(ctx, s, o), b.resting(ctx, s, o))
}

// operate starts the daemon and wakes a tenth of its instances.
func (b *bench) operate(ctx context.Context) (*operated, error) {
	program, ok := b.tenantNamed("go")
	if !ok {
		return nil, errors.New("there is no Go tenant")
	}
	registered, awake := pick(b, manyRegistered, 50), pick(b, manyAwake, 5)
	b.say("%d registered, %d awake", registered, awake)
	dir := filepath.Join(b.dir, "operator")
	if err := register(ctx, filepath.Join(dir, "data", ".tenement"), registered); err != nil {
		return nil, err
	}
	ten, err := peers.StartTen(b.ten, dir, program.Service("api", isolation(), "idle_timeout = 0\nhealth = \"/\""))
	if err != nil {
		return nil, err
	}
	o := &operated{ten: ten, last: "t" + strconv.Itoa(registered-1), http: &http.Client{Transport: &http.Transport{}}}
	err = ten.Wake(ctx, peers.Hosts(awake, "api.localhost")...)
	if err == nil {
		o.token, err = o.newToken(ctx, tenement.RoleAdmin)
	}
	if err != nil {
		return nil, errors.Join(err, ten.Stop())
	}
	return o, nil
}

func (o *operated) newToken(ctx context.Context, role tenement.Role) (string, error) {
	t, err := o.ten.API.CreateToken(ctx, api.TokenOptions{Scope: tenement.Scope{Role: role}})
	return t.Secret, err
}

// url is where the API answers, and the dashboard.
func (o *operated) url() (string, error) {
	_, port, err := net.SplitHostPort(o.ten.Address)
	return "http://localhost:" + port, err
}

// get is the whole answer.
func (o *operated) get(ctx context.Context, token, path string) ([]byte, error) {
	base, err := o.url()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := o.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, resp.Status, body)
	}
	return body, err
}

// run is what the program prints.
func (o *operated) run(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, append(args, "--data-dir", filepath.Dir(o.ten.StateDir()))...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("ten %v: %w: %s", args, err, stderr.Bytes())
	}
	return out, err
}

// question is one of an operator's.
type question struct {
	name string
	ask  func(context.Context) ([]byte, error)
}

const (
	scrape      = "GET /metrics"
	scrapeAgain = "GET /metrics, again"
	tenPS       = "ten ps"
)

// questions are asked in this order: the second scrape comes after the first.
func (b *bench) questions(ctx context.Context, o *operated) ([]question, error) {
	monitor, err := o.newToken(ctx, tenement.RoleMetrics)
	get := func(token, path string) func(context.Context) ([]byte, error) {
		return func(ctx context.Context) ([]byte, error) { return o.get(ctx, token, path) }
	}
	run := func(args ...string) func(context.Context) ([]byte, error) {
		return func(ctx context.Context) ([]byte, error) { return o.run(ctx, b.ten, args...) }
	}
	return []question{
		{scrape, get(monitor, "/metrics")},
		{scrapeAgain, get(monitor, "/metrics")},
		{"GET /api/instances", get(o.token, "/api/instances")},
		{"GET /api/instances, one of all by a text", get(o.token, "/api/instances?text="+url.QueryEscape(o.last))},
		{tenPS, run("ps")},
		{"ten ps --json", run("ps", "--json")},
		{"ten ps -a", run("ps", "-a")},
		{"ten --version", run("--version")},
	}, err
}

func (b *bench) asked(ctx context.Context, s *report.Suite, o *operated) error {
	questions, err := b.questions(ctx, o)
	if err != nil {
		return err
	}
	b.say("asked")
	table := s.Table("Asked", "", "", report.Metric{Name: "answer", Unit: "ms"}, report.Metric{Name: "size", Unit: "KB"}, report.Metric{Name: "series"})
	for round := range pick(b, 30, 1) {
		if err := pause(ctx, pick(b, stale, 0)); err != nil {
			return err
		}
		for _, q := range questions {
			begin := time.Now()
			answer, err := q.ask(ctx)
			took := time.Since(begin)
			if err != nil {
				return err
			}
			values := report.Values{"answer": milliseconds(took), "size": float64(len(answer)) / 1e3}
			if q.name == scrape {
				values["series"] = float64(series(answer))
			}
			table.Add(round, q.name, values)
		}
	}
	for key, name := range map[string]string{report.Scrape: scrape, report.PS: tenPS} {
		answers := table.Row(name).All("answer")
		p50 := report.Median(answers)
		b.outcomes[key] = report.AtMost(fmt.Sprintf("%s ms; p95 %s", report.Number(p50), report.Number(report.Quantile(answers, 0.95))), report.Bound{Value: p50, Milestone: 100})
	}
	return nil
}

// series is how many lines of an answer in the text format of Prometheus are no comments.
func series(text []byte) (n int) {
	for line := range bytes.Lines(text) {
		if line[0] != '#' {
			n++
		}
	}
	return n
}

const (
	unasked = "nobody asks"
	scraped = "a Prometheus asks"
)

// resting measures the daemon while there is nothing to do, and while it is scraped.
func (b *bench) resting(ctx context.Context, s *report.Suite, o *operated) error {
	monitor, err := o.newToken(ctx, tenement.RoleMetrics)
	if err != nil {
		return err
	}
	during, pace := pick(b, time.Minute, 200*time.Millisecond), pick(b, scrapePace, 100*time.Millisecond)
	table := s.Table("Idle", fmt.Sprintf("For %s each time, in turns.", during), "", report.Metric{Name: "CPU", Unit: "% of a core"}, report.Metric{Name: "RSS", Unit: "MB"})
	for round := range pick(b, 3, 1) {
		for _, who := range []string{unasked, scraped} {
			b.say("idle, %s", who)
			begin, before := time.Now(), measure.CPU([]int{o.ten.PID})
			for left := during; left > 0; left = during - time.Since(begin) {
				if err := pause(ctx, min(left, pace)); err != nil {
					return err
				}
				if who == scraped {
					if _, err := o.get(ctx, monitor, "/metrics"); err != nil {
						return err
					}
				}
			}
			cpu := measure.CPU([]int{o.ten.PID}) - before
			memory, err := measure.MemoryOf([]int{o.ten.PID})
			if err != nil {
				return err
			}
			table.Add(round, who, report.Values{"CPU": 100 * cpu.Seconds() / time.Since(begin).Seconds(), "RSS": megabytes(memory.RSS)})
		}
	}
	idle := table.Median(unasked, "CPU")
	b.outcomes[report.OperatorIdle] = report.AtMost(fmt.Sprintf("%s %%; %s %% while scraped", report.Number(idle), report.Number(table.Median(scraped, "CPU"))),
		report.Bound{Value: idle, Milestone: 1})
	return nil
}

// pause waits, unless the run ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
