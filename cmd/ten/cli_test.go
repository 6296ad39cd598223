package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
	"tenement/internal/api"
)

// outcome is what one run of the program left.
type outcome struct {
	status         int
	stdout, stderr string
}

// ten runs the program against a daemon that is only the handler.
func ten(t *testing.T, daemon http.Handler, args ...string) outcome {
	t.Helper()
	server := httptest.NewServer(daemon)
	defer server.Close()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), append(args, "--server", server.URL, "--token", "ten_x"), &stdout, &stderr)
	return outcome{status, stdout.String(), stderr.String()}
}

// answers is a daemon that has one answer for each "METHOD /path" and 404 for others.
func answers(rows map[string]any) http.Handler {
	mux := http.NewServeMux()
	for pattern, value := range rows {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { write(w, 200, "application/json", value) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem(w, 404, tenement.CodeNotFound, "find it: "+r.URL.Path, "")
	})
	return mux
}

func write(w http.ResponseWriter, status int, kind string, value any) {
	w.Header().Set("Content-Type", kind)
	if value == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // the test reads what arrives
}

func problem(w http.ResponseWriter, status int, code tenement.Code, detail, hint string) {
	write(w, status, "application/problem+json", api.Problem{Status: status, Code: code, Detail: detail, Hint: hint})
}

var alice = api.Instance{
	ID: tenement.InstanceID{Service: "api", Name: "alice"}, State: tenement.Ready, Health: tenement.HealthHealthy,
	URL: "http://alice.api.localhost", PID: 42,
}

func TestExitStatusFollowsTheCode(t *testing.T) {
	t.Parallel()
	for code, want := range map[tenement.Code]int{
		tenement.CodeInvalid: 2, tenement.CodeNotFound: 3, tenement.CodeUnauthenticated: 4, tenement.CodeForbidden: 4,
		tenement.CodeUnreachable: 5, tenement.CodeConflict: 1, tenement.CodeTimeout: 1, tenement.CodeInternal: 1,
	} {
		daemon := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			problem(w, code.HTTPStatus(), code, "start api:alice: \x1b[2Jno", "do\x1bthis")
		})
		got := ten(t, daemon, "start", "api:alice")
		if diff := cmp.Diff(outcome{want, "", "error: start api:alice: \\x1b[2Jno\nhint: do\\x1bthis\n"}, got, cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", code, diff)
		}
	}
}

func TestChangesAreConfirmed(t *testing.T) {
	t.Parallel()
	daemon := answers(map[string]any{
		"GET /api/instances/{id}":           alice,
		"DELETE /api/instances/{id}":        nil,
		"POST /api/instances/{id}/{action}": nil,
		"PUT /api/instances/{id}/weight":    nil,
		"POST /api/instances/spawn":         alice,
		"POST /api/deploy":                  nil,
		"POST /api/route":                   nil,
		"DELETE /api/tokens/{id}":           nil,
		"POST /api/tokens":                  api.NewSecret{Token: api.Token{ID: "abc", Scope: tenement.RoleAdmin}, Secret: "ten_secret"},
		"GET /api/instances/{id}/health":    api.InstanceHealth{ID: alice.ID, Health: tenement.HealthDegraded, Detail: "status\t500"},
		"GET /api/tokens":                   api.Tokens{Tokens: []api.Token{{ID: "abc", Name: "ci", Scope: tenement.RoleTenant, Tenant: "alice"}, {ID: "def", Scope: tenement.RoleMetrics, ExpiresAt: time.Unix(1, 0)}}},
	})
	for line, want := range map[string]outcome{
		"start api:alice":                 {0, "api:alice\n", ""},
		"stop api:alice":                  {0, "api:alice\n", ""},
		"restart api:alice":               {0, "api:alice\n", ""},
		"suspend api:alice":               {0, "api:alice\n", ""},
		"resume api:alice":                {0, "api:alice\n", ""},
		"delete api:alice --purge":        {0, "api:alice\n", ""},
		"weight api:alice 10":             {0, "api:alice\n", ""},
		"spawn api:alice":                 {0, "api:alice   ready   http://alice.api.localhost\n", ""},
		"deploy api:alice --timeout 5":    {0, "api:alice\n", "deploying api:alice; it gets weight 100 once it is healthy\napi:alice is healthy and has weight 100\n"},
		"route api --from bob --to alice": {0, "api:alice\n", ""},
		"health api:alice":                {1, "api:alice   degraded   status\\t500\n", ""},
		"token revoke abc":                {0, "abc\n", ""},
		"token ls":                        {0, "ID    NAME   SCOPE          CREATED   LAST USED   EXPIRES\nabc   ci     tenant alice   -         -           -\ndef   -      metrics        -         -           expired\n", ""},
		"token-gen":                       {0, "ten_secret\n", "token abc, an admin's: it may do everything, and the newest is also in <data_dir>/.tenement/api_token; it does not expire and is not shown again\n"},
		"weight api:alice 1000":           {0, "api:alice\n", ""},
		"inspect api:nobody":              {3, "", "error: find it: /api/instances/api:nobody/storage\n"},
	} {
		got := ten(t, daemon, strings.Fields(line)...)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("ten %s (-want +got):\n%s", line, diff)
		}
	}
	for _, line := range []string{"start api:alice", "spawn api:alice", "deploy api:alice", "weight api:alice 1"} {
		var in api.Instance
		got := ten(t, daemon, append(strings.Fields(line), "--json")...)
		if err := json.Unmarshal([]byte(got.stdout), &in); err != nil || in.ID != alice.ID {
			t.Errorf("ten %s --json: %v in %s", line, err, got.stdout)
		}
	}
}

