package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

func TestRegister(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	id := instanceID(t, "api:alice")
	for _, want := range []bool{true, false} {
		created, err := s.Register(ctx, id, noon)
		if err != nil || created != want {
			t.Errorf("created = %v, %v, want %v", created, err, want)
		}
		must(t, s.SetWeights(ctx, Weight{id, 7})) // must outlive the second time
	}
	i, err := s.Instance(ctx, id)
	must(t, err)
	if diff := cmp.Diff(tenement.Instance{ID: id, Weight: 7, CreatedAt: noon}, i); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []tenement.InstanceID{
		{}, {Service: "api"}, {Service: "api", Name: ".."}, {Service: "a_b", Name: "x"},
		{Service: "api", Name: "A"}, {Service: "api", Name: strings.Repeat("a", 64)},
	} {
		_, err := s.Register(ctx, bad, noon)
		wantCode(t, err, tenement.CodeInvalid)
	}
}

// TestUnknownInstance: every change of an instance that is not there says so.
func TestUnknownInstance(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	id := instanceID(t, "api:nobody")
	_, err := s.Instance(ctx, id)
	wantCode(t, err, tenement.CodeNotFound)
	wantCode(t, s.Delete(ctx, id), tenement.CodeNotFound)
	wantCode(t, s.SetSuspended(ctx, id, true), tenement.CodeNotFound)
	wantCode(t, s.SetFailure(ctx, id, tenement.Failure{}), tenement.CodeNotFound)
	wantCode(t, s.SetWeights(ctx, Weight{id, 1}), tenement.CodeNotFound)
	must(t, s.DeleteProcess(ctx, id))
}

// TestTableRefusesInvalidNames goes past Register, as another program would.
func TestTableRefusesInvalidNames(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	for _, table := range []string{
		"instances (service, name, created_at) VALUES (?, ?, 1)",
		"processes (service, name, pid, start_time, boot_id, port, cgroup) VALUES (?, ?, 1, 1, '', 1, '')",
	} {
		for service, names := range map[string][]string{
			"api": {"", ".", "..", "a/b", "A", "é", "-a", "a-", "_a", "a_", "a]", "a\x00", strings.Repeat("a", 64)},
			"":    {"a"}, "a_b": {"a"}, "a-": {"a"}, "../x": {"a"},
		} {
			for _, name := range names {
				if _, err := s.write.ExecContext(t.Context(), "INSERT INTO "+table, service, name); err == nil {
					t.Errorf("%q, %q could be inserted", service, name)
				}
			}
		}
		for _, name := range []string{"a", "7", "a-b", "a_b", "a--b", strings.Repeat("a", 63)} {
			_, err := s.write.ExecContext(t.Context(), "INSERT INTO "+table, "a-b", name)
			must(t, err)
		}
	}
}

func TestInstances(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	register(t, s, "web:alice", "api:carol", "api-2:alice", "api:alice", "api:bob", "db:bob")
	must(t, s.SetSuspended(t.Context(), instanceID(t, "api:bob"), true))
	for _, failed := range []string{"api:bob", "db:bob"} {
		must(t, s.SetFailure(t.Context(), instanceID(t, failed), tenement.Failure{RetryAt: noon}))
	}
	ids := func(texts ...string) []tenement.InstanceID {
		list := []tenement.InstanceID{}
		for _, text := range texts {
			list = append(list, instanceID(t, text))
		}
		return list
	}
	all := "api:alice api:bob api:carol api-2:alice db:bob web:alice"
	for _, c := range []struct {
		filter Filter
		want   string
	}{
		{Filter{}, all},
		{Filter{Limit: 4}, "api:alice api:bob api:carol api-2:alice"},
		{Filter{Limit: -1}, all},
		{Filter{Service: "api"}, "api:alice api:bob api:carol"},
		{Filter{Service: "nothing"}, ""},
		{Filter{Name: "alice"}, "api:alice api-2:alice web:alice"},
		{Filter{Service: "api", Name: "bob"}, "api:bob"},
		{Filter{After: instanceID(t, "api:alice")}, "api:bob api:carol api-2:alice db:bob web:alice"},
		{Filter{After: instanceID(t, "api:b")}, "api:bob api:carol api-2:alice db:bob web:alice"},
		{Filter{After: instanceID(t, "web:alice")}, ""},
		{Filter{Service: "api", After: instanceID(t, "api:alice"), Limit: 1}, "api:bob"},
		{Filter{Service: "api", After: instanceID(t, "aaa:zzz")}, "api:alice api:bob api:carol"},
		{Filter{Service: "api", After: instanceID(t, "web:a")}, ""},
		{Filter{Name: "alice", After: instanceID(t, "api:alice")}, "api-2:alice web:alice"},
		{Filter{Name: "alice", After: instanceID(t, "api:aaa")}, "api:alice api-2:alice web:alice"},
		{Filter{Name: "alice", After: instanceID(t, "api:bob")}, "api-2:alice web:alice"},
		{Filter{Text: "b"}, "api:bob db:bob web:alice"},
		{Filter{Text: "i:c"}, "api:carol"},
		{Filter{Text: "%"}, ""},
		{Filter{Text: "b", Service: "api"}, "api:bob"},
		{Filter{IDs: ids("web:alice", "api:bob", "api:nobody", "db:alice")}, "api:bob web:alice"},
		{Filter{IDs: ids("web:alice", "api:bob"), Text: "b", After: instanceID(t, "api:bob")}, "web:alice"},
		{Filter{IDs: ids()}, ""},
		{Filter{Resting: []tenement.State{tenement.Suspended}}, "api:bob"},
		{Filter{Resting: []tenement.State{tenement.Failed, tenement.Ready}}, "db:bob"},
		{Filter{Resting: []tenement.State{tenement.Failed, tenement.Suspended}}, "api:bob db:bob"},
		{Filter{Resting: []tenement.State{tenement.Asleep}, Service: "api"}, "api:alice api:carol"},
		{Filter{Resting: []tenement.State{tenement.Ready}}, ""},
	} {
		list, err := s.Instances(t.Context(), c.filter)
		must(t, err)
		if n, err := s.Count(t.Context(), c.filter); c.filter.Limit == 0 && (err != nil || n != len(list)) {
			t.Errorf("%+v: counted %d, %v", c.filter, n, err)
		}
		if got := names(list); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.filter, got, c.want)
		}
	}
}

