package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

// TestAlerts: an alert is kept, changed and forgotten by its id, in the order in which they
// came, over a restart.
func TestAlerts(t *testing.T) {
	t.Parallel()
	ctx, dir := t.Context(), t.TempDir()
	s := openStore(t, dir)
	register(t, s, "api:alice")
	failed := tenement.Alert{
		ID: "msg_z", Kind: tenement.AlertFailed, At: noon, Instance: instanceID(t, "api:alice"), Body: []byte(`{"x":"ü"}`), Due: noon,
	}
	low := tenement.Alert{ID: "msg_a", Kind: tenement.AlertDiskLow, At: noon.Add(-time.Hour), Body: []byte("{}"), Due: noon.Add(1)}
	must(t, s.PutAlert(ctx, failed))
	must(t, s.PutAlert(ctx, low))
	failed.Attempts, failed.Due, failed.Error = 3, noon.Add(time.Minute), "refused"
	must(t, s.PutAlert(ctx, failed))
	must(t, s.Close())
	s = openStore(t, dir)
	list, err := s.Alerts(ctx)
	must(t, err)
	if diff := cmp.Diff([]tenement.Alert{failed, low}, list); diff != "" {
		t.Error(diff)
	}
	must(t, s.DeleteAlert(ctx, "msg_z"))
	must(t, s.DeleteAlert(ctx, "msg_z"))
	if list, err = s.Alerts(ctx); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestLastAlert: when the last alert was is known when that has been sent, too, but not for
// ever, nor of another instance of that name.
func TestLastAlert(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	register(t, s, "api:alice", "api:bob")
	alice, bob, none := instanceID(t, "api:alice"), instanceID(t, "api:bob"), tenement.InstanceID{}
	put := func(id string, kind tenement.AlertKind, about tenement.InstanceID, at time.Time) {
		t.Helper()
		must(t, s.PutAlert(ctx, tenement.Alert{ID: id, Kind: kind, Instance: about, At: at, Body: []byte("{}")}))
		must(t, s.DeleteAlert(ctx, id))
	}
	want := func(kind tenement.AlertKind, about tenement.InstanceID, want time.Time) {
		t.Helper()
		if got, err := s.LastAlert(ctx, kind, about); err != nil || !got.Equal(want) {
			t.Errorf("the last %s of %v was at %v, %v, want %v", kind, about, got, err, want)
		}
	}
	put("1", tenement.AlertFailed, alice, noon)
	put("2", tenement.AlertOOM, alice, noon.Add(time.Minute))
	put("3", tenement.AlertDiskLow, none, noon)
	put("1", tenement.AlertFailed, alice, noon.Add(-time.Hour)) // late news
	want(tenement.AlertFailed, alice, noon)
	want(tenement.AlertOOM, alice, noon.Add(time.Minute))
	want(tenement.AlertFailed, bob, time.Time{})

	put("4", tenement.AlertFailed, bob, noon.Add(alertedFor+1))
	want(tenement.AlertFailed, alice, time.Time{})
	want(tenement.AlertOOM, alice, noon.Add(time.Minute))
	want(tenement.AlertDiskLow, none, noon)
	must(t, s.Delete(ctx, bob))
	want(tenement.AlertFailed, bob, time.Time{})
}
