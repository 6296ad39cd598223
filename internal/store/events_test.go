package store

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"tenement"
)

// actions names events by what they are called in a test.
func actions(t *testing.T, events []tenement.Event, err error) string {
	t.Helper()
	must(t, err)
	var list []string
	for _, e := range events {
		list = append(list, e.Action)
	}
	return strings.Join(list, " ")
}

func TestEvents(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	for n, e := range []tenement.Event{
		{Actor: "local:0", Target: "api:alice", Outcome: "ok"},
		{Actor: "token:a", Target: "web:alice", Outcome: "unavailable"},
		{Actor: "token:b", Target: "api:alice", Outcome: "not_found"},
		{Actor: "token:a", Target: "api:alice", Outcome: "forbidden"},
		{Actor: tenement.ActorStranger, Target: "api:alice", Outcome: "unauthenticated"},
		{Actor: "local:0", Target: "api:bob", Outcome: "ok"},
		{Actor: "token:b", Target: "api:bob:alice", Outcome: "invalid"},
		{Actor: "local:0", Target: "alice", Outcome: "ok"}, // a token could be called so
	} {
		e.At, e.Action = noon.Add(time.Duration(n)*time.Second), strconv.Itoa(n+1)
		must(t, s.AppendEvent(ctx, e))
	}
	for want, q := range map[string]tenement.EventQuery{
		"1 2 3 4 5 6 7 8": {},
		"7 8":             {Limit: 2},
		"4 5":             {Limit: 2, Before: 6},
		"3 4":             {Limit: 2, After: 2},
		"3":               {After: 2, Before: 4},
		"1 3 4 5":         {Target: "api:alice"},
		"2 4":             {Actor: "token:a"},
		"6":               {Action: "6"},
		"2 3":             {Since: noon.Add(time.Second), Until: noon.Add(3 * time.Second)},
		"1 2 4":           {Tenant: "alice", Caller: "token:a"},
		"1 2":             {Tenant: "alice", Caller: "token:c"},
		"":                {Tenant: "carol"},
	} {
		list, err := s.Events(ctx, q)
		if got := actions(t, list, err); got != want {
			t.Errorf("%+v: %q, want %q", q, got, want)
		}
	}
}

// TestEventsAreTrimmed: each ring by its own bound, however full the other is.
func TestEventsAreTrimmed(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	fill := func(actor string, from, to int) {
		_, err := s.write.ExecContext(ctx, `WITH RECURSIVE n (i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i < ?)
			INSERT INTO events (id, at, actor, action, target, outcome, detail) SELECT i, 0, ?, '', '', '', '' FROM n`, from, to, actor)
		must(t, err)
	}
	count := func(actor string) (n, first int) {
		must(t, s.read.QueryRowContext(ctx, "SELECT count(*), min(id) FROM events WHERE actor = ?", actor).Scan(&n, &first))
		return n, first
	}
	fill("local:0", 1, 500)
	fill(tenement.ActorStranger, 501, 12_998)
	must(t, s.AppendEvent(ctx, tenement.Event{Actor: tenement.ActorStranger})) // 12,999
	if n, _ := count(tenement.ActorStranger); n != 12_499 {
		t.Fatalf("trimmed too early: %d", n)
	}
	must(t, s.AppendEvent(ctx, tenement.Event{Actor: tenement.ActorStranger})) // 13,000
	if n, first := count(tenement.ActorStranger); n != maxStrangerEvents || first != 3001 {
		t.Errorf("%d of strangers are kept, from %d on", n, first)
	}
	if n, _ := count("local:0"); n != 500 {
		t.Errorf("strangers pushed others out: %d are left", n)
	}
	fill("local:0", 13_001, 113_999)
	must(t, s.AppendEvent(ctx, tenement.Event{Actor: "local:0"})) // 114,000
	if n, first := count("local:0"); n != maxEvents || first != 14_001 {
		t.Errorf("%d are kept, from %d on", n, first)
	}
}

func TestFollowEvents(t *testing.T) {
	t.Parallel()
	ctx, dir := t.Context(), t.TempDir()
	s := openStore(t, dir)
	add := func(names ...string) {
		for _, name := range names {
			must(t, s.AppendEvent(ctx, tenement.Event{Actor: "daemon", Action: name}))
		}
	}
	add("1", "2", "3")
	must(t, s.Close())
	s = openStore(t, dir) // it knows where the log ends
	fromNow, lastTwo := s.FollowEvents(tenement.EventQuery{}), s.FollowEvents(tenement.EventQuery{Limit: 2})
	afterOne, only := s.FollowEvents(tenement.EventQuery{After: 1}), s.FollowEvents(tenement.EventQuery{Action: "5"})
	next := func(f *EventFollower, want string) {
		t.Helper()
		events, err := f.Next(ctx)
		if got := actions(t, events, err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	next(lastTwo, "2 3")
	next(afterOne, "2 3")
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err := fromNow.Next(ended)
	wantCode(t, err, tenement.CodeCanceled)
	add("4", "5")
	next(fromNow, "4 5")
	next(lastTwo, "4 5")
	next(only, "5")
	if only.UpTo() != 5 {
		t.Errorf("up to %d", only.UpTo())
	}
	type answer struct {
		events []tenement.Event
		err    error
	}
	waiting := make(chan answer, 1)
	go func() {
		events, err := fromNow.Next(ctx)
		waiting <- answer{events, err}
	}()
	add("6")
	if a := <-waiting; actions(t, a.events, a.err) != "6" {
		t.Errorf("waited for %v", a.events)
	}
	for n := range eventPage + 1 {
		add("n" + strconv.Itoa(n))
	}
	first, err := afterOne.Next(ctx)
	must(t, err)
	second, err := afterOne.Next(ctx)
	if list := append(first, second...); len(first) != eventPage || err != nil || len(list) != 3+eventPage+1 || list[len(list)-1].ID != list[0].ID+int64(len(list))-1 {
		t.Errorf("%d and %d events, %v", len(first), len(second), err)
	}
}
