package daemon_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"tenement/internal/api"
	"tenement/internal/daemon"
)

// buildPrinter compiles a program that answers every request and, once /flood was
// asked, prints n lines within a time.
func buildPrinter(b *testing.B) string {
	b.Helper()
	return compile(b, `package main

import (
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("ok")) })
	http.HandleFunc("/flood", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		within, _ := time.ParseDuration(r.FormValue("within"))
		out := os.Stdout
		if r.FormValue("to") == "null" {
			out, _ = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		}
		go flood(out, n, within)
	})
	http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil)
}

// flood prints as programs do whose output is no terminal: in portions of a buffer, each
// program in a rhythm of its own. What it prints costs it little, for it is not what is
// measured.
func flood(out *os.File, n int, within time.Duration) {
	const portion = 32
	rhythm := within * portion / time.Duration(n)
	begin := time.Now().Add(rand.N(rhythm))
	var text []byte
	for i := 0; i < n; {
		time.Sleep(time.Until(begin.Add(within * time.Duration(i) / time.Duration(n))))
		now := time.Now().Format(time.RFC3339Nano)
		text = text[:0]
		for end := min(i+portion, n); i < end; i++ {
			text = append(append(text, now...), " INFO request id="...)
			text = strconv.AppendUint(text, uint64(uint32(i*2654435761)), 16)
			text = strconv.AppendInt(append(text, " method=GET path=/api/v1/items/"...), int64(i*7%5000), 10)
			text = strconv.AppendInt(append(text, " status=200 took="...), int64(i%500), 10)
			text = strconv.AppendInt(append(text, "ms line="...), int64(i), 10)
			text = append(text, '\n')
		}
		out.Write(text)
	}
}
`)
}

const (
	floodTenants = 50
	calmTenants  = 4
	floodRate    = 200 // requests a second to those that print, and as many to the calm ones
	floodRounds  = 12
)

// serveApart is build with the daemon in a process of its own.
func serveApart(b *testing.B, text string) *site {
	b.Helper()
	s := &site{t: b, dir: shortDir(b)}
	ten, config := filepath.Join(s.dir, "ten"), filepath.Join(s.dir, "tenement.toml")
	s.write(config, text, 0o600)
	compiler := exec.Command("go", "build", "-o", ten, "tenement/cmd/ten")
	compiler.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compiler.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	serve := exec.Command(ten, "serve", "--config", config, "--data-dir", s.dir)
	serve.Stderr = os.Stderr
	stdout, err := serve.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		b.Fatal(err)
	}
	s.stop = sync.OnceFunc(func() {
		_ = serve.Process.Signal(syscall.SIGTERM)
		if err := serve.Wait(); err != nil {
			b.Error(err)
		}
	})
	b.Cleanup(s.stop)
	s.address = readAddress(b, stdout, nil)
	s.http = &http.Client{Transport: s.transport()}
	if s.api, err = api.NewClient(api.Target{Socket: filepath.Join(daemon.StateDir(s.dir), "ten.sock")}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.api.CloseIdleConnections)
	return s
}