func names(list []tenement.Instance) string {
	var ids []string
	for _, i := range list {
		ids = append(ids, i.ID.String())
	}
	return strings.Join(ids, " ")
}

// TestPagesSeek asks SQLite for its plan: no page may scan what comes before it,
// nor sort.
func TestPagesSeek(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	after := instanceID(t, "api:bob")
	for _, c := range []struct {
		filter Filter
		begins string // the columns by which the page's first row is found
	}{
		{Filter{}, "SCAN instances"}, // from the first
		{Filter{After: after}, "((service,name)>(?,?))"},
		{Filter{Service: "api"}, "(service=?)"},
		{Filter{Service: "api", After: after}, "(service=? AND name>?)"},
		{Filter{Name: "alice"}, "(name=?)"},
		{Filter{Name: "alice", After: after}, "(name=? AND service>?)"},
		{Filter{Name: "carol", After: after}, "(name=? AND service>?)"},
		{Filter{Service: "api", Name: "alice"}, "(service=? AND name=?)"},
		{Filter{Resting: []tenement.State{tenement.Ready, tenement.Failed}}, "SCAN instances USING INDEX instances_failed"},
	} {
		plan := planOf(t, s, c.filter)
		if len(plan) != 1 || !strings.HasSuffix(plan[0], c.begins) { // a second line would be a sort
			t.Errorf("%+v: %q, want %s", c.filter, plan, c.begins)
		}
	}
}

func planOf(t *testing.T, s *Store, f Filter) []string {
	t.Helper()
	query, args := f.query()
	rows, err := s.read.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	must(t, err)
	plan, err := collect(rows, func(r row) (detail string, err error) {
		var ignored int
		err = r.Scan(&ignored, &ignored, &ignored, &detail)
		return detail, err
	})
	must(t, err)
	return plan
}

// TestNamedRowsAreLookedUp asks SQLite for its plan: of a million rows those that have
// ids are read, and no other.
func TestNamedRowsAreLookedUp(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	plan := planOf(t, s, Filter{IDs: []tenement.InstanceID{instanceID(t, "api:alice"), instanceID(t, "web:bob")}})
	if len(plan) == 0 || !strings.HasPrefix(plan[0], "SEARCH instances") || !strings.HasSuffix(plan[0], "(service=? AND name=?)") {
		t.Errorf("%q", plan)
	}
}

func TestCountResting(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	register(t, s, "api:alice", "api:bob", "api:carol", "web:dave", "web:eve")
	must(t, s.SetSuspended(ctx, instanceID(t, "api:bob"), true))
	must(t, s.SetSuspended(ctx, instanceID(t, "web:eve"), true))
	for _, name := range []string{"api:carol", "web:eve"} { // what is suspended is not failed
		must(t, s.SetFailure(ctx, instanceID(t, name), tenement.Failure{Reason: "gone", RetryAt: time.Unix(1, 0)}))
	}
	counts, err := s.CountResting(ctx)
	must(t, err)
	if diff := cmp.Diff(map[tenement.State]int{tenement.Asleep: 2, tenement.Suspended: 2, tenement.Failed: 1}, counts); diff != "" {
		t.Error(diff)
	}
}

