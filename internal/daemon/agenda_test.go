package daemon_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/config"
	"tenement/internal/runtime/runtimetest"
)

// wishes is what an instance is told that is set for it.
type wishes struct {
	Instance  tenement.InstanceID
	BusyUntil time.Time `json:"busy_until"`
	Alarms    []struct {
		Name string
		At   time.Time
	}
	Cron []struct{ Name, Path string }
}

// alice has her program ask something of the daemon.
func (s *site) aliceAsks(method, path string) string {
	s.t.Helper()
	return s.get("http://alice.api.localhost/ask?method=" + method + "&path=" + url.QueryEscape(path))
}

// aliceWishes wants that to be granted, and gives what is set then.
func (s *site) aliceWishes(method, path string) (w wishes) {
	s.t.Helper()
	body, ok := strings.CutPrefix(s.aliceAsks(method, path), "200 ")
	if err := json.Unmarshal([]byte(body), &w); err != nil || !ok {
		s.t.Fatalf("%s %s: %s", method, path, body)
	}
	if w.Instance != id(s.t, "api:alice") {
		s.t.Errorf("she passes for %s", w.Instance)
	}
	return w
}

// TestBusy: a program that works is not put to sleep until it says so, whichever daemon has it.
func TestBusy(t *testing.T) {
	t.Parallel()
	for isolation := range map[tenement.Isolation]bool{tenement.IsolationProcess: true, config.DefaultIsolation(): true} {
		t.Run(string(isolation), func(t *testing.T) {
			t.Parallel()
			dir, text := shortDir(t), settings+service("api", "health = '/health'\nidle_timeout = '300ms'\nisolation = '"+string(isolation)+"'")
			s := buildWith(t, dir, text, true)
			s.spawn("api:alice", "api:bob")
			begun := time.Now()
			if w := s.aliceWishes("POST", "/busy?for=1h"); w.BusyUntil.Before(begun.Add(time.Hour)) || w.BusyUntil.After(time.Now().Add(time.Hour)) {
				t.Errorf("busy until %v", w.BusyUntil)
			}
			pid := s.instance("api:alice").PID
			s.othersSleep()
			if i := s.instance("api:alice"); i.PID != pid || i.BusyUntil.IsZero() || i.Leases != 0 {
				t.Errorf("she is %+v", i)
			}
			s.stop()

			s = buildIn(t, dir, text)
			s.othersSleep()
			if i := s.instance("api:alice"); i.PID != pid || i.State != tenement.Ready {
				t.Errorf("under another daemon she is %+v", i)
			}
			if w := s.aliceWishes("POST", "/busy?for=0"); !w.BusyUntil.IsZero() {
				t.Errorf("she has ended it, and is busy until %v", w.BusyUntil)
			}
			s.until("api:alice", tenement.Asleep)
			gone(t, pid)
		})
	}
}

// othersSleep wakes bob and waits until he sleeps again: so long have others had no traffic.
func (s *site) othersSleep() {
	s.t.Helper()
	s.pid("bob.api.localhost")
	s.until("api:bob", tenement.Asleep)
}

// TestAlarm: an instance is woken when it has wished, though the daemon is another one.
func TestAlarm(t *testing.T) {
	t.Parallel()
	dir, text := shortDir(t), settings+service("api", "health = '/health'\nidle_timeout = '200ms'")
	s := buildIn(t, dir, text)
	s.spawn("api:alice")
	s.aliceWishes("POST", "/alarm?at=%2B1h&name=late")
	s.aliceWishes("POST", "/alarm?at=+90m")
	w := s.aliceWishes("DELETE", "/alarm?name=late")
	if len(w.Alarms) != 1 || w.Alarms[0].Name != "alarm" || time.Until(w.Alarms[0].At) < 85*time.Minute {
		t.Errorf("her alarms are %+v", w.Alarms)
	}
	at := time.Now().Add(time.Second)
	s.aliceWishes("POST", "/alarm?name=soon&at="+url.QueryEscape(at.Format(time.RFC3339Nano)))
	s.stop()

	s = buildIn(t, dir, text)
	runtimetest.Eventually(t, "she is woken", func() bool {
		i := s.instance("api:alice")
		return i.State == tenement.Ready && !i.StartedAt.Before(at)
	})
	s.until("api:alice", tenement.Asleep)
	if w := s.aliceWishes("GET", "/"); len(w.Alarms) != 1 {
		t.Errorf("her alarms are %+v", w.Alarms)
	}
}

// TestRefusedWishes: what cannot be granted is answered with the reason.
func TestRefusedWishes(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", "health = '/health'"))
	s.spawn("api:alice")
	for path, status := range map[string]string{
		"/busy": "400", "/busy?for=-1s": "400", "/busy?for=soon": "400", "/busy?for=25h": "400",
		"/alarm": "400", "/alarm?at=noon": "400", "/alarm?at=-10m": "400", "/alarm?at=9000h": "400", "/alarm?at=1m&name=a+b": "400",
		"/other": "404", "/": "405",
	} {
		if got := s.aliceAsks("POST", path); !strings.HasPrefix(got, status+" ") {
			t.Errorf("POST %s: %s", path, got)
		}
	}
	if w := s.aliceWishes("GET", "/"); len(w.Alarms) != 0 || !w.BusyUntil.IsZero() {
		t.Errorf("what was refused is set: %+v", w)
	}
}

