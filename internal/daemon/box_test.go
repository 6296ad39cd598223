package daemon_test

import (
	"testing"

	"tenement"
)

// TestBox counts every instance once, by the state it is in.
func TestBox(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	s.spawn("api:alice", "api:bob", "api:carol")
	s.get("http://alice.api.localhost/pid")
	if err := s.api.Suspend(t.Context(), id(t, "api:bob")); err != nil {
		t.Fatal(err)
	}
	s.until("api:alice", tenement.Ready)
	s.until("api:bob", tenement.Suspended)
	box, err := s.api.Box(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(box.States) != 3 || box.States["ready"] != 1 || box.States["suspended"] != 1 || box.States["asleep"] != 1 {
		t.Errorf("states %v", box.States)
	}
	if len(box.Services) != 1 || box.Services[0] != "api" || box.Cores < 1 || box.Disk.Total <= 0 || box.Disk.Available > box.Disk.Total || box.StartedAt.IsZero() {
		t.Errorf("box %+v", box)
	}
}
