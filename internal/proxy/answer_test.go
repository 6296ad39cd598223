package proxy

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"tenement"
)

var answers = []*answer{malformed, notFound, stalled, tooLarge, internalError, notImplemented, broken, suspended, unavailable, notWoken, notThere, full, tooSlow}

func TestAnswerForms(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		method string
		header http.Header
		page   bool
	}{
		"browser":              {"GET", http.Header{"Sec-Fetch-Mode": {"navigate"}}, true},
		"form sent":            {"POST", http.Header{"Sec-Fetch-Mode": {"navigate"}}, true},
		"script":               {"GET", http.Header{"Sec-Fetch-Mode": {"cors"}, "Accept": {"text/html"}}, false},
		"old browser":          {"GET", http.Header{"Accept": {"text/html,*/*;q=0.8"}}, true},
		"old browser, HEAD":    {"HEAD", http.Header{"Accept": {"Text/HTML"}}, true},
		"old client posts":     {"POST", http.Header{"Accept": {"text/html"}}, false},
		"curl":                 {"GET", http.Header{"Accept": {"*/*"}}, false},
		"says nothing":         {"GET", http.Header{}, false},
		"says nothing by HEAD": {"HEAD", http.Header{}, false},
	}
	for name, tt := range tests {
		for _, a := range answers {
			r := httptest.NewRequest(tt.method, "/secret", nil)
			r.Header = tt.header
			w := httptest.NewRecorder()
			a.write(w, r, 1500*time.Millisecond)
			checkAnswer(t, name, a, tt.page, tt.method, w)
		}
	}
}

func checkAnswer(t *testing.T, name string, a *answer, page bool, method string, w *httptest.ResponseRecorder) {
	t.Helper()
	h, body := w.Header(), w.Body.String()
	if w.Code != a.status || h.Get(codeHeader) != string(a.code) || h.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: %d %v", name, w.Code, h)
	}
	if wantRetry := a.status == 503; wantRetry != (h.Get("Retry-After") == "2") {
		t.Errorf("%s: %d with Retry-After %q", name, a.status, h.Get("Retry-After"))
	}
	if isPage := h.Get("Content-Type") == "text/html; charset=utf-8"; isPage != page {
		t.Errorf("%s: %v", name, h)
	}
	if method == http.MethodHead {
		if body != "" || h.Get("Content-Length") == "0" {
			t.Errorf("%s: HEAD %q %v", name, body, h)
		}
		return
	}
	if h.Get("Content-Length") != strconv.Itoa(len(body)) {
		t.Errorf("%s: %d bytes, length %s", name, len(body), h.Get("Content-Length"))
	}
	if strings.Contains(body, "secret") {
		t.Errorf("%s: %s", name, body)
	}
	if page {
		refresh := strings.Contains(body, `<meta http-equiv="refresh" content="2">`)
		if want := a.status == 503 && method == http.MethodGet; refresh != want {
			t.Errorf("%s: %d %s refresh %v", name, a.status, method, refresh)
		}
		if h.Get("Content-Security-Policy") == "" || strings.Contains(body, "http://") || strings.Contains(body, "https://") {
			t.Errorf("%s: %v %s", name, h, body)
		}
		return
	}
	var problem struct {
		Type, Title, Detail string
		Status              int
	}
	if err := json.Unmarshal([]byte(body), &problem); err != nil || problem.Type != "about:blank" || problem.Status != a.status || problem.Title == "" || problem.Detail == "" {
		t.Errorf("%s: %s %v", name, body, err)
	}
}

// Everything a page says is told apart by status and text.
func TestAnswersAreDistinct(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, a := range answers {
		if seen[a.page.body] || seen[a.problem.body] {
			t.Errorf("%d %s is like another", a.status, a.code)
		}
		seen[a.page.body], seen[a.problem.body] = true, true
	}
}

func TestRetryAfterSeconds(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]int64{0: 1, time.Nanosecond: 1, time.Second: 1, time.Second + 1: 2, time.Minute: 60} {
		if got := seconds(d); got != want {
			t.Errorf("%v: %d", d, got)
		}
	}
}

// The proxy never answers with a status that the code does not stand for.
func TestAnswersAgreeWithCodes(t *testing.T) {
	t.Parallel()
	for _, code := range []tenement.Code{
		tenement.CodeInvalid, tenement.CodeNotFound, tenement.CodeSuspended, tenement.CodeUnavailable, tenement.CodeAsleep,
		tenement.CodeFull, tenement.CodeTimeout, tenement.CodeBroken, tenement.CodeInternal,
	} {
		a := answerTo(&tenement.Error{Code: code, Op: "x"})
		if a.status != code.HTTPStatus() || a.code != code {
			t.Errorf("%s: %d %s", code, a.status, a.code)
		}
	}
}

func TestUnknownHostIsCheap(t *testing.T) {
	h := New(Config{Lookup: nowhere})
	r := httptest.NewRequest(http.MethodGet, "http://nobody.example.com/", nil)
	w := &blank{header: http.Header{}}
	if n := testing.AllocsPerRun(100, func() { clear(w.header); h.ServeHTTP(w, r) }); n > 3 {
		t.Errorf("%v allocations", n)
	}
}