// TestCron: at the next full minute every sleeping instance is asked, by whichever daemon
// there is, and sleeps again afterwards.
func TestCron(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	text := settings + service("api", "health = '/health'\nidle_timeout = '300ms'\n[service.api.cron]\nevery = { schedule = '* * * * *', path = '/headers', spread = 0 }") + service("other", "")
	s := buildIn(t, dir, text)
	s.spawn("api:alice", "api:bob", "other:carol")
	if next := s.instance("api:alice").NextCronAt; next.IsZero() || !next.Equal(next.Truncate(time.Minute)) {
		t.Errorf("the next run is at %v", next)
	}
	s.stop()

	begun := time.Now()
	s = buildIn(t, dir, text)
	for _, name := range []string{"api:alice", "api:bob"} {
		run := s.awaitCron(name)
		if !strings.HasPrefix(run.Text, "tenement: cron every: POST /headers: 200 OK, after ") {
			t.Errorf("%s: %q", name, run.Text)
		}
		if run.At.Before(begun.Truncate(time.Minute).Add(time.Minute)) {
			t.Errorf("%s was asked at %v, before the next minute after %v", name, run.At, begun)
		}
		s.until(name, tenement.Asleep)
	}
	if st := s.instance("other:carol"); !st.HealthyAt.IsZero() || !st.NextCronAt.IsZero() {
		t.Errorf("carol, who has no cron line, is %+v", st)
	}
}

// awaitCron waits for the first run of a cron line on an instance, and gives its outcome.
func (s *site) awaitCron(name string) api.LogLine {
	s.t.Helper()
	deadline, tick := timeout(s.t, 3*time.Minute), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		<-tick.C // the minute may have just begun
		lines, err := s.api.Logs(deadline, api.LogOptions{Instance: id(s.t, name), Search: "cron"})
		if err != nil {
			s.t.Fatalf("no run of %s: %v", name, err)
		}
		if len(lines) > 0 {
			return lines[0]
		}
	}
}

// TestCronHeaderIsOurs: a program may believe it.
func TestCronHeaderIsOurs(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	s.spawn("api:alice")
	for range 3 { // the first one wakes it, the others find it ready
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://alice.api.localhost/headers", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Tenement-Cron", "nightly")
		request.Header.Set("x-tenement-cron-time", "nightly")
		answer, err := s.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close() // all was read
		if err != nil || strings.Contains(string(body), "nightly") || !strings.Contains(string(body), "alice.api.localhost") {
			t.Errorf("the program sees %s, %v", body, err)
		}
	}
}

// TestCronOfAnInstance: a line of its own comes in the place of its service's, under whichever
// daemon there is, and goes with it.
func TestCronOfAnInstance(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	text := settings + service("api", "health = '/health'\nidle_timeout = '300ms'\n[service.api.cron]\nyearly = { schedule = '@yearly', path = '/headers' }")
	s := buildIn(t, dir, text)
	s.spawn("api:alice", "api:bob")
	yearly := s.instance("api:bob").NextCronAt
	got := s.set("api:alice", api.SettingsChange{Cron: map[string]any{"yearly": map[string]any{"schedule": "* * * * *", "path": "/env", "method": "GET"}}})
	if got.RestartNeeded || len(got.Cron) != 1 {
		t.Errorf("answered %+v", got)
	}
	if next := s.instance("api:alice").NextCronAt; time.Until(next) > time.Minute || yearly.IsZero() {
		t.Errorf("the next runs are at %v and %v", next, yearly)
	}
	if w := s.aliceWishes("GET", "/"); len(w.Alarms) != 0 || len(w.Cron) != 1 || w.Cron[0].Path != "/env" {
		t.Errorf("she is told %+v", w)
	}
	s.until("api:alice", tenement.Asleep)
	s.stop()

	begun := time.Now()
	s = buildIn(t, dir, text)
	run := s.awaitCron("api:alice")
	if !strings.HasPrefix(run.Text, "tenement: cron yearly: GET /env: 200 OK, after ") || run.At.Before(begun.Truncate(time.Minute)) {
		t.Errorf("%v: %q", run.At, run.Text)
	}

	s.set("api:alice", api.SettingsChange{Cron: map[string]any{"yearly": false}})
	if next := s.instance("api:alice").NextCronAt; !next.IsZero() {
		t.Errorf("off, it is run next at %v", next)
	}
	s.set("api:alice", api.SettingsChange{Cron: map[string]any{"yearly": nil, "own": map[string]any{"schedule": "@hourly", "path": "/"}}})
	if next := s.instance("api:alice").NextCronAt; time.Until(next) > time.Hour {
		t.Errorf("the next run is at %v", next)
	}
	if err := s.api.Delete(t.Context(), id(t, "api:alice"), false); err != nil {
		t.Fatal(err)
	}
	s.spawn("api:alice")
	if next := s.instance("api:alice").NextCronAt; !next.Equal(yearly) {
		t.Errorf("of the instance that was deleted, %v", next)
	}
}
