package daemon_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/daemon"
	"tenement/internal/runtime/runtimetest"
	"tenement/internal/store"
)

// measures waits for the metrics to have all these lines.
func (s *site) measures(lines ...string) string {
	s.t.Helper()
	var text []byte
	runtimetest.Eventually(s.t, "the metrics say "+strings.Join(lines, ", "), func() bool {
		var err error
		if text, err = s.api.Metrics(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
		for _, line := range lines {
			if !strings.Contains(string(text), "\n"+line) {
				return false
			}
		}
		return true
	})
	return string(text)
}

// wakes waits for n records.
func (s *site) wakes(n int) []api.Wake {
	s.t.Helper()
	var page api.Wakes
	runtimetest.Eventually(s.t, "the wakes are on record", func() bool {
		var err error
		if page, err = s.api.Wakes(s.t.Context(), api.WakeOptions{}); err != nil {
			s.t.Fatal(err)
		}
		return len(page.Wakes) == n
	})
	return page.Wakes
}

// usage is what one instance has used in all.
func (s *site) usage(text string) (sum api.UsageHour) {
	s.t.Helper()
	page, err := s.api.Usage(s.t.Context(), api.UsageOptions{Instance: id(s.t, text)})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, u := range page.Hours {
		sum.AwakeSeconds += u.AwakeSeconds
		sum.Requests += u.Requests
		sum.BytesIn += u.BytesIn
		sum.BytesOut += u.BytesOut
	}
	return sum
}

// TestTelemetry follows one wake and one request of each way through everything that is
// known of them, and a restart of the daemon.
func TestTelemetry(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	text := settings + "access_log = 'access.log'\n" + service("api", "health = '/health'\nserver_timing = true")
	s := buildIn(t, dir, text)
	s.spawn("api:alice", "api:bob")
	answer, err := s.http.Get("http://alice.api.localhost/pid?x=1")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if timing := answer.Header.Get("Server-Timing"); !strings.HasPrefix(timing, "queue;dur=") {
		t.Errorf("Server-Timing %q", timing)
	}
	answer, err = s.http.Post("http://alice.api.localhost/echo", "text/plain", strings.NewReader("12345"))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if timing := answer.Header.Get("Server-Timing"); timing != "" {
		t.Errorf("Server-Timing of who has not waited: %q", timing)
	}
	s.get("http://alice.api.localhost/health") // on the direct way
	s.wants("http://alice.none.localhost/", http.StatusNotFound)

	s.measures(
		`tenement_requests_total{code="200",service="api"} 3`,
		`tenement_requests_total{code="404",service=""} 1`,
		`tenement_wakes_total{cause="request",outcome="ok",service="api"} 1`,
		`tenement_wake_phase_duration_seconds_count{phase="first_byte",service="api"} 1`,
		`tenement_starts_total{service="api"} 1`,
		`tenement_instances{state="ready"} 1`,
		`tenement_instances{state="asleep"} 1`,
		`tenement_instance_requests_total{name="alice",service="api"} 3`,
	)
	w := s.wakes(1)[0]
	if w.Instance != alice || w.Cause != tenement.CauseRequest || w.Client != "loopback" || w.Path != "/pid" || w.UserAgent != "Go-http-client/1.1" {
		t.Errorf("woken by %+v", w)
	}
	if w.Outcome != "ok" || w.Shared != 1 || w.SpawnMS <= 0 || w.ReadyMS <= 0 || w.FirstByteMS <= 0 {
		t.Errorf("the record is %+v", w)
	}

	if err := s.api.Stop(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	s.measures(`tenement_sleeps_total{reason="stopped",service="api"} 1`, `tenement_instances{state="asleep"} 2`)
	used := s.usage("api:alice")
	if used.Requests != 3 || used.BytesIn != 5 || used.BytesOut < 5 || used.AwakeSeconds <= 0 {
		t.Errorf("used %+v", used)
	}
	s.usage("api:alice") // which closes the account
	if text := s.measures("go_goroutines "); strings.Contains(text, "tenement_instance_requests_total{") {
		t.Error("what sleeps has a series")
	}

	s.stop()
	s = buildIn(t, dir, text)
	if again := s.wakes(1)[0]; again != w {
		t.Errorf("after a restart the record is %+v", again)
	}
	if again := s.usage("api:alice"); again != used {
		t.Errorf("after a restart it has used %+v", again)
	}
	wantAccessLog(t, filepath.Join(dir, "access.log"))
}

// wantAccessLog reads what TestTelemetry has left.
func wantAccessLog(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines:\n%s", len(lines), text)
	}
	type line struct {
		Time     time.Time
		Instance string
		Client   string
		Method   string
		Target   string
		Status   int
		BytesIn  int64   `json:"bytes_in"`
		WakeMS   float64 `json:"wake_ms"`
	}
	var got [4]line
	for i, text := range lines {
		if err := json.Unmarshal([]byte(text), &got[i]); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
	}
	first := got[0]
	if first.Instance != "api:alice" || first.Client != "127.0.0.1" || first.Method != "GET" || first.Target != "/pid?x=1" || first.Status != 200 || first.WakeMS <= 0 || first.Time.IsZero() {
		t.Errorf("the first line is %s", lines[0])
	}
	if got[1].Method != "POST" || got[1].BytesIn != 5 || got[1].WakeMS != 0 || got[3].Instance != "" || got[3].Status != 404 {
		t.Errorf("the lines are\n%s", text)
	}
}

// TestStorageIsNoted of what is awake, in metrics and in usage.
func TestStorageIsNoted(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", "idle_timeout = 0"))
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/health")
	if err := os.WriteFile(filepath.Join(s.dir, "api", "alice", "data"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s.measures(`tenement_instance_storage_bytes{name="alice",service="api"} 1.0`)
	page, err := s.api.Usage(t.Context(), api.UsageOptions{})
	if err != nil || len(page.Hours) == 0 {
		t.Fatal(page, err)
	}
	if got := page.Hours[len(page.Hours)-1].StorageBytes; got < 1<<20 || got > 2<<20 {
		t.Errorf("%d bytes", got)
	}
}

// TestUsageIsHandedOn: what a tenant has used under one daemon is known to the next.
func TestUsageIsHandedOn(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	text := settings + service("api", "")
	s := buildWith(t, dir, text, true)
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/health")
	s.stop() // the tenant lives on
	if booked := bookedIn(t, dir); len(booked) != 1 || booked[0].Awake <= 0 || booked[0].Requests != 1 {
		t.Errorf("the daemon before has booked %+v", booked)
	}
	s = buildIn(t, dir, text)
	if used := s.usage("api:alice"); used.Requests != 1 || used.AwakeSeconds <= 0 {
		t.Errorf("used %+v under the daemon before", used)
	}
	if w := s.wakes(1)[0]; w.Outcome != "ok" {
		t.Errorf("the record is %+v", w)
	}
}

// TestTimeline is an instance's last hour, and the machine's, as they come.
func TestTimeline(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/health")
	var line api.Timeline
	// The first sample comes after a quarter of a minute.
	runtimetest.Eventually(t, "there is a sample of what is awake", func() bool {
		var err error
		if line, err = s.api.Timeline(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		return len(line.Samples) > 0
	})
	first := line.Samples[0]
	if line.StepSeconds != 15 || first.Requests != 1 || first.Errors != 0 || first.MedianMS <= 0 || first.P95MS < first.MedianMS || first.Memory <= 0 {
		t.Errorf("%+v", line)
	}
	var states []string
	for _, c := range line.Changes {
		states = append(states, c.From.String()+" to "+c.To.String())
	}
	if got := strings.Join(states, ", "); got != "asleep to starting, starting to ready" {
		t.Errorf("it went from %s", got)
	}
	box, err := s.api.BoxTimeline(t.Context())
	if err != nil || len(box.Samples) == 0 || box.Samples[0].Awake != 1 || box.Samples[0].Requests != 1 || box.Samples[0].Available <= 0 {
		t.Errorf("%+v, %v", box, err)
	}
	if err := s.api.Delete(t.Context(), alice, false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.api.Timeline(t.Context(), alice); tenement.CodeOf(err) != tenement.CodeNotFound {
		t.Errorf("deleted: %v", err)
	}
	s.spawn("api:alice")
	if line, err := s.api.Timeline(t.Context(), alice); err != nil || len(line.Samples) != 0 {
		t.Errorf("another one of its name has done %+v, %v", line, err)
	}
}

// bookedIn is what the daemon that had dir has written down of usage.
func bookedIn(t *testing.T, dir string) []tenement.UsageHour {
	t.Helper()
	s, err := store.Open(t.Context(), daemon.StateDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rows, _, err := s.Usage(t.Context(), tenement.UsageQuery{})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