// BenchmarkFlood has fifty tenants print, a million lines a minute in all, while
// requests go to them at a constant rate. The same requests while nothing is printed,
// and while all of it goes to /dev/null, take turns with it: the latter shows what fifty
// busy programs cost on this machine without us.
//
// As many requests go to a few calm tenants, which print nothing. They and the client, which
// stands for others on other machines, run ahead of everything (SCHED_FIFO): what these
// requests wait for is the proxy alone, and not a program that has to wait for a core.
//
// Turns are short, so that what the machine itself does meanwhile meets all alike;
// TENEMENT_FLOOD=1m makes each a whole minute, and not five seconds.
func BenchmarkFlood(b *testing.B) {
	during := 5 * time.Second
	if text := os.Getenv("TENEMENT_FLOOD"); text != "" {
		var err error
		if during, err = time.ParseDuration(text); err != nil {
			b.Fatal(err)
		}
	}
	each := int(during.Seconds() * 1_000_000 / 60 / floodTenants)
	program := buildPrinter(b)
	for b.Loop() {
		s := serveApart(b, settings+fmt.Sprintf("\n[service.api]\ncommand = %q\nidle_timeout = 0\n", program))
		for n := range floodTenants {
			s.spawn("api:t" + strconv.Itoa(n))
			s.get("http://t" + strconv.Itoa(n) + ".api.localhost/")
		}
		for n := range calmTenants {
			s.spawn("api:calm" + strconv.Itoa(n))
			s.get("http://calm" + strconv.Itoa(n) + ".api.localhost/")
			calm, err := s.api.Instance(b.Context(), id(b, "api:calm"+strconv.Itoa(n)))
			if err != nil {
				b.Fatal(err)
			}
			runAhead(b, calm.PID)
		}
		s.spawn("api:quiet")
		s.get("http://quiet.api.localhost/")
		runAhead(b, os.Getpid())
		load(b, s, during) // until it has its connections, and its heap the size that it needs
		var r floodRun
		for range floodRounds {
			r.round(b, s, during, each)
		}
		r.report(b, s, each)
		s.stop()
	}
}

// floodRun is what was measured, all rounds together.
type floodRun struct {
	quiet, null, flood floodLoad // of the requests of each turn, by what is printed
	searches           []time.Duration
	late               time.Duration // until the last line was there
}

// floodLoad is what requests took, turn by turn.
type floodLoad struct {
	printing [][]time.Duration // those to the tenants that print
	calm     [][]time.Duration // those to tenants that print nothing, and wait for no core
}

func (r *floodRun) round(b *testing.B, s *site, during time.Duration, each int) {
	print := func(to string) {
		for n := range floodTenants {
			s.get(fmt.Sprintf("http://t%d.api.localhost/flood?n=%d&within=%v&to=%s", n, each, during, to))
		}
	}
	r.quiet.add(load(b, s, during))
	print("null")
	r.null.add(load(b, s, during))
	print("log")
	s.get("http://quiet.api.localhost/flood?n=100&within=" + during.String())
	stop := make(chan struct{})
	var searching sync.WaitGroup
	searching.Go(func() { r.searches = append(r.searches, searchUntil(b, s, stop)...) })
	before := arrived(b, s, each)
	r.flood.add(load(b, s, during))
	close(stop)
	searching.Wait()
	end := time.Now()
	for arrived(b, s, each)-before < floodTenants && time.Since(end) < time.Minute {
	}
	r.late = max(r.late, time.Since(end))
}

func (l *floodLoad) add(printing, calm []time.Duration) {
	l.printing, l.calm = append(l.printing, printing), append(l.calm, calm)
}

// load asks at a constant rate, whatever answers take, and gives what each took from
// when it was due.
func load(b *testing.B, s *site, during time.Duration) (printing, calm []time.Duration) {
	n := int(during.Seconds() * floodRate)
	printing, calm = make([]time.Duration, n), make([]time.Duration, n)
	begin := time.Now()
	var asking sync.WaitGroup
	ask := func(name string, i, half int, took []time.Duration) {
		due := begin.Add(time.Duration(2*i+half) * time.Second / (2 * floodRate))
		time.Sleep(time.Until(due)) //nolint:forbidigo // a constant rate
		asking.Go(func() {
			if status, _, err := s.ask(b.Context(), "http://"+name+".api.localhost/"); err != nil || status != 200 {
				b.Error(status, err)
			}
			took[i] = time.Since(due)
		})
	}
	for i := range n {
		ask("t"+strconv.Itoa(i%floodTenants), i, 0, printing)
		ask("calm"+strconv.Itoa(i%calmTenants), i, 1, calm)
	}
	asking.Wait()
	return printing, calm
}

// runAhead has a process run whenever it can, until the benchmark ends.
func runAhead(b *testing.B, pid int) {
	b.Helper()
	if out, err := exec.Command("chrt", "--all-tasks", "--fifo", "--pid", "10", strconv.Itoa(pid)).CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	b.Cleanup(func() { _ = exec.Command("chrt", "--all-tasks", "--other", "--pid", "0", strconv.Itoa(pid)).Run() })
}

