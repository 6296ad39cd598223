package api

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

// TestStream reads a stream as a browser does.
func TestStream(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	b.stopped = make(chan struct{})
	base := overTCP(t, newTestServer(t, b))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/api/logs/stream?after=1&level=stdout&search=hello&limit=7", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+b.secret(t, "alice"))
	req.Header.Set("Last-Event-ID", "2")    // comes before after
	resp, err := http.DefaultClient.Do(req) //nolint:forbidigo // a test
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || kind != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	want := func(lineWanted string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != lineWanted {
			t.Fatalf("%q, want %q", lines.Text(), lineWanted)
		}
	}
	want("id: 3")
	want(`data: {"id":3,"at":"1970-01-01T00:00:01Z","instance":"web:alice","level":"stdout","text":"hello web:alice"}`)
	want("")
	want("id: 3")
	want(": up to here")
	want("")
	b.print(alice, "hello again")
	for lines.Scan() && lines.Text() != "id: 4" { // a heartbeat may come first
	}
	want(`data: {"id":4,"at":"1970-01-01T00:00:02Z","instance":"api:alice","level":"stdout","text":"hello again"}`)
	close(b.stopped)
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the end of the stream: %v", err)
	}
	q := b.asked[1]
	if diff := cmp.Diff(LogQuery{Tenant: "alice", After: 2, Level: "stdout", Search: "hello", Limit: 7}, q); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestStreamHeartbeat: a stream that has nothing to say, says where it is.
func TestStreamHeartbeat(t *testing.T) {
	t.Parallel()
	beats := 0
	w := httptest.NewRecorder()
	e := eventStream[LogLine]{w: w, control: http.NewResponseController(w)}
	err := e.send(t.Context(), func(ctx context.Context) ([]LogLine, int64, error) {
		deadline, _ := ctx.Deadline()
		if left := time.Until(deadline); left > heartbeat || beats == 0 && left > firstHeartbeat {
			t.Errorf("beat %d would come after %v", beats, left)
		}
		if beats++; beats > 2 {
			return nil, 0, &tenement.Error{Code: tenement.CodeUnavailable, Op: "follow", Err: errors.New("stopping")}
		}
		return nil, 41, context.DeadlineExceeded
	})
	if tenement.CodeOf(err) != tenement.CodeUnavailable || w.Body.String() != strings.Repeat("id: 41\n: up to here\n\n", 2) {
		t.Errorf("%v %q", err, w.Body.String())
	}
}

// TestFollowLogs cuts the connection in every way there is; the lines come once each.
func TestFollowLogs(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	b.lines = nil
	b.stopped = make(chan struct{})
	server := newTestServer(t, b)
	var connections atomic.Int32
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := connections.Add(1)
		switch n % 4 {
		case 1: // ends within a line, of which nothing counts
			w.Header().Set("Content-Type", "text/event-stream")
			after, _ := strconv.Atoi(r.FormValue("after"))
			_, _ = w.Write([]byte("id: " + strconv.Itoa(after+1) + "\n"))
		case 2:
			panic(http.ErrAbortHandler)
		case 3:
			http.Error(w, "another server says that it is away", http.StatusBadGateway)
		default:
			ctx, cancel := context.WithTimeout(r.Context(), 50*time.Millisecond)
			defer cancel()
			server.ServeHTTP(w, r.WithContext(ctx))
		}
	}))
	t.Cleanup(front.Close)
	go func() {
		for n := range 30 {
			b.print(alice, strconv.Itoa(n))
			time.Sleep(10 * time.Millisecond) //nolint:forbidigo // spreads the lines over connections; decides nothing
		}
	}()
	c := newTestClient(t, Target{Server: front.URL, Token: b.secret(t, "")})
	outages, next := 0, 0
	enough := errors.New("enough")
	err := c.FollowLogs(t.Context(), LogOptions{Limit: 100}, func(error) { outages++ }, func(l LogLine) error {
		if l.Text != strconv.Itoa(next) {
			t.Errorf("line %s, want %d", l.Text, next)
		}
		if next++; next == 30 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || outages == 0 {
		t.Errorf("%v after %d outages", err, outages)
	}
}

// TestFollowLogsFails at once when it is not the connection's fault, and when it never
// worked.
func TestFollowLogsFails(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	b.stopped = make(chan struct{})
	base := overTCP(t, newTestServer(t, b))
	none := func(LogLine) error { return nil }
	for token, want := range map[string]tenement.Code{"": tenement.CodeUnauthenticated, b.secret(t, "bob"): tenement.CodeNotFound} {
		c := newTestClient(t, Target{Server: base, Token: token})
		if err := c.FollowLogs(t.Context(), LogOptions{Instance: alice}, nil, none); tenement.CodeOf(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	c := newTestClient(t, Target{Server: "http://127.0.0.1:1"})
	if err := c.FollowLogs(t.Context(), LogOptions{}, nil, none); tenement.CodeOf(err) != tenement.CodeUnreachable {
		t.Errorf("nobody there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c = newTestClient(t, Target{Server: base, Token: b.secret(t, "")})
	err := c.FollowLogs(ctx, LogOptions{Limit: 1}, nil, func(LogLine) error { cancel(); return nil })
	if tenement.CodeOf(err) != tenement.CodeCanceled {
		t.Errorf("canceled: %v", err)
	}
}