func TestPsAsksForAllPages(t *testing.T) {
	t.Parallel()
	var queries []string
	daemon := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		queries = append(queries, r.URL.RawQuery)
		page := api.InstancePage{Instances: []api.Instance{alice}, Next: alice.ID}
		if r.URL.Query().Get("after") != "" {
			page.Instances[0].ID.Name, page.Next = "bob", tenement.InstanceID{}
		}
		write(w, 200, "application/json", page)
	})
	got := ten(t, daemon, "ps", "-a", "--json")
	var list []api.Instance
	if err := json.Unmarshal([]byte(got.stdout), &list); err != nil || len(list) != 2 {
		t.Errorf("%v, %d instances: %s", err, len(list), got.stdout)
	}
	if diff := cmp.Diff([]string{"limit=1000", "after=api%3Aalice&limit=1000"}, queries); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	queries = nil
	if got = ten(t, daemon, "ps"); !strings.HasPrefix(got.stdout, "INSTANCE    STATE   HEALTH ") {
		t.Errorf("table: %s", got.stdout)
	}
	if !strings.HasPrefix(queries[0], "awake=true") {
		t.Errorf("asked %q", queries)
	}
}

func TestPsFilters(t *testing.T) {
	t.Parallel()
	var query string
	daemon := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.RawQuery
		write(w, 200, "application/json", api.InstancePage{Instances: []api.Instance{alice}})
	})
	for line, want := range map[string]string{
		"ps":                                "awake=true&limit=1000",
		"ps -a":                             "limit=1000",
		"ps ali":                            "awake=true&limit=1000&text=ali",
		"ps --state ready,failed":           "limit=1000&state=ready%2Cfailed",
		"ps --state asleep --service api x": "limit=1000&service=api&state=asleep&text=x",
	} {
		if got := ten(t, daemon, strings.Fields(line)...); got.status != 0 || query != want {
			t.Errorf("ten %s asked %s, want %s; status %d %s", line, query, want, got.status, got.stderr)
		}
	}
	if got := ten(t, daemon, "ps", "-q"); got.stdout != "api:alice\n" {
		t.Errorf("-q: %q", got.stdout)
	}
	got := ten(t, daemon, "ps", "--state", "awake")
	if got.status != 2 || !strings.Contains(got.stderr, "hint: the states are asleep, ") {
		t.Errorf("status %d %s", got.status, got.stderr)
	}
}

func TestServicesComplete(t *testing.T) {
	t.Parallel()
	daemon := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page := api.InstancePage{Instances: []api.Instance{alice}}
		switch r.URL.Query().Get("after") {
		case "api:" + lastName:
			page.Instances[0].ID.Service = "web"
		case "web:" + lastName:
			page.Instances = nil
		}
		write(w, 200, "application/json", page)
	})
	server := httptest.NewServer(daemon)
	defer server.Close()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"__complete", "--server", server.URL, "ps", "--service", ""}, &stdout, &stderr)
	if want := "api\nweb\n:4\n"; status != 0 || stdout.String() != want {
		t.Errorf("status %d, %q, want %q", status, stdout.String(), want)
	}
}

