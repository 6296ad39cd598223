package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"tenement"
)

// ask sends a request as root at the socket does, with If-Match unless that is "".
func ask(s *Server, method, path, body, ifMatch string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r = r.WithContext(WithLocalUser(context.Background(), 0))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if ifMatch != "" {
		r.Header.Set("If-Match", ifMatch)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestIfMatch(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	s := newTestServer(t, b)
	const path = "/api/instances/api:alice"
	tag := func() string { return ask(s, "GET", path, "", "").Header().Get("ETag") }
	first := tag()
	if first == "" || first == ask(s, "GET", "/api/instances/api:bob", "", "").Header().Get("ETag") {
		t.Errorf("ETag %s", first)
	}
	st := b.instances[alice]
	st.Leases, st.State, st.PID = 7, tenement.Draining, 0
	b.instances[alice] = st
	if tag() != first {
		t.Error("traffic changes the ETag")
	}
	for _, row := range []struct {
		method, path, body, ifMatch string
		want                        int
	}{
		{"PUT", path + "/weight", `{"weight":10}`, `"other"`, 412},
		{"PUT", path + "/weight", `{"weight":10}`, `W/` + first, 412},
		{"PUT", path + "/weight", `{"weight":10}`, `"other", ` + first, 204},
		{"PUT", path + "/weight", `{"weight":20}`, first, 412}, // it has changed
		{"PUT", path + "/weight", `{"weight":20}`, "*", 204},
		{"PUT", path + "/weight", `{"weight":20}`, "", 204},
		{"DELETE", path, "", first, 412},
		{"POST", path + "/stop", "", first, 412},
		{"GET", path, "", first, 200},
		{"DELETE", "/api/instances/api:nobody", "", "*", 404},
	} {
		w := ask(s, row.method, row.path, row.body, row.ifMatch)
		if w.Code != row.want {
			t.Errorf("%+v: %d %s", row, w.Code, w.Body)
		}
		if w.Code == http.StatusPreconditionFailed {
			checkProblem(t, w.Result(), w.Body.Bytes())
		}
	}
	if w := b.instances[alice].Weight; w != 20 {
		t.Errorf("weight %d", w)
	}
	events := b.recorded()
	if e := events[0]; e.Outcome != "changed" || e.Action != "weight" {
		t.Errorf("the attempt is recorded as %+v", e)
	}
	if events[len(events)-1].Outcome != "not_found" || len(s.changes.held) != 0 {
		t.Errorf("%d are held", len(s.changes.held))
	}
}

// TestOneOfManyWhoSawTheSame succeeds.
func TestOneOfManyWhoSawTheSame(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, newFakeBackend())
	tag := ask(s, "GET", "/api/instances/api:alice", "", "").Header().Get("ETag")
	var mu sync.Mutex
	codes := map[int]int{}
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			w := ask(s, "PUT", "/api/instances/api:alice/weight", `{"weight":10}`, tag)
			mu.Lock()
			defer mu.Unlock()
			codes[w.Code]++
		})
	}
	group.Wait()
	if codes[204] != 1 || codes[412] != 49 {
		t.Errorf("answers %v", codes)
	}
}

// TestSpawnAgain: creation may be repeated, also with other parameters, and the answer is
// what there is then.
func TestSpawnAgain(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	s := newTestServer(t, b)
	for _, row := range []struct {
		body   string
		status int
		detail string
	}{
		{`{"process":"api","id":"carol","wake":false}`, 201, ""},
		{`{"process":"api","id":"carol","wake":false}`, 200, ""},
		{`{"process":"api","id":"carol","weight":5}`, 200, "weight 5"},
		{`{"process":"api","id":"carol","weight":5000}`, 400, "read request: the request does not fit the route"},
	} {
		w := ask(s, "POST", "/api/instances/spawn", row.body, "")
		if w.Code != row.status {
			t.Errorf("%s: %d %s", row.body, w.Code, w.Body)
		}
		events := b.recorded()
		if e := events[len(events)-1]; e.Detail != row.detail {
			t.Errorf("%s is recorded as %+v", row.body, e)
		}
	}
}
