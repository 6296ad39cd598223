package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

func wakeOf(id tenement.InstanceID, n int) tenement.WakeRecord {
	return tenement.WakeRecord{
		Instance: id, At: noon.Add(time.Duration(n) * time.Second), Cause: tenement.CauseRequest, Client: "public", Agent: "Mozilla/5.0", Path: "/page",
		Queue: 1, Spawn: 2, Ready: 3, FirstByte: 4, Outcome: tenement.WakeOK, Shared: n,
	}
}

func TestWakes(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	register(t, s, "api:alice", "api:bob", "web:alice")
	alice, bob := instanceID(t, "api:alice"), instanceID(t, "api:bob")
	web, nobody := instanceID(t, "web:alice"), instanceID(t, "api:nobody")
	must(t, s.AppendWakes(ctx, []tenement.WakeRecord{wakeOf(alice, 1), wakeOf(nobody, 2), wakeOf(bob, 3)}))
	must(t, s.AppendWakes(ctx, []tenement.WakeRecord{wakeOf(web, 4), wakeOf(alice, 5)}))

	shared := func(q tenement.WakeQuery) (list []int) {
		t.Helper()
		wakes, err := s.Wakes(ctx, q)
		must(t, err)
		for _, w := range wakes {
			list = append(list, w.Shared)
		}
		return list
	}
	all, err := s.Wakes(ctx, tenement.WakeQuery{})
	must(t, err)
	want := wakeOf(alice, 5)
	want.ID = 4
	if diff := cmp.Diff(want, all[len(all)-1]); diff != "" {
		t.Error(diff)
	}
	for name, c := range map[string]struct {
		query tenement.WakeQuery
		want  []int
	}{
		"all, without who is not registered": {tenement.WakeQuery{}, []int{1, 3, 4, 5}},
		"one":                                {tenement.WakeQuery{Instance: alice}, []int{1, 5}},
		"a tenant's":                         {tenement.WakeQuery{Tenant: "alice"}, []int{1, 4, 5}},
		"since":                              {tenement.WakeQuery{Since: noon.Add(4 * time.Second)}, []int{4, 5}},
		"the last":                           {tenement.WakeQuery{Limit: 1}, []int{5}},
		"those before":                       {tenement.WakeQuery{Limit: 2, Before: all[3].ID}, []int{3, 4}},
	} {
		if diff := cmp.Diff(c.want, shared(c.query)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	must(t, s.Delete(ctx, alice))
	if diff := cmp.Diff([]int{3, 4}, shared(tenement.WakeQuery{})); diff != "" {
		t.Error(diff)
	}
}

func TestWakesAreBounded(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	register(t, s, "api:alice", "api:bob")
	alice, bob := instanceID(t, "api:alice"), instanceID(t, "api:bob")
	must(t, s.AppendWakes(ctx, []tenement.WakeRecord{wakeOf(bob, 0)}))
	for batch := range 5 {
		var list []tenement.WakeRecord
		for n := range 50 {
			list = append(list, wakeOf(alice, batch*50+n))
		}
		must(t, s.AppendWakes(ctx, list))
	}
	wakes, err := s.Wakes(ctx, tenement.WakeQuery{Instance: alice})
	if err != nil || len(wakes) != maxWakesOfOne || wakes[0].Shared != 150 {
		t.Errorf("%d are left, the first is %+v, %v", len(wakes), wakes[0], err)
	}
	if wakes, err = s.Wakes(ctx, tenement.WakeQuery{Instance: bob}); err != nil || len(wakes) != 1 {
		t.Errorf("of the other: %v, %v", wakes, err)
	}
}

// TestWakesAreBoundedInAll: of each of 1,021 instances there are few, and too many together.
func TestWakesAreBoundedInAll(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	register(t, s, "api:alice")
	_, err := s.write.ExecContext(ctx, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO wakes (`+wakeColumns+`) SELECT 'api', 'tenant-' || (i % 1021), i, 'request', '', '', '', 0, 0, 0, 0, 'ok', 1 FROM n`, maxWakes+2*trimEvery-1)
	must(t, err)
	must(t, s.AppendWakes(ctx, []tenement.WakeRecord{wakeOf(instanceID(t, "api:alice"), 7)}))
	var left, first int
	must(t, s.read.QueryRowContext(ctx, "SELECT count(*), min(id) FROM wakes").Scan(&left, &first))
	if left != maxWakes || first != 2*trimEvery+1 {
		t.Errorf("%d are left, from %d on", left, first)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	alice, bob := instanceID(t, "api:alice"), instanceID(t, "api:bob")
	hour := noon.Truncate(time.Hour)
	row := func(id tenement.InstanceID, hours int) tenement.UsageHour {
		return tenement.UsageHour{Instance: id, Hour: hour.Add(time.Duration(hours) * time.Hour), Awake: time.Minute, CPU: time.Second, MemoryByteSeconds: 1 << 40, Requests: 2, BytesIn: 3, BytesOut: 4}
	}
	must(t, s.AddUsage(ctx, []tenement.UsageHour{row(alice, -24*401)}))
	must(t, s.AddUsage(ctx, []tenement.UsageHour{row(alice, 0), row(bob, 0), row(bob, 1)}))
	must(t, s.AddUsage(ctx, []tenement.UsageHour{row(alice, 0), row(alice, 2)}))

	list, next, err := s.Usage(ctx, tenement.UsageQuery{})
	twice := row(alice, 0).Plus(row(alice, 0))
	if diff := cmp.Diff([]tenement.UsageHour{twice, row(bob, 0), row(bob, 1), row(alice, 2)}, list); diff != "" || err != nil || !next.IsZero() {
		t.Errorf("%s, next %v, %v", diff, next, err)
	}
	for name, c := range map[string]struct {
		query tenement.UsageQuery
		want  int
	}{
		"one":        {tenement.UsageQuery{Instance: bob}, 2},
		"a tenant's": {tenement.UsageQuery{Tenant: "alice"}, 2},
		"since":      {tenement.UsageQuery{Since: hour.Add(time.Hour)}, 2},
		"until":      {tenement.UsageQuery{Until: hour.Add(time.Hour)}, 2},
	} {
		if list, _, err := s.Usage(ctx, c.query); err != nil || len(list) != c.want {
			t.Errorf("%s: %d rows, %v, want %d", name, len(list), err, c.want)
		}
	}
}

// TestUsageIsPaged by whole hours, also if one has more than a page.
func TestUsageIsPaged(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	hour := noon.Truncate(time.Hour)
	var rows []tenement.UsageHour
	for hours, names := range []string{"abc", "d", "ef", "g"} {
		for _, name := range names {
			rows = append(rows, tenement.UsageHour{Instance: tenement.InstanceID{Service: "api", Name: string(name)}, Hour: hour.Add(time.Duration(hours) * time.Hour), Requests: 1})
		}
	}
	must(t, s.AddUsage(ctx, rows))
	var pages []string
	for q := (tenement.UsageQuery{}); ; {
		list, next, err := s.usage(ctx, q, 2)
		must(t, err)
		page := ""
		for _, u := range list {
			page += u.Instance.Name
		}
		pages = append(pages, page)
		if q.Since = next; next.IsZero() || len(pages) > 10 {
			break
		}
	}
	if diff := cmp.Diff([]string{"abc", "d", "ef", "g"}, pages); diff != "" {
		t.Error(diff)
	}
}
