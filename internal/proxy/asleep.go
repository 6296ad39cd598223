package proxy

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tenement"
)

// Some requests are not worth a wake: those of scanners, crawlers and monitors. While an
// instance sleeps they are answered here; it sees them when it is awake.

// verdict is what becomes of a request whose instance sleeps.
type verdict uint8

const (
	wakes   verdict = iota
	told            // 200: it sleeps
	refused         // 503: come back later
	absent          // 404: nobody is to ask for that
)

// ignoredRetry is when those who are refused may come back. Crawlers do: a status of 503
// costs a site nothing in their eyes unless it lasts for days.
const ignoredRetry = time.Hour

// What the requests of cron lines say (package agenda), and nobody else's: it is taken away
// from them, on either way through the proxy.
const (
	cronHeader   = "X-Tenement-Cron"
	cronAtHeader = "X-Tenement-Cron-Time"
)

// sparesWake answers a request for id that is not to wake it, if it sleeps; false: the
// request takes its usual way.
func (h *Handler) sparesWake(w http.ResponseWriter, r *http.Request, id tenement.InstanceID) bool {
	delete(r.Header, cronHeader)
	delete(r.Header, cronAtHeader)
	if h.config.Resting == nil {
		return false
	}
	service := h.config.Resting(id)
	if service == nil {
		return false
	}
	v := judge(service, r)
	if v == wakes {
		return false
	}
	healthyAt, ok := h.config.Asleep(r.Context(), id)
	if !ok {
		return false
	}
	switch v {
	case told:
		tellAsleep(w, r, healthyAt)
	case refused:
		notWoken.write(w, r, ignoredRetry)
	case absent:
		notThere.write(w, r, 0)
	}
	return true
}

// judge applies the rules of a service. It allocates nothing.
func judge(s *tenement.Service, r *http.Request) verdict {
	rules, agent := &s.Wake, r.UserAgent()
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		if asksHealth(s, r) {
			if rules.Health {
				return wakes
			}
			return told
		}
		if namesOneOf(agent, rules.Monitors) {
			return told
		}
	}
	for _, method := range rules.Methods {
		if method == r.Method {
			return refused
		}
	}
	for _, pattern := range rules.Paths {
		if matches(pattern, r.URL.Path) {
			return refusedPath(r.URL.Path)
		}
	}
	if namesOneOf(agent, rules.UserAgents) {
		return refused
	}
	return wakes
}

// asksHealth reports whether the request is for the health path. The home page is none,
// though it may be configured as one: people ask for it.
func asksHealth(s *tenement.Service, r *http.Request) bool {
	path, _, _ := strings.Cut(s.Health.Path, "?")
	return len(path) > 1 && r.URL.Path == path
}

// refusedPath: to crawlers a robots.txt that is not there allows everything, which the
// application's own might not; for one that cannot be had now they come again.
func refusedPath(path string) verdict {
	if path == "/robots.txt" {
		return refused
	}
	return absent
}

// matches reports whether pattern stands for path.
func matches(pattern, path string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(path, prefix)
	}
	return pattern == path
}

// maxAgent is how much of a User-Agent is looked at, in bytes: strangers choose its length.
const maxAgent = 512

// namesOneOf reports whether agent contains one of the words, which are in lower case.
func namesOneOf(agent string, words []string) bool {
	agent = agent[:min(len(agent), maxAgent)]
	for _, word := range words {
		if containsFold(agent, word) {
			return true
		}
	}
	return false
}

// containsFold is [strings.Contains] for a word in lower case, and a text in any.
func containsFold(text, word string) bool {
	for i := 0; i+len(word) <= len(text); i++ {
		n := 0
		for n < len(word) && lower(text[i+n]) == word[n] {
			n++
		}
		if n == len(word) {
			return true
		}
	}
	return false
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

var (
	asleepValue = []string{string(tenement.CodeAsleep)}
	jsonType    = []string{"application/json"}
)

// tellAsleep says, to whoever watches over an instance, that it is as it should be.
func tellAsleep(w http.ResponseWriter, r *http.Request, healthyAt time.Time) {
	body, err := json.Marshal(struct {
		Status    string     `json:"status"`
		HealthyAt *time.Time `json:"last_healthy_at"` // null: it was never started
	}{"asleep", timeOrNil(healthyAt)})
	if err != nil {
		panic(err) // a text and a time
	}
	body = append(body, '\n')
	h := w.Header()
	h[codeHeader] = asleepValue
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
	h["Content-Type"] = jsonType
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // nobody is left to tell
	}
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}