// TestCountRestingReadsIndexesOnly: the rows of a million instances are 100 MB.
func TestCountRestingReadsIndexesOnly(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	rows, err := s.read.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+countResting)
	must(t, err)
	plan, err := collect(rows, func(r row) (detail string, err error) {
		var ignored int
		err = r.Scan(&ignored, &ignored, &ignored, &detail)
		return detail, err
	})
	must(t, err)
	for _, line := range plan {
		if strings.Contains(line, "SCAN instances") && !strings.Contains(line, "INDEX") {
			t.Errorf("a scan of the table: %q", plan)
		}
	}
	for _, index := range []string{"COVERING INDEX", "INDEX instances_suspended", "INDEX instances_failed"} {
		if !strings.Contains(strings.Join(plan, "\n"), index) {
			t.Errorf("no %s is used: %q", index, plan)
		}
	}
}

// BenchmarkCountResting is what a scrape of the metrics asks for.
func BenchmarkCountResting(b *testing.B) {
	s := openStore(b, b.TempDir())
	addRows(b, s, 1_000_000)
	for b.Loop() {
		_, err := s.CountResting(b.Context())
		must(b, err)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	id := instanceID(t, "api:alice")
	register(t, s, "api:alice", "api:bob")
	must(t, s.SetWeights(ctx, Weight{id, 5}))
	must(t, s.SetFailure(ctx, id, tenement.Failure{Reason: "old"}))
	must(t, s.PutProcess(ctx, id, Process{Ref: tenement.Ref{PID: 1}}))
	must(t, s.Delete(ctx, id))
	if processes, err := s.Processes(ctx); err != nil || len(processes) != 1 {
		t.Errorf("its process is lost: %v, %v", processes, err)
	}
	_, err := s.Instance(ctx, id)
	wantCode(t, err, tenement.CodeNotFound)
	register(t, s, "api:alice")
	i, err := s.Instance(ctx, id)
	must(t, err)
	if diff := cmp.Diff(tenement.Instance{ID: id, CreatedAt: noon}, i); diff != "" {
		t.Errorf("registered again it is not new:\n%s", diff)
	}
}

func TestSetWeights(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	register(t, s, "api:v1", "api:v2", "web:v1")
	v1, v2, web := instanceID(t, "api:v1"), instanceID(t, "api:v2"), instanceID(t, "web:v1")
	must(t, s.SetWeights(ctx, Weight{v1, 100}, Weight{web, 1000}))
	must(t, s.SetWeights(ctx))
	for _, c := range []struct {
		code    tenement.Code
		weights []Weight
	}{
		{tenement.CodeNotFound, []Weight{{v1, 0}, {instanceID(t, "api:v3"), 1}}},
		{tenement.CodeInvalid, []Weight{{v1, 0}, {v2, 1001}}},
		{tenement.CodeInvalid, []Weight{{v1, -1}}},
	} {
		wantCode(t, s.SetWeights(ctx, c.weights...), c.code)
		got, err := s.Weights(ctx)
		must(t, err)
		if diff := cmp.Diff([]Weight{{v1, 100}, {web, 1000}}, got); diff != "" {
			t.Errorf("%v changed something:\n%s", c.weights, diff)
		}
	}
	must(t, s.SetWeights(ctx, Weight{v1, 0}, Weight{v2, 100}))
	got, err := s.Weights(ctx)
	must(t, err)
	if diff := cmp.Diff([]Weight{{v2, 100}, {web, 1000}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestSetFailureClears(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	id := instanceID(t, "api:alice")
	register(t, s, "api:alice")
	for _, want := range []tenement.Failure{{Crashes: []time.Time{noon}, RetryAt: noon, Reason: "x"}, {}} {
		must(t, s.SetFailure(ctx, id, want))
		i, err := s.Instance(ctx, id)
		must(t, err)
		if diff := cmp.Diff(want, i.Failure); diff != "" {
			t.Error(diff)
		}
	}
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	id := instanceID(t, "api:alice")
	wantCode(t, s.PutProcess(ctx, tenement.InstanceID{Service: "api", Name: "../x"}, Process{}), tenement.CodeInvalid)
	noon := time.Date(2026, 1, 2, 12, 0, 0, 5, time.Local)
	process := Process{
		Ref: tenement.Ref{
			PID: 2, StartTime: 1<<63 + 1, BootID: "b", Port: 10_240, Cgroup: "/c",
			Isolation: tenement.IsolationProcess, Stdout: "/o", Stderr: "/e",
		},
		State: tenement.Starting, StartedAt: noon, ActiveAt: noon, HealthFailures: 2,
	}
	must(t, s.PutProcess(ctx, id, Process{Ref: tenement.Ref{PID: 1, Cgroup: "/old"}}))
	must(t, s.PutProcess(ctx, id, process))
	process.ActiveAt = noon.Add(time.Hour)
	gone := instanceID(t, "api:gone")
	must(t, s.PutActivity(ctx, map[tenement.InstanceID]time.Time{id: process.ActiveAt, gone: noon}))
	got, err := s.Processes(ctx)
	must(t, err)
	if diff := cmp.Diff(map[tenement.InstanceID]Process{id: process}, got); diff != "" {
		t.Error(diff)
	}
	must(t, s.DeleteProcess(ctx, id))
	if got, err = s.Processes(ctx); err != nil || len(got) != 0 {
		t.Errorf("still %v, %v", got, err)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	admin := tenement.Token{ID: "z", Scope: tenement.Scope{Role: tenement.RoleAdmin}, CreatedAt: noon}
	later := tenement.Token{ID: "a", Name: "ci", Scope: tenement.TenantScope("alice"), CreatedAt: noon.Add(1), ExpiresAt: noon.Add(2), LastUsed: noon.Add(3)}
	must(t, s.CreateToken(ctx, later, [32]byte{2}))
	must(t, s.CreateToken(ctx, admin, [32]byte{1}))
	wantCode(t, s.CreateToken(ctx, admin, [32]byte{3}), tenement.CodeConflict)
	wantCode(t, s.CreateToken(ctx, tenement.Token{ID: "b"}, [32]byte{1}), tenement.CodeConflict)
	wantCode(t, s.CreateToken(ctx, tenement.Token{}, [32]byte{4}), tenement.CodeInvalid)

	got, err := s.TokenByHash(ctx, [32]byte{2})
	must(t, err)
	if diff := cmp.Diff(later, got); diff != "" {
		t.Error(diff)
	}
	_, err = s.TokenByHash(ctx, [32]byte{9})
	wantCode(t, err, tenement.CodeNotFound)

	must(t, s.TouchToken(ctx, "z", noon.Add(time.Hour)))
	must(t, s.TouchToken(ctx, "z", noon)) // late news
	wantCode(t, s.TouchToken(ctx, "nothing", noon), tenement.CodeNotFound)
	admin.LastUsed = noon.Add(time.Hour)
	list, err := s.Tokens(ctx)
	must(t, err)
	if diff := cmp.Diff([]tenement.Token{admin, later}, list); diff != "" {
		t.Error(diff)
	}

	must(t, s.DeleteToken(ctx, "a"))
	wantCode(t, s.DeleteToken(ctx, "a"), tenement.CodeNotFound)
	_, err = s.TokenByHash(ctx, [32]byte{2})
	wantCode(t, err, tenement.CodeNotFound)
}

// TestConcurrentUse is for the race detector, and for "database is locked".
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	var users sync.WaitGroup
	for n := range 8 {
		users.Go(func() {
			id := tenement.InstanceID{Service: "api", Name: fmt.Sprint("t", n%4)}
			for range 10 {
				if err := useAll(ctx, s, id); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	users.Wait()
}

func useAll(ctx context.Context, s *Store, id tenement.InstanceID) error {
	_, err := s.Register(ctx, id, noon)
	_, lookup := s.Instance(ctx, id)
	_, list := s.Instances(ctx, Filter{})
	_, weights := s.Weights(ctx)
	return errors.Join(err, lookup, list, weights,
		s.SetWeights(ctx, Weight{id, 3}), s.PutProcess(ctx, id, Process{Ref: tenement.Ref{PID: 1}}),
		s.SetFailure(ctx, id, tenement.Failure{Reason: "x"}), s.AppendEvent(ctx, tenement.Event{Action: "x"}))
}

// BenchmarkInstance is the look-up that every wake waits for.
func BenchmarkInstance(b *testing.B) {
	const registered = 100_000
	s := openStore(b, b.TempDir())
	ctx := b.Context()
	_, err := s.write.ExecContext(ctx, `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO instances (service, name, created_at) SELECT 'api', 'tenant-' || i, 1 FROM n`, registered-1)
	must(b, err)
	lookup := func(n int) error {
		_, err := s.Instance(ctx, tenement.InstanceID{Service: "api", Name: "tenant-" + strconv.Itoa(n%registered)})
		return err
	}
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for n := 0; b.Loop(); n += 7919 {
			must(b, lookup(n))
		}
	})
	b.Run("unknown", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := s.Instance(ctx, tenement.InstanceID{Service: "api", Name: "nobody"})
			if tenement.CodeOf(err) != tenement.CodeNotFound {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for n := 0; pb.Next(); n += 7919 {
				if err := lookup(n); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