func TestEmptyListsAreListsForPrograms(t *testing.T) {
	t.Parallel()
	daemon := answers(map[string]any{
		"GET /api/instances": api.InstancePage{Instances: []api.Instance{}},
		"GET /api/tokens":    api.Tokens{Tokens: []api.Token{}},
	})
	for _, args := range [][]string{{"ps", "--json"}, {"token", "ls", "--json"}} {
		if got := ten(t, daemon, args...); got.stdout != "[]\n" {
			t.Errorf("%v: %q", args, got.stdout)
		}
	}
}

// TestNothingOfTenantsReachesTheTerminal sends what moves cursors, sets titles and
// reorders text through everything that shows tenants' words.
func TestNothingOfTenantsReachesTheTerminal(t *testing.T) {
	t.Parallel()
	nasty := "a\x1b]0;title\a b\u009b2J c\u202edc\rd\x7fe\xff"
	in := alice
	in.Reason = nasty
	daemon := answers(map[string]any{
		"GET /api/instances/{id}":         in,
		"GET /api/instances/{id}/storage": api.Storage{ID: alice.ID, Path: "/data", UsedBytes: 1536},
		"GET /api/instances/{id}/settings": api.Settings{
			ID: alice.ID, Env: map[string]any{nasty: nasty}, Secrets: []string{nasty}, Values: map[string]any{"memory_limit_mb": 2097152},
		},
		"GET /api/instances/{id}/health": api.InstanceHealth{ID: alice.ID, Health: tenement.HealthHealthy, Detail: nasty},
		"GET /api/logs":                  api.LogLines{Lines: []api.LogLine{{At: time.Unix(0, 0), Instance: alice.ID, Level: "stdout", Text: nasty + "\ttab"}}},
		"GET /api/events":                api.Events{Events: []api.Event{{Actor: nasty, Action: nasty, Target: nasty, Outcome: "ok", Detail: nasty}}},
	})
	for _, line := range []string{"inspect api:alice", "health api:alice", "logs", "logs api:alice --json", "events", "events --json", "inspect api:alice --json"} {
		got := ten(t, daemon, strings.Fields(line)...)
		if got.status != 0 || !strings.Contains(got.stdout, "title") {
			t.Errorf("ten %s: status %d\n%s%s", line, got.status, got.stdout, got.stderr)
		}
		if strings.ContainsAny(got.stdout, "\x1b\a\u009b\r\x7f") {
			t.Errorf("ten %s lets control characters through: %q", line, got.stdout)
		}
		if strings.Contains(got.stdout, "\u202e") && !strings.Contains(line, "--json") {
			t.Errorf("ten %s lets text be reordered: %q", line, got.stdout)
		}
	}
	got := ten(t, daemon, "logs")
	if want := "api:alice stdout  a\\x1b]0;title\\x07 b\\u009b2J c\\u202edc\\rd\\x7fe\ufffd\ttab\n"; !strings.HasSuffix(got.stdout, want) {
		t.Errorf("logs: %q, want the end %q", got.stdout, want)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	var query string
	at := time.Date(2026, 1, 31, 15, 4, 5, 0, time.Local)
	daemon := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.Path + "?" + r.URL.RawQuery
		write(w, 200, "application/json", api.Events{Events: []api.Event{
			{ID: 1, At: at, Actor: "token:abc", From: "192.0.2.1", Action: "stop", Target: "api:alice", Outcome: "conflict", Detail: "not now"},
			{ID: 2, At: at, Actor: "daemon", Action: "sleep", Target: "api:alice", Outcome: "ok"},
		}})
	})
	got := ten(t, daemon, "events", "api:alice", "--actor", "daemon", "--action", "stop", "--limit", "7", "--since", "2026-01-01T00:00:00Z")
	want := "2026-01-31 15:04:05  token:abc (192.0.2.1)           stop          api:alice         conflict: not now\n" +
		"2026-01-31 15:04:05  daemon                          sleep         api:alice         ok\n"
	if diff := cmp.Diff(outcome{0, want, ""}, got, cmp.AllowUnexported(outcome{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if want := "/api/events?action=stop&actor=daemon&instance=api%3Aalice&limit=7&since=2026-01-01T00%3A00%3A00Z"; query != want {
		t.Errorf("asked %s, want %s", query, want)
	}
	if got := ten(t, daemon, "events", "--json"); strings.Count(got.stdout, "\n") != 2 || !strings.Contains(got.stdout, `{"id":2,`) {
		t.Errorf("%s", got.stdout)
	}
}

func TestInstancesComplete(t *testing.T) {
	t.Parallel()
	var query string
	daemon := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.RawQuery
		bob := alice
		bob.ID.Name = "bob"
		write(w, 200, "application/json", api.InstancePage{Instances: []api.Instance{alice, bob}})
	})
	server := httptest.NewServer(daemon)
	defer server.Close()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"__complete", "--server", server.URL, "stop", "api:a"}, &stdout, &stderr)
	if want := "api:alice\tready\n:4\n"; status != 0 || stdout.String() != want {
		t.Errorf("status %d, %q, want %q", status, stdout.String(), want)
	}
	if query != "limit=1000&service=api" {
		t.Errorf("asked %q", query)
	}
}

