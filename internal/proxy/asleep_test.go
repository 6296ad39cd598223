package proxy

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tenement"
)

// rules are those of the tests, in the form that the configuration gives them.
func rules() tenement.WakeRules {
	return tenement.WakeRules{
		Paths:      []string{"/favicon.ico", "/robots.txt", "/.git/*"},
		UserAgents: []string{"crawlbot"},
		Monitors:   []string{"uptimething"},
		Methods:    []string{"OPTIONS"},
	}
}

var wellAt = time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)

// asleepFront serves api:alice, which asleep says to sleep or not.
func asleepFront(t *testing.T, change func(*tenement.Service), asleep bool, lives ...*life) *front {
	t.Helper()
	service := &tenement.Service{Name: "api", Wake: rules(), Health: tenement.HealthCheck{Path: "/up"}}
	change(service)
	return newFront(t, lives, func(_ *world, c *Config) {
		c.Ready = nil // or its fake process would answer
		c.Resting = func(tenement.InstanceID) *tenement.Service { return service }
		c.Asleep = func(context.Context, tenement.InstanceID) (time.Time, bool) { return wellAt, asleep }
	})
}

func TestWhoDoesNotWake(t *testing.T) {
	t.Parallel()
	woken := func() *life {
		return newTenant(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	}
	asIs := func(*tenement.Service) {}
	healthWakes := func(s *tenement.Service) { s.Wake.Health = true }
	home := func(s *tenement.Service) { s.Health.Path = "/" }
	query := func(s *tenement.Service) { s.Health.Path = "/up?deep=1" }
	for name, c := range map[string]struct {
		change              func(*tenement.Service)
		method, path, agent string
		want                int
	}{
		"a person":                 {asIs, "GET", "/", "Mozilla/5.0", 418},
		"says nothing":             {asIs, "GET", "/", "", 418},
		"favicon":                  {asIs, "GET", "/favicon.ico", "Mozilla/5.0", 404},
		"below favicon":            {asIs, "GET", "/favicon.ico/x", "", 418},
		"robots":                   {asIs, "GET", "/robots.txt", "", 503},
		"begins so":                {asIs, "POST", "/.git/HEAD", "", 404},
		"query":                    {asIs, "GET", "/favicon.ico?v=2", "", 404},
		"crawler":                  {asIs, "GET", "/page", "Mozilla/5.0 (compatible; CrawlBot/2.1; +http://x)", 503},
		"crawler posts":            {asIs, "POST", "/page", "crawlbot", 503},
		"hides behind a long text": {asIs, "GET", "/", strings.Repeat("x", maxAgent) + "crawlbot", 418},
		"method":                   {asIs, "OPTIONS", "/page", "", 503},
		"health":                   {asIs, "GET", "/up", "curl", 200},
		"health, with a query":     {asIs, "GET", "/up?x", "", 200},
		"health, HEAD":             {asIs, "HEAD", "/up", "", 200},
		"health, POST":             {asIs, "POST", "/up", "", 418},
		"health wakes":             {healthWakes, "GET", "/up", "UptimeThing/1", 418},
		"health is the home page":  {home, "GET", "/", "", 418},
		"health has a query":       {query, "GET", "/up", "", 200},
		"monitor":                  {asIs, "GET", "/page", "UptimeThing/1", 200},
		"monitor posts":            {asIs, "POST", "/page", "UptimeThing/1", 418},
		"monitor, home page":       {home, "GET", "/", "UptimeThing/1", 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := asleepFront(t, c.change, true, woken())
			r := f.request(t, c.method, c.path, nil)
			r.Header.Set("User-Agent", c.agent)
			res, body := f.do(t, r)
			if res.StatusCode != c.want {
				t.Fatalf("%d, want %d", res.StatusCode, c.want)
			}
			acquired, _ := f.counts()
			if wakes := c.want == 418; wakes != (acquired == 1) || wakes == (res.Header.Get(codeHeader) == string(tenement.CodeAsleep)) {
				t.Errorf("%d leases, header %v", acquired, res.Header)
			}
			if retry := res.Header.Get("Retry-After"); (c.want == 503) != (retry == "3600") {
				t.Errorf("Retry-After %q", retry)
			}
			if c.want == 200 && c.method == http.MethodGet {
				wantAsleep(t, body, wellAt.Truncate(time.Second))
			}
		})
	}
}

func wantAsleep(t *testing.T, body string, at time.Time) {
	t.Helper()
	var said struct {
		Status    string     `json:"status"`
		HealthyAt *time.Time `json:"last_healthy_at"`
	}
	if err := json.Unmarshal([]byte(body), &said); err != nil || said.Status != "asleep" || said.HealthyAt == nil || !said.HealthyAt.Equal(at) {
		t.Errorf("%s, %v", body, err)
	}
}

// TestAwakeSeesEverything: so does what is not registered, and its answer is the usual one.
func TestAwakeSeesEverything(t *testing.T) {
	t.Parallel()
	tenant := newTenant(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	f := asleepFront(t, func(*tenement.Service) {}, false, tenant)
	for _, path := range []string{"/up", "/favicon.ico", "/robots.txt"} {
		if res, _ := f.get(t, path); res.StatusCode != http.StatusTeapot {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
}

// TestNotWokenWithABody: a body that nobody reads does not keep the connection waiting.
func TestNotWokenWithABody(t *testing.T) {
	t.Parallel()
	f := asleepFront(t, func(*tenement.Service) {}, true)
	c := f.raw(t)
	c.send("POST /.git/config HTTP/1.1", "Host: "+aliceHost, "Content-Length: 1000000", "", "begun")
	if res := c.response(http.MethodPost); res.StatusCode != http.StatusNotFound || !res.Close {
		t.Errorf("%d, close %v", res.StatusCode, res.Close)
	}
}

func TestJudgeIsCheap(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "http://x/page", nil)
	r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36")
	s := &tenement.Service{Wake: rules(), Health: tenement.HealthCheck{Path: "/up"}}
	if n := testing.AllocsPerRun(100, func() { judge(s, r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
