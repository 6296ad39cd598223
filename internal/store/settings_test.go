package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	alice, bob := instanceID(t, "api:alice"), instanceID(t, "api:bob")
	if err := s.PutSettings(t.Context(), alice, map[string][]byte{"a": []byte("1")}); tenement.CodeOf(err) != tenement.CodeNotFound {
		t.Errorf("settings of what is not registered: %v", err)
	}
	for _, id := range []tenement.InstanceID{alice, bob} {
		_, err := s.Register(t.Context(), id, time.Now())
		must(t, err)
		must(t, s.PutSettings(t.Context(), id, map[string][]byte{"a": []byte("1"), "b": {0, 255}, "c": {}}))
	}
	must(t, s.PutSettings(t.Context(), alice, map[string][]byte{"a": []byte("2"), "b": nil, "none": nil}))
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