var floodSearches = []api.LogOptions{
	{Search: "items 3521"},
	{Search: "line=77"},
	{Search: "nothing has this"},
	{Search: `"status 200" took`},
	{Search: "id=9e37*"},
}

func searchUntil(b *testing.B, s *site, stop chan struct{}) []time.Duration {
	var list []time.Duration
	for n := 0; ; n++ {
		select {
		case <-stop:
			return list
		case <-time.After(200 * time.Millisecond):
		}
		list = append(list, searchOnce(b, s, n))
	}
}

func searchOnce(b *testing.B, s *site, n int) time.Duration {
	o := floodSearches[n%len(floodSearches)]
	if n%3 == 0 {
		o.Instance = id(b, "api:t7")
	}
	begin := time.Now()
	if _, err := s.api.Logs(b.Context(), o); err != nil {
		b.Error(err)
	}
	return time.Since(begin)
}

// arrived is how many times a tenant's last line is in the log.
func arrived(b *testing.B, s *site, each int) int {
	n := 0
	for t := range floodTenants {
		lines, err := s.api.Logs(b.Context(), api.LogOptions{Instance: id(b, "api:t"+strconv.Itoa(t)), Search: fmt.Sprintf("line=%d", each-1), Limit: floodRounds})
		if err != nil {
			b.Fatal(err)
		}
		n += len(lines)
	}
	return n
}

// stored counts the lines of an instance that are in the log.
func stored(b *testing.B, s *site, instance string) int {
	o := api.LogOptions{Instance: id(b, instance), Search: "line", After: 1, Limit: 10_000}
	for n := 0; ; {
		lines, err := s.api.Logs(b.Context(), o)
		if err != nil {
			b.Fatal(err)
		}
		n += len(lines)
		if len(lines) < o.Limit {
			return n
		}
		o.After = lines[len(lines)-1].ID
	}
}

func (r *floodRun) report(b *testing.B, s *site, each int) {
	var after []time.Duration
	for n := range 50 {
		after = append(after, searchOnce(b, s, n))
	}
	missing := 0
	for t := range floodTenants {
		missing += floodRounds*each - stored(b, s, "api:t"+strconv.Itoa(t))
	}
	if n := stored(b, s, "api:quiet"); n != 100*floodRounds {
		b.Errorf("the quiet tenant has %d lines", n)
	}
	var disk int64
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(filepath.Join(daemon.StateDir(s.dir), "logs.db"+suffix))
		if err != nil {
			b.Fatal(err)
		}
		disk += info.Size()
	}
	reportRatios(b, "", r.quiet.printing, r.null.printing, r.flood.printing)
	reportRatios(b, "calm-", r.quiet.calm, r.null.calm, r.flood.calm)
	b.ReportMetric(milliseconds(median(r.searches)), "search-p50-ms")
	b.ReportMetric(milliseconds(percentile(r.searches, 100)), "search-max-ms")
	b.ReportMetric(milliseconds(percentile(after, 100)), "search-after-max-ms")
	b.ReportMetric(r.late.Seconds(), "all-there-after-s")
	b.ReportMetric(float64(disk)/(1<<20), "disk-MiB")
	b.ReportMetric(float64(missing), "missing-lines")
}

// reportRatios reports what requests took of the turns in which nothing was printed, or to
// /dev/null, or to us, and the last in relation to each of the others.
func reportRatios(b *testing.B, which string, quiet, null, flood [][]time.Duration) {
	for _, percent := range []int{95, 99} {
		p := "p" + strconv.Itoa(percent)
		of := func(name string, turns [][]time.Duration) float64 {
			all := milliseconds(percentile(slices.Concat(turns...), percent))
			b.ReportMetric(all, which+name+"-"+p+"-ms")
			return all
		}
		quiet, null, flood := of("quiet", quiet), of("null", null), of("flood", flood)
		b.ReportMetric(flood/quiet, which+"flood/quiet-"+p)
		b.ReportMetric(flood/null, which+"flood/null-"+p)
	}
}