func TestDeployShowsProgress(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/deploy", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-asked: // deployed once somebody looked
		case <-r.Context().Done():
		}
		write(w, 204, "", nil)
	})
	looks := 0
	mux.HandleFunc("GET /api/instances/{id}", func(w http.ResponseWriter, _ *http.Request) {
		in := alice
		in.State = tenement.Starting
		if looks++; looks == 2 {
			close(asked)
		}
		write(w, 200, "application/json", in)
	})
	got := ten(t, mux, "deploy", "api:alice")
	if got.status != 0 || strings.Count(got.stderr, "api:alice: starting") != 1 || strings.Contains(got.stderr, "\x1b") {
		t.Errorf("status %d:\n%s", got.status, got.stderr)
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"5": 5 * time.Second, "0.5": time.Second / 2, "90d": 90 * 24 * time.Hour, "1h": time.Hour, "250ms": 250 * time.Millisecond, "1.5d": 36 * time.Hour,
	} {
		var s span
		if err := s.Set(text); err != nil || time.Duration(s) != want {
			t.Errorf("Set(%q) = %v, %v", text, time.Duration(s), err)
		}
	}
	for _, text := range []string{"", "0", "-1", "d", "1y", "NaN", "Inf", "1e300d", "-1h", "1e12d"} {
		var s span
		if err := s.Set(text); err == nil {
			t.Errorf("Set(%q) = %v", text, time.Duration(s))
		}
	}
}

func TestAges(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000_000, 0)
	for d, want := range map[time.Duration]string{
		0: "0s ago", 59 * time.Second: "59s ago", time.Minute: "1m ago", 59 * time.Minute: "59m ago",
		time.Hour: "1h ago", 47 * time.Hour: "47h ago", 48 * time.Hour: "2d ago", -time.Hour: "0s ago",
	} {
		if got := ago(now.Add(-d), now); got != want {
			t.Errorf("ago(%v) = %q, want %q", d, got, want)
		}
	}
	got := []string{ago(time.Time{}, now), until(time.Time{}, now), until(now.Add(-1), now), until(now.Add(90*time.Second), now)}
	if diff := cmp.Diff([]string{"-", "-", "now", "in 1m"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[tenement.Bytes]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1 << 60: "1048576.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestPortRange(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]verdict{"32768\t60999\n": verdictOK, "1024 65535": verdictWarn, "15000 20000": verdictWarn, "1024 10239": verdictOK} {
		first, last, err := portRange(text)
		if err != nil || portFinding(first, last)[0].Verdict != want {
			t.Errorf("%q: %d to %d, %v, %+v", text, first, last, err, portFinding(first, last))
		}
	}
	for _, text := range []string{"", "1", "a b", "1 b"} {
		if _, _, err := portRange(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

// TestCronLine: what inspect shows of a line is what set takes.
func TestCronLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0 3 * * mon /jobs": "", " @daily  /?a=b ": "@daily /?a=b", "off": "", "* * * * * / timezone=Europe/Berlin timeout=90 method=PUT": "* * * * * / method=PUT timeout=90 timezone=Europe/Berlin",
	} {
		line, ok := cronLine(text)
		if want == "" {
			want = text
		}
		if got := shownLine(line); !ok || got != want {
			t.Errorf("%q is %v, %q", text, ok, got)
		}
	}
	for _, text := range []string{"", "/jobs", "0 3 * * *", "@daily / PUT", "@daily / path=/", "@daily / a=1 a=2", "OFF"} {
		if line, ok := cronLine(text); ok {
			t.Errorf("%q is %v", text, line)
		}
	}
}
