package daemon_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"tenement/internal/daemon"
	"tenement/internal/probe"
	"tenement/internal/store"
)

// buildTenant compiles a Go program such as a customer would have: the tenant
// program inside this test binary carries the whole daemon and starts slower.
func buildTenant(b *testing.B) string {
	b.Helper()
	return compile(b, `package main

import (
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("ok")) })
	http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil)
}
`)
}

// compile gives the path of a program.
func compile(b *testing.B, text string) string {
	b.Helper()
	dir := b.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	program := filepath.Join(dir, "tenant")
	build := exec.Command("go", "build", "-o", program, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return program
}

// BenchmarkColdStart puts a request to a sleeping instance beside the bare start of
// the same program, taken in turn: exec to the first byte of an answer. It reports the
// medians in milliseconds; the difference is what tenement adds.
func BenchmarkColdStart(b *testing.B) {
	program := buildTenant(b)
	s := build(b, settings+fmt.Sprintf("\n[service.api]\ncommand = %q\n", program))
	s.spawn("api:alice")
	var cold, bare []time.Duration
	for b.Loop() {
		cold = append(cold, wake(b, s))
		bare = append(bare, bareStart(b, program))
	}
	b.ReportMetric(milliseconds(median(cold)), "cold-ms")
	b.ReportMetric(milliseconds(median(bare)), "bare-ms")
	b.ReportMetric(milliseconds(median(cold)-median(bare)), "added-ms")
	b.ReportMetric(milliseconds(percentile(cold, 99)), "cold-p99-ms")
}

// bareStart is the time from exec to the first answer of program, without tenement.
func bareStart(b *testing.B, program string) time.Duration {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	command := exec.Command(program)
	command.Env = []string{"PORT=" + port}
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = command.Process.Kill()
		_ = command.Wait() // killed: an error by design
	}()
	if err := probe.Ready(b.Context(), probe.Target{Dial: dialTo(address), Path: "/"}); err != nil {
		b.Fatal(err)
	}
	return time.Since(begin)
}

// BenchmarkAddedLatency sends kept-alive requests to one tenant, in turn through the
// daemon and straight to its port, and reports both medians in microseconds.
func BenchmarkAddedLatency(b *testing.B) {
	program := buildTenant(b)
	s := build(b, settings+fmt.Sprintf("\n[service.api]\ncommand = %q\n", program))
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/")
	direct := "http://127.0.0.1:" + strconv.Itoa(s.instance("api:alice").Port) + "/"
	straight := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer straight.CloseIdleConnections()
	var through, around []time.Duration
	for b.Loop() {
		through = append(through, timeOf(b, s.http, "http://alice.api.localhost/"))
		around = append(around, timeOf(b, straight, direct))
	}
	b.ReportMetric(float64(median(through).Microseconds()), "through-µs")
	b.ReportMetric(float64(median(around).Microseconds()), "direct-µs")
	b.ReportMetric(float64((median(through) - median(around)).Microseconds()), "added-µs")
}

func timeOf(b *testing.B, c *http.Client, url string) time.Duration {
	b.Helper()
	begin := time.Now()
	answer, err := c.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	if closeErr := answer.Body.Close(); err != nil || closeErr != nil || answer.StatusCode != http.StatusOK {
		b.Fatal(answer.Status, err, closeErr)
	}
	return time.Since(begin)
}

// BenchmarkWakeAmong100000 is BenchmarkColdStart's request with 100,000 others asleep.
func BenchmarkWakeAmong100000(b *testing.B) {
	program := buildTenant(b)
	text := settings + fmt.Sprintf("\n[service.api]\ncommand = %q\n", program)
	few, many := build(b, text), buildIn(b, fullDir(b, 100_000), text)
	var alone, among []time.Duration
	for _, s := range []*site{few, many} {
		s.spawn("api:alice")
	}
	for b.Loop() {
		alone = append(alone, wake(b, few))
		among = append(among, wake(b, many))
	}
	b.ReportMetric(milliseconds(median(alone)), "alone-ms")
	b.ReportMetric(milliseconds(median(among)), "among-ms")
}

// wake times one request to alice, asleep, and puts her back to sleep.
func wake(b *testing.B, s *site) time.Duration {
	b.Helper()
	begin := time.Now()
	s.get("http://alice.api.localhost/")
	took := time.Since(begin)
	if err := s.api.Stop(b.Context(), id(b, "api:alice")); err != nil {
		b.Fatal(err)
	}
	return took
}

// fullDir is a data directory in which n instances are registered.
func fullDir(b *testing.B, n int) string {
	b.Helper()
	dir := shortDir(b)
	s, err := store.Open(b.Context(), daemon.StateDir(dir))
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		if _, err := s.Register(b.Context(), id(b, "api:c"+strconv.Itoa(i)), time.Now()); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	return dir
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func median(all []time.Duration) time.Duration { return percentile(all, 50) }

func percentile(all []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)*p/100, len(sorted)-1)]
}

// BenchmarkUnknownHost asks for customers nobody registered, beside a host that is not
// ours at all, which costs no more than the server and the routing table.
func BenchmarkUnknownHost(b *testing.B) {
	s := build(b, settings+service("api", ""))
	for name, host := range map[string]string{"customer": "nobody%d.api.localhost", "domain": "nobody%d.api.example.com"} {
		b.Run(name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				n++
				s.wants("http://"+fmt.Sprintf(host, n)+"/", http.StatusNotFound)
			}
		})
	}
}

// BenchmarkRestartWith1000Awake is the time from the start of a daemon until it serves,
// with 1,000 processes of the one before to take over.
func BenchmarkRestartWith1000Awake(b *testing.B) {
	const awake = 1000
	program, dir := buildTenant(b), shortDir(b)
	text := settings + fmt.Sprintf("\n[service.api]\ncommand = %q\nidle_timeout = 0\n", program)
	s := buildWith(b, dir, text, true)
	pids := make(map[int]bool)
	for n := range awake {
		s.spawn(fmt.Sprint("api:c", n))
		s.get(fmt.Sprintf("http://c%d.api.localhost/", n))
		pids[s.instance(fmt.Sprint("api:c", n)).PID] = true
	}
	if len(pids) != awake {
		b.Fatalf("%d processes", len(pids))
	}
	var took []time.Duration
	for b.Loop() {
		s.stop()
		begun := time.Now()
		s = buildWith(b, dir, text, true)
		took = append(took, time.Since(begun))
	}
	for n := range awake {
		if pid := s.instance(fmt.Sprint("api:c", n)).PID; !pids[pid] {
			b.Fatalf("process %d is new", pid)
		}
	}
	b.ReportMetric(float64(median(took))/1e6, "ms-until-served")
	s.stop()
	buildIn(b, dir, text).stop() // which puts them all to sleep
}
