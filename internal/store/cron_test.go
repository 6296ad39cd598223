package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCron(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	want := Cron{Service: "api", Line: "nightly", Schedule: "0 3 * * * UTC", Slot: noon, Reached: "alice"}
	must(t, s.PutCron(ctx, Cron{Service: "api", Line: "nightly", Slot: noon.Add(-time.Hour), Done: true}))
	must(t, s.PutCron(ctx, want))
	must(t, s.PutCron(ctx, Cron{Service: "web", Line: "nightly", Slot: noon}))
	must(t, s.DeleteCron(ctx, "web", "nightly"))
	must(t, s.DeleteCron(ctx, "web", "nightly"))
	list, err := s.Crons(ctx)
	must(t, err)
	if diff := cmp.Diff([]Cron{want}, list); diff != "" {
		t.Error(diff)
	}
	register(t, s, "api:alice", "api:bob", "api:carol", "web:dave")
	for name, want := range map[string]int{"alice": 2, "b": 2, "carol": 0} {
		id := instanceID(t, "api:"+name)
		if n, err := s.CountAfter(ctx, id); err != nil || n != want {
			t.Errorf("%d follow %s, %v, want %d", n, id, err, want)
		}
	}
}
