package telemetry

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"tenement"
)

var (
	alice = tenement.InstanceID{Service: "api", Name: "alice"}
	bob   = tenement.InstanceID{Service: "api", Name: "bob"}
)

// newMetrics are of a daemon with a ledger, in which something has happened.
func newMetrics(l *Ledger) *Metrics {
	m := New(Sources{
		Version: "v1.2.3",
		Instances: func() (map[tenement.State]int, error) {
			return map[tenement.State]int{tenement.Asleep: 100_000, tenement.Ready: 2}, nil
		},
		Held:      func() int { return 3 },
		LogBytes:  func() int64 { return 4096 },
		SpansLost: func() int64 { return 3 },
		Ledger:    func() *Ledger { return l },
	})
	m.Served("api", 200, 3*time.Millisecond, 10, 2000)
	m.Served("api", 200, 30*time.Millisecond, 0, 0)
	m.Served("api", 999, time.Second, 0, 0)
	m.Served("", 404, time.Millisecond, 0, 0)
	m.Woken(&tenement.WakeRecord{Instance: alice, Cause: tenement.CauseRequest, Queue: time.Millisecond, Outcome: tenement.WakeOK})
	m.Woken(&tenement.WakeRecord{Instance: alice, Cause: tenement.CauseSchedule, Outcome: "unavailable"})
	m.FirstByte(alice, 20*time.Millisecond)
	m.Started(alice)
	m.Crashed(alice)
	m.Slept(alice, "idle")
	m.OutOfMemory(alice)
	m.Lost(2)
	return m
}

func textOf(t *testing.T, m *Metrics) string {
	t.Helper()
	text, err := m.Text()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestText(t *testing.T) {
	t.Parallel()
	l := NewLedger()
	l.Served(alice, 200, time.Millisecond, 1, 2)
	l.Look(0, func(each func(tenement.InstanceID, time.Time, tenement.Usage)) {
		each(alice, time.Now(), tenement.Usage{CPU: 1500 * time.Millisecond, Memory: 1 << 20})
	})
	l.Measured(alice, 8192)
	l.Served(bob, 200, time.Millisecond, 0, 0) // which has slept again since
	text := textOf(t, newMetrics(l))
	for _, line := range []string{
		`tenement_build_info{version="v1.2.3"} 1`,
		`tenement_requests_total{code="200",service="api"} 2`,
		`tenement_requests_total{code="other",service="api"} 1`,
		`tenement_requests_total{code="404",service=""} 1`,
		`tenement_request_duration_seconds_bucket{service="api",le="0.005"} 1`,
		`tenement_request_duration_seconds_count{service="api"} 3`,
		`tenement_request_bytes_total{service="api"} 10`,
		`tenement_response_bytes_total{service="api"} 2000`,
		`tenement_wakes_total{cause="request",outcome="ok",service="api"} 1`,
		`tenement_wakes_total{cause="schedule",outcome="unavailable",service="api"} 1`,
		`tenement_wake_phase_duration_seconds_count{phase="queue",service="api"} 1`,
		`tenement_wake_phase_duration_seconds_count{phase="first_byte",service="api"} 1`,
		`tenement_starts_total{service="api"} 1`,
		`tenement_crashes_total{service="api"} 1`,
		`tenement_oom_kills_total{service="api"} 1`,
		`tenement_sleeps_total{reason="idle",service="api"} 1`,
		`tenement_wake_records_lost_total 2`,
		`tenement_trace_spans_lost_total 3`,
		`tenement_instances{state="asleep"} 100000`,
		`tenement_instances{state="ready"} 2`,
		`tenement_instances{state="failed"} 0`,
		`tenement_held_requests 3`,
		`tenement_log_bytes_total 4096`,
		`tenement_instance_cpu_seconds_total{name="alice",service="api"} 1.5`,
		`tenement_instance_memory_bytes{name="alice",service="api"} 1.048576e+06`,
		`tenement_instance_storage_bytes{name="alice",service="api"} 8192`,
		`tenement_instance_requests_total{name="alice",service="api"} 1`,
		`tenement_instance_requests_total{name="bob",service="api"} 1`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("there is no line %s", line)
		}
	}
	if !strings.Contains(text, "\ngo_goroutines ") {
		t.Error("nothing is said of the daemon itself")
	}
	if strings.Contains(text, `tenement_instance_memory_bytes{name="bob"`) {
		t.Error("what has no process has memory")
	}
}

