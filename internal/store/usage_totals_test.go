package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

func TestUsageTotals(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	hour := time.Now().UTC().Truncate(time.Hour)
	row := func(name string, at time.Time, memory int64) tenement.UsageHour {
		return tenement.UsageHour{
			Instance: tenement.InstanceID{Service: "api", Name: name}, Hour: at,
			Awake: time.Minute, CPU: time.Second, MemoryByteSeconds: memory, Requests: 2, BytesIn: 3, BytesOut: 4,
		}
	}
	earlier := hour.Add(-time.Hour)
	rows := []tenement.UsageHour{row("alice", earlier, 10), row("alice", hour, 20), row("bob", hour, 100), row("carol", earlier.Add(-time.Hour), 1000)}
	if err := s.AddUsage(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	sum := func(of ...tenement.UsageHour) (sum tenement.UsageHour) {
		for _, u := range of {
			sum = sum.Plus(u)
		}
		return sum
	}
	of := func(id tenement.InstanceID, at time.Time, u tenement.UsageHour) tenement.UsageHour {
		u.Instance, u.Hour = id, at
		return u
	}
	// Storage is what it was at the last look, of several instances together.
	rows[0].Storage, rows[1].Storage, rows[2].Storage = 1000, 2000, 500
	looks := []tenement.UsageHour{{Instance: rows[0].Instance, Hour: earlier, Storage: 1000}, {Instance: rows[0].Instance, Hour: hour, Storage: 2000}, {Instance: rows[2].Instance, Hour: hour, Storage: 400}, {Instance: rows[2].Instance, Hour: hour, Storage: 500}, {Instance: rows[2].Instance, Hour: hour}}
	if err := s.AddUsage(t.Context(), looks); err != nil {
		t.Fatal(err)
	}
	storage := func(u tenement.UsageHour, bytes tenement.Bytes) tenement.UsageHour {
		u.Storage = bytes
		return u
	}
	recent := tenement.UsageQuery{Since: earlier}
	none := tenement.InstanceID{}
	for _, test := range []struct {
		name  string
		query tenement.UsageQuery
		by    tenement.UsageBy
		limit int
		want  []tenement.UsageHour
	}{
		{"all", recent, tenement.UsageInAll, 1, []tenement.UsageHour{storage(sum(rows[:3]...), 2500)}},
		{"nothing", tenement.UsageQuery{Since: hour.Add(time.Hour)}, tenement.UsageInAll, 1, []tenement.UsageHour{{}}},
		{"by hour", recent, tenement.UsageByHour, 10, []tenement.UsageHour{of(none, hour, storage(sum(rows[1], rows[2]), 2500)), of(none, earlier, storage(sum(rows[0]), 1000))}},
		{"the last hour", recent, tenement.UsageByHour, 1, []tenement.UsageHour{of(none, hour, storage(sum(rows[1], rows[2]), 2500))}},
		{"by instance", recent, tenement.UsageByInstance, 10, []tenement.UsageHour{of(rows[2].Instance, time.Time{}, rows[2]), of(rows[0].Instance, time.Time{}, storage(sum(rows[:2]...), 2000))}},
		{"the largest", recent, tenement.UsageByInstance, 1, []tenement.UsageHour{of(rows[2].Instance, time.Time{}, rows[2])}},
		{"a tenant", tenement.UsageQuery{Tenant: "alice"}, tenement.UsageByInstance, 10, []tenement.UsageHour{of(rows[0].Instance, time.Time{}, storage(sum(rows[:2]...), 2000))}},
		{"one instance", tenement.UsageQuery{Instance: rows[2].Instance}, tenement.UsageInAll, 1, []tenement.UsageHour{storage(sum(rows[2]), 500)}},
	} {
		got, err := s.UsageTotals(t.Context(), test.query, test.by, test.limit)
		if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", test.name, err, diff)
		}
	}
}
