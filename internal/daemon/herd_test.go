package daemon_test

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"tenement"
)

// herdSize is how many customers come at the same instant, unless TENEMENT_HERD says so.
const herdSize = 100

// herdProgram is a customer's program in a language that is slow to start.
const herdProgram = `import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '2')
        self.end_headers()
        self.wfile.write(b'ok')
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
`

// BenchmarkHerd asks for many sleeping Python programs at the same instant and sets this
// beside the same programs without us, executed all at once and asked until each has
// answered, and beside the start of a single one; all in turn, a single start first.
// Reported are the ratios of the medians: our first answer to a single start without us,
// our last one to the last without us; then milliseconds.
func BenchmarkHerd(b *testing.B) {
	for _, isolation := range []tenement.Isolation{tenement.IsolationProcess, tenement.IsolationNamespace} {
		b.Run(string(isolation), func(b *testing.B) { benchmarkHerd(b, isolation) })
	}
}

func benchmarkHerd(b *testing.B, isolation tenement.Isolation) {
	h := newHerd(b, isolation)
	var single, first, last, bareFirst, bareLast []time.Duration
	for b.Loop() {
		alone := herdTimes(h.bare(b, 1))
		single = append(single, alone.last)
		ours := herdTimes(h.wake(b))
		first, last = append(first, ours.first), append(last, ours.last)
		h.sleep(b)
		theirs := herdTimes(h.bare(b, len(h.names)))
		bareFirst, bareLast = append(bareFirst, theirs.first), append(bareLast, theirs.last)
	}
	ratio := func(a, b []time.Duration) float64 { return float64(median(a)) / float64(median(b)) }
	b.ReportMetric(ratio(first, single), "first/single")
	b.ReportMetric(ratio(last, bareLast), "last/bare-last")
	b.ReportMetric(ratio(bareFirst, single), "bare-first/single")
	for name, times := range map[string][]time.Duration{
		"single-ms": single, "first-ms": first, "last-ms": last, "bare-first-ms": bareFirst, "bare-last-ms": bareLast,
	} {
		b.ReportMetric(milliseconds(median(times)), name)
	}
}

// herd is many customers of one service, asleep.
type herd struct {
	site   *site
	names  []string
	python string
	script string
}

func newHerd(b *testing.B, isolation tenement.Isolation) *herd {
	b.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv("TENEMENT_HERD"), strconv.Itoa(herdSize)))
	if err != nil {
		b.Fatal(err)
	}
	const python = "/usr/bin/python3" // the system's, which an isolated program sees as well
	if _, err := os.Stat(python); err != nil {
		b.Skipf("%v (apt-get install python3)", err)
	}
	h := &herd{python: python, script: filepath.Join(b.TempDir(), "app.py")}
	if err := os.WriteFile(h.script, []byte(herdProgram), 0o644); err != nil { //nolint:gosec // isolated instances read it as other users
		b.Fatal(err)
	}
	h.site = build(b, settings+fmt.Sprintf("\n[service.api]\ncommand = %q\nisolation = %q\nreadable = [%q]\nstartup_timeout = 120\n",
		python+" "+h.script, isolation, filepath.Dir(h.script)))
	for i := range n {
		name := "c" + strconv.Itoa(i)
		h.names = append(h.names, name)
		h.site.spawn("api:" + name)
	}
	return h
}

// wake gives how long each answer took since all were asked for.
func (h *herd) wake(b *testing.B) []time.Duration {
	b.Helper()
	return atOnce(len(h.names), func(i int) error {
		status, body, err := h.site.ask(b.Context(), "http://"+h.names[i]+".api.localhost/")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d %s", status, body)
		}
		if err != nil {
			b.Error(err)
		}
		return err
	})
}

func (h *herd) sleep(b *testing.B) {
	b.Helper()
	atOnce(len(h.names), func(i int) error {
		err := h.site.api.Stop(b.Context(), id(b, "api:"+h.names[i]))
		if err != nil {
			b.Error(err)
		}
		return err
	})
}

// atOnce does something n times at the same instant, and gives how long each took.
func atOnce(n int, do func(i int) error) []time.Duration {
	took := make([]time.Duration, n)
	var ready, all sync.WaitGroup
	start := make(chan struct{})
	var begin time.Time
	ready.Add(n)
	for i := range n {
		all.Go(func() {
			ready.Done()
			<-start
			_ = do(i) // it has been reported
			took[i] = time.Since(begin)
		})
	}
	ready.Wait()
	begin = time.Now()
	close(start)
	all.Wait()
	return took
}

// bare is wake for n programs that nobody keeps from starting all at once.
func (h *herd) bare(b *testing.B, n int) []time.Duration {
	b.Helper()
	addresses, commands := freeAddresses(b, n), make([]*exec.Cmd, n)
	for i, address := range addresses {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			b.Fatal(err)
		}
		commands[i] = exec.Command(h.python, h.script)
		commands[i].Env = []string{"PORT=" + port, "PATH=/usr/bin:/bin"}
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	defer func() {
		for _, command := range commands {
			if command.Process != nil {
				_ = command.Process.Kill()
				_ = command.Wait() // killed: an error by design
			}
		}
	}()
	return atOnce(n, func(i int) error {
		err := commands[i].Start()
		if err == nil {
			err = untilAnswered(b.Context(), client, addresses[i])
		}
		if err != nil {
			b.Error(err)
		}
		return err
	})
}

// untilAnswered asks every 5 ms: often enough for programs that take 50 and more, and so
// seldom that asking takes nothing from those that start.
func untilAnswered(ctx context.Context, client *http.Client, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return err
	}
	for {
		answer, err := client.Do(request)
		if err == nil {
			return answer.Body.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

func freeAddresses(b *testing.B, n int) []string {
	b.Helper()
	addresses := make([]string, n)
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = l.Close() }() // at the end, so that none is given twice
		addresses[i] = l.Addr().String()
	}
	return addresses
}

// extremes are the first and the last answer of a herd.
type extremes struct{ first, last time.Duration }

func herdTimes(took []time.Duration) extremes {
	return extremes{percentile(took, 0), percentile(took, 100)}
}
