package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
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
	"fmt"
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
		go flood(n, within)
	})
	http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil)
}

// flood prints in small portions, a few lines at a time, as programs do.
func flood(n int, within time.Duration) {
	const portion = 7
	begin := time.Now()
	for i := 0; i < n; i++ {
		if i%portion == 0 {
			time.Sleep(time.Until(begin.Add(within * time.Duration(i) / time.Duration(n))))
		}
		fmt.Printf("%s INFO request id=%08x method=GET path=/api/v1/items/%d status=200 took=%dms line=%d\n",
			time.Now().Format(time.RFC3339Nano), uint32(i*2654435761), i*7%5000, i%500, i)
	}
}
`)
}

const (
	floodTenants = 50
	floodRate    = 200 // requests a second
)

// BenchmarkFlood has fifty tenants print, a million lines a minute in all, while
// requests go to them at a constant rate; the same requests before are the quiet run.
// TENEMENT_FLOOD=1m makes it a whole minute, and not ten seconds.
func BenchmarkFlood(b *testing.B) {
	during := 10 * time.Second
	if text := os.Getenv("TENEMENT_FLOOD"); text != "" {
		var err error
		if during, err = time.ParseDuration(text); err != nil {
			b.Fatal(err)
		}
	}
	each := int(during.Seconds() * 1_000_000 / 60 / floodTenants)
	program := buildPrinter(b)
	for b.Loop() {
		s := build(b, settings+fmt.Sprintf("\n[service.api]\ncommand = %q\nidle_timeout = 0\n", program))
		for n := range floodTenants {
			s.spawn("api:t" + strconv.Itoa(n))
			s.get("http://t" + strconv.Itoa(n) + ".api.localhost/")
		}
		s.spawn("api:quiet")
		s.get("http://quiet.api.localhost/flood?n=100&within=" + during.String())
		quiet := load(b, s, during)
		for n := range floodTenants {
			s.get(fmt.Sprintf("http://t%d.api.localhost/flood?n=%d&within=%v", n, each, during))
		}
		s.get("http://quiet.api.localhost/flood?n=100&within=" + during.String())
		stop := make(chan struct{})
		var searches []time.Duration
		var searching sync.WaitGroup
		searching.Go(func() { searches = searchUntil(b, s, stop) })
		flood := load(b, s, during)
		close(stop)
		searching.Wait()
		end := time.Now()
		for total := 0; total < floodTenants && time.Since(end) < time.Minute; total = arrived(b, s, each) {
		}
		report(b, s, quiet, flood, searches, time.Since(end), each)
		s.stop()
	}
}

// load asks at a constant rate, whatever answers take, and gives what each took from
// when it was due.
func load(b *testing.B, s *site, during time.Duration) []time.Duration {
	n := int(during.Seconds() * floodRate)
	took := make([]time.Duration, n)
	begin := time.Now()
	var asking sync.WaitGroup
	for i := range n {
		due := begin.Add(time.Duration(i) * time.Second / floodRate)
		time.Sleep(time.Until(due)) //nolint:forbidigo // a constant rate
		asking.Go(func() {
			if status, _, err := s.ask(b.Context(), fmt.Sprintf("http://t%d.api.localhost/", i%floodTenants)); err != nil || status != 200 {
				b.Error(status, err)
			}
			took[i] = time.Since(due)
		})
	}
	asking.Wait()
	return took
}

var floodSearches = []api.LogOptions{
	{Search: "items 3521"},
	{Search: "line=77"},
	{Search: "nothing has this"},
	{Search: `"status 200" took`},
	{Search: "id=0000000*"},
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

// arrived is how many tenants have their last line in the log.
func arrived(b *testing.B, s *site, each int) int {
	n := 0
	for t := range floodTenants {
		lines, err := s.api.Logs(b.Context(), api.LogOptions{Instance: id(b, "api:t"+strconv.Itoa(t)), Search: fmt.Sprintf("line=%d", each-1), Limit: 1})
		if err != nil {
			b.Fatal(err)
		}
		n += len(lines)
	}
	return n
}

func report(b *testing.B, s *site, quiet, flood, searches []time.Duration, late time.Duration, each int) {
	var after []time.Duration
	for n := range 50 {
		after = append(after, searchOnce(b, s, n))
	}
	missing := 0
	for t := range floodTenants {
		lines, err := s.api.Logs(b.Context(), api.LogOptions{Instance: id(b, "api:t"+strconv.Itoa(t)), Limit: 10_000})
		if err != nil {
			b.Fatal(err)
		}
		missing += min(each, 10_000) - len(lines)
	}
	lines, err := s.api.Logs(b.Context(), api.LogOptions{Instance: id(b, "api:quiet"), Search: "line", Limit: 1000})
	if err != nil || len(lines) != 200 {
		b.Errorf("the quiet tenant has %d lines, %v", len(lines), err)
	}
	var disk int64
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(filepath.Join(daemon.StateDir(s.dir), "logs.db"+suffix))
		if err != nil {
			b.Fatal(err)
		}
		disk += info.Size()
	}
	b.ReportMetric(milliseconds(median(quiet)), "quiet-p50-ms")
	b.ReportMetric(milliseconds(percentile(quiet, 99)), "quiet-p99-ms")
	b.ReportMetric(milliseconds(median(flood)), "flood-p50-ms")
	b.ReportMetric(milliseconds(percentile(flood, 99)), "flood-p99-ms")
	b.ReportMetric(float64(percentile(flood, 99))/float64(percentile(quiet, 99)), "p99-ratio")
	b.ReportMetric(milliseconds(median(searches)), "search-p50-ms")
	b.ReportMetric(milliseconds(percentile(searches, 100)), "search-max-ms")
	b.ReportMetric(milliseconds(percentile(after, 100)), "search-after-max-ms")
	b.ReportMetric(late.Seconds(), "all-there-after-s")
	b.ReportMetric(float64(disk)/(1<<20), "disk-MiB")
	b.ReportMetric(float64(missing), "missing-lines")
}
