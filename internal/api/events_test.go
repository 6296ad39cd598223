package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

func TestEventQueries(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	c := newTestClient(t, Target{Socket: overSocket(t, newTestServer(t, b), -1)})
	since := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	o := EventOptions{Instance: alice, Actor: "local:0", Action: "stop", Since: since, Until: since.Add(time.Hour), Before: 9, Limit: 1}
	page, err := c.Events(t.Context(), o)
	if err != nil || len(page.Events) != 1 || page.Next != 1 || page.Events[0].Detail != "of api:alice" {
		t.Errorf("%+v, %v", page, err)
	}
	want := tenement.EventQuery{Target: "api:alice", Actor: "local:0", Action: "stop", Since: since, Until: since.Add(time.Hour), Before: 9, Limit: 1}
	if diff := cmp.Diff(want, b.lastAsked()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if page, err = c.Events(t.Context(), EventOptions{}); err != nil || len(page.Events) != 3 || page.Next != 0 {
		t.Errorf("all on one page: %+v, %v", page, err)
	}
}

// TestTenantsEvents: who else did something, and from where, a tenant is not told; of its
// own attempts it sees all.
func TestTenantsEvents(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	c := newTestClient(t, Target{Server: overTCP(t, newTestServer(t, b)), Token: b.secret(t, "alice")})
	if err := c.Stop(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	if err := c.Restart(t.Context(), alice); tenement.CodeOf(err) != tenement.CodeForbidden {
		t.Fatal(err)
	}
	page, err := c.Events(t.Context(), EventOptions{})
	if err != nil || len(page.Events) != 4 {
		t.Fatalf("%+v, %v", page, err)
	}
	for _, e := range page.Events[:2] {
		if e.Actor != "token" || e.From != "" || e.Detail != "" || e.Action != "stop" || e.ID == 0 {
			t.Errorf("another's: %+v", e)
		}
	}
	for _, e := range page.Events[2:] {
		if !strings.HasPrefix(e.Actor, "token:") || e.From != "127.0.0.1" {
			t.Errorf("its own: %+v", e)
		}
	}
	q, _ := b.lastAsked().(tenement.EventQuery)
	if q.Tenant != "alice" || q.Caller != page.Events[2].Actor {
		t.Errorf("asked for %+v", q)
	}
	_, err = c.Events(t.Context(), EventOptions{Actor: "token:admin"})
	if tenement.CodeOf(err) != tenement.CodeForbidden {
		t.Errorf("it can find out whose token did something: %v", err)
	}
	if _, err = c.Events(t.Context(), EventOptions{Actor: q.Caller}); err != nil {
		t.Errorf("its own attempts: %v", err)
	}
}

func TestFollowEvents(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	b.stopped = make(chan struct{})
	c := newTestClient(t, Target{Socket: overSocket(t, newTestServer(t, b), -1)})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var seen []int64
	err := c.FollowEvents(ctx, EventOptions{After: 1}, nil, func(e Event) error {
		seen = append(seen, e.ID)
		switch e.ID {
		case 3:
			b.Record(ctx, tenement.Event{Action: "later"})
		case 4:
			if e.Action != "later" {
				t.Errorf("%+v", e)
			}
			cancel()
		}
		return nil
	})
	if diff := cmp.Diff([]int64{2, 3, 4}, seen); diff != "" || tenement.CodeOf(err) != tenement.CodeCanceled {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// TestStrangersAreNotedAndBounded: the first attempts of each address in each minute, and
// of what they send only so much.
func TestStrangersAreNotedAndBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newFakeBackend()
		s := newTestServer(t, b)
		try := func(from string, times int) {
			for range times {
				r := httptest.NewRequest(http.MethodPost, "/api/instances/"+strings.Repeat("x", 5000)+"/stop", nil)
				r.RemoteAddr = from
				s.ServeHTTP(httptest.NewRecorder(), r)
			}
		}
		try("192.0.2.1:1", 1000)
		try("[2001:db8::1%eth0]:1", 1000)
		// The same network:
		try("[2001:db8::2]:1", 1000)
		time.Sleep(failureWindow) // virtual
		try("192.0.2.1:2", 1000)
		from := map[string]int{}
		for _, e := range b.recorded() {
			from[e.From]++
			if e.Actor != tenement.ActorStranger || len(e.Target) != maxNoted {
				t.Errorf("%+v", e)
			}
		}
		if diff := cmp.Diff(map[string]int{"192.0.2.1": 2 * failuresAllowed, "2001:db8::1": failuresAllowed}, from); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestNoted(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", maxNoted-1) + "ü"
	for in, want := range map[string]string{"": "", "a\xffb": "a\uFFFDb", long: long[:maxNoted-1] + "\uFFFD"} {
		if got := noted(in); got != want {
			t.Errorf("noted(%.20q) = %q", in, got)
		}
	}
}
