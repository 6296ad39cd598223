package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tenement"
)

func alarmNames(list []Alarm) string {
	var names []string
	for _, a := range list {
		names = append(names, a.ID.Name+"/"+a.Name)
	}
	return strings.Join(names, " ")
}

func TestAlarms(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	register(t, s, "api:alice", "api:bob")
	alice, bob := instanceID(t, "api:alice"), instanceID(t, "api:bob")
	next := func(want time.Time) {
		t.Helper()
		if got, err := s.NextAlarm(ctx); err != nil || !got.Equal(want) {
			t.Errorf("the next one is due %v, %v, want %v", got, err, want)
		}
	}
	next(time.Time{})
	must(t, s.SetAlarm(ctx, alice, "late", noon.Add(time.Hour)))
	must(t, s.SetAlarm(ctx, bob, "x", noon.Add(2*time.Hour)))
	must(t, s.SetAlarm(ctx, alice, "early", noon))
	must(t, s.SetAlarm(ctx, bob, "x", noon.Add(time.Minute))) // anew
	next(noon)

	list, err := s.Alarms(ctx, alice)
	if got := alarmNames(list); err != nil || got != "alice/early alice/late" {
		t.Errorf("alice has %q, %v", got, err)
	}
	due, err := s.DueAlarms(ctx, noon.Add(time.Minute), 10)
	if got := alarmNames(due); err != nil || got != "alice/early bob/x" {
		t.Errorf("due are %q, %v", got, err)
	}
	must(t, s.PutOff(ctx, due[0], noon.Add(3*time.Minute)))
	next(noon.Add(time.Minute))
	must(t, s.SetAlarm(ctx, bob, "x", noon.Add(2*time.Minute)))
	must(t, s.Rung(ctx, due[1])) // which has another time by now
	next(noon.Add(2 * time.Minute))
	must(t, s.DeleteAlarm(ctx, bob, "x"))
	must(t, s.DeleteAlarm(ctx, bob, "x"))
	next(noon.Add(3 * time.Minute))
	must(t, s.Rung(ctx, due[0]))
	next(noon.Add(time.Hour))
	must(t, s.Delete(ctx, alice))
	next(time.Time{})
	wantCode(t, s.SetAlarm(ctx, alice, "x", noon), tenement.CodeNotFound)
}

func TestAlarmsAreBounded(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	register(t, s, "api:alice")
	id := instanceID(t, "api:alice")
	for n := range MaxAlarms {
		must(t, s.SetAlarm(ctx, id, fmt.Sprint(n), noon))
	}
	must(t, s.SetAlarm(ctx, id, "3", noon))
	wantCode(t, s.SetAlarm(ctx, id, "one more", noon), tenement.CodeFull)
}

// TestAlarmsSeek: neither look-up may walk over what is not due.
func TestAlarmsSeek(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	for _, text := range []string{"SELECT label FROM alarms WHERE due <= 1 ORDER BY due LIMIT 1", "SELECT due FROM alarms ORDER BY due LIMIT 1"} {
		rows, err := s.read.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+text)
		must(t, err)
		list, err := collect(rows, func(r row) (detail string, err error) {
			var ignored int
			err = r.Scan(&ignored, &ignored, &ignored, &detail)
			return detail, err
		})
		must(t, err)
		if plan := strings.Join(list, "; "); !strings.Contains(plan, "INDEX alarms_by_due") || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s: %s", text, plan)
		}
	}
}