// TestLint holds every metric against the conventions of Prometheus.
func TestLint(t *testing.T) {
	t.Parallel()
	problems, err := promlint.New(strings.NewReader(textOf(t, newMetrics(NewLedger())))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestPromtool is TestLint by the program that operators have.
func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), "promtool") {
			t.Fatal("TENEMENT_REQUIRE: there is no promtool")
		}
		t.Skip("no promtool: install prometheus (Debian: apt-get install prometheus)")
	}
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(textOf(t, newMetrics(NewLedger())))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestSeriesOfRemovedServices disappear.
func TestSeriesOfRemovedServices(t *testing.T) {
	t.Parallel()
	m := newMetrics(NewLedger())
	m.Served("old", 200, time.Second, 1, 1)
	m.Forget([]string{"old"})
	if text := textOf(t, m); strings.Contains(text, `service="old"`) || !strings.Contains(text, `service="api"`) {
		t.Errorf("%s", text)
	}
	m.Served("old", 200, time.Second, 1, 1) // it is back
	if !strings.Contains(textOf(t, m), `tenement_requests_total{code="200",service="old"} 1`) {
		t.Error("it is not counted anew")
	}
}

// TestUnknownCounts: what cannot be told is left out, and nothing else.
func TestUnknownCounts(t *testing.T) {
	t.Parallel()
	m := newMetrics(NewLedger())
	m.sources.Instances = func() (map[tenement.State]int, error) { return nil, errors.New("the disk fails") }
	if text := textOf(t, m); strings.Contains(text, "tenement_instances{") || !strings.Contains(text, "\ntenement_held_requests 3\n") {
		t.Errorf("%s", text)
	}
}

func TestCountingIsFree(t *testing.T) {
	l := NewLedger()
	m := newMetrics(l)
	count := func() {
		m.Served("api", 200, time.Millisecond, 0, 1024)
		l.Served(alice, 200, time.Millisecond, 0, 1024)
	}
	count()
	if n := testing.AllocsPerRun(100, count); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// described is each metric of ours with its labels, as the collectors describe it.
func described(m *Metrics) map[string]string {
	known := map[string]string{}
	form := regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)
	out := make(chan *prometheus.Desc, 100)
	for _, c := range append(slices.Clone(m.registration), m) {
		c.Describe(out)
	}
	close(out)
	for d := range out {
		found := form.FindStringSubmatch(d.String())
		labels := strings.Split(found[2], ",")
		slices.Sort(labels)
		known[found[1]] = strings.Join(labels, " ")
	}
	return known
}

// TestDocumented: docs/metrics.md has a row for each metric, with its labels, and for no other.
func TestDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for line := range bytes.Lines(text) {
		cells := strings.Split(string(line), "|")
		if len(cells) < 4 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`tenement_") {
			continue
		}
		labels := strings.FieldsFunc(cells[2], func(r rune) bool { return strings.ContainsRune("`, ", r) })
		slices.Sort(labels)
		documented[strings.Trim(cells[1], "` ")] = strings.Join(labels, " ")
	}
	if diff := cmp.Diff(described(newMetrics(NewLedger())), documented); diff != "" {
		t.Errorf("docs/metrics.md (-there is +documented):\n%s", diff)
	}
}

// BenchmarkText is one scrape with 1,000 awake instances that were looked at before.
func BenchmarkText(b *testing.B) {
	l := NewLedger()
	l.Look(0, func(each func(tenement.InstanceID, time.Time, tenement.Usage)) {
		for n := range 1000 {
			each(tenement.InstanceID{Service: "api", Name: "i" + strconv.Itoa(n)}, time.Now(), tenement.Usage{CPU: time.Second, Memory: 1 << 20})
		}
	})
	m := newMetrics(l)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Text(); err != nil {
			b.Fatal(err)
		}
	}
}
