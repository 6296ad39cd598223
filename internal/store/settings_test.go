package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	alice, bob := instanceID(t, "api:alice"), instanceID(t, "api:bob")
	if err := s.PutSettings(t.Context(), alice, map[string][]byte{"a": []byte("1")}, nil); tenement.CodeOf(err) != tenement.CodeNotFound {
		t.Errorf("settings of what is not registered: %v", err)
	}
	for _, id := range []tenement.InstanceID{alice, bob} {
		_, err := s.Register(t.Context(), id, time.Now())
		must(t, err)
		must(t, s.PutSettings(t.Context(), id, map[string][]byte{"a": []byte("1"), "b": {0, 255}, "c": {}}, nil))
	}
	must(t, s.PutSettings(t.Context(), alice, map[string][]byte{"a": []byte("2"), "b": nil, "none": nil}, nil))
	wants := func(id tenement.InstanceID, want map[string]string) {
		t.Helper()
		got, err := s.Settings(t.Context(), id)
		must(t, err)
		texts := map[string]string{}
		for key, value := range got {
			texts[key] = string(value)
		}
		if diff := cmp.Diff(want, texts); diff != "" {
			t.Errorf("settings of %s (-want +got):\n%s", id, diff)
		}
	}
	wants(alice, map[string]string{"a": "2", "c": ""})
	wants(bob, map[string]string{"a": "1", "b": "\x00\xff", "c": ""})

	must(t, s.Delete(t.Context(), alice))
	_, err := s.Register(t.Context(), alice, time.Now())
	must(t, err)
	wants(alice, map[string]string{})
	wants(bob, map[string]string{"a": "1", "b": "\x00\xff", "c": ""})
}

// TestCronOfAnInstance: when its lines are due is kept with its settings, beside its alarms.
func TestCronOfAnInstance(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	register(t, s, "api:alice", "api:bob", "api:carol", "web:bob")
	alice := instanceID(t, "api:alice")
	for _, text := range []string{"api:alice", "api:bob", "api:carol", "web:bob"} {
		must(t, s.PutSettings(ctx, instanceID(t, text), map[string][]byte{"cron.a": []byte("false"), "b": {}}, nil))
	}
	with, err := s.WithSetting(ctx, "api", "cron.a", "alice", "bob")
	must(t, err)
	if diff := cmp.Diff(map[string]bool{"bob": true}, with); diff != "" {
		t.Error(diff)
	}

	wantCode(t, s.PutSettings(ctx, instanceID(t, "api:nobody"), nil, map[string]time.Time{"a": noon}), tenement.CodeNotFound)
	must(t, s.PutSettings(ctx, alice, nil, map[string]time.Time{"a": noon, "b": noon.Add(time.Hour)}))
	must(t, s.PutSettings(ctx, alice, nil, map[string]time.Time{"a": noon.Add(time.Minute), "b": {}}))
	for n := range MaxAlarms { // which are counted without the lines
		must(t, s.SetAlarm(ctx, alice, fmt.Sprint(n), noon.Add(2*time.Hour)))
	}
	if list, err := s.Alarms(ctx, alice); len(list) != MaxAlarms || err != nil {
		t.Errorf("alarms: %q, %v", alarmNames(list), err)
	}
	due, err := s.DueAlarms(ctx, noon.Add(time.Hour), 10)
	must(t, err)
	if name, ok := due[0].CronLine(); len(due) != 1 || !ok || name != "a" || !due[0].At.Equal(noon.Add(time.Minute)) {
		t.Errorf("due: %+v", due)
	}
	for _, want := range []bool{true, false} { // it is another one by then
		if moved, err := s.Move(ctx, due[0], noon.Add(3*time.Minute)); moved != want || err != nil {
			t.Errorf("moved: %v, %v", moved, err)
		}
	}
	if next, err := s.NextAlarm(ctx); !next.Equal(noon.Add(3*time.Minute)) || err != nil {
		t.Errorf("the next is due at %v, %v", next, err)
	}
	must(t, s.Delete(ctx, alice))
	if next, err := s.NextAlarm(ctx); !next.IsZero() || err != nil {
		t.Errorf("after it was deleted: %v, %v", next, err)
	}
}
