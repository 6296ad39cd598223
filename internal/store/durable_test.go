package store

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"tenement"
)

// TestWhatWaitsForTheDisk: what an operator asked for fails when the log cannot be
// synced, and what a wake waits for does not even try.
func TestWhatWaitsForTheDisk(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	id := tenement.InstanceID{Service: "api", Name: "alice"}
	other := tenement.InstanceID{Service: "api", Name: "bob"}
	if _, err := s.Register(t.Context(), id, time.Now()); err != nil {
		t.Fatal(err)
	}
	s.log = filepath.Join(t.TempDir(), "no such log")
	for _, test := range []struct {
		name  string
		waits bool
		do    func(context.Context) error
	}{
		{"register", true, func(ctx context.Context) error { _, err := s.Register(ctx, other, time.Now()); return err }},
		{"suspend", true, func(ctx context.Context) error { return s.SetSuspended(ctx, id, true) }},
		{"weights", true, func(ctx context.Context) error { return s.SetWeights(ctx, Weight{ID: id, Weight: 1}) }},
		{"create token", true, func(ctx context.Context) error { return s.CreateToken(ctx, tenement.Token{ID: "x"}, [32]byte{}) }},
		{"delete token", true, func(ctx context.Context) error { return s.DeleteToken(ctx, "x") }},
		{"delete", true, func(ctx context.Context) error { return s.Delete(ctx, other) }},
		{"process", false, func(ctx context.Context) error { return s.PutProcess(ctx, id, Process{Ref: tenement.Ref{PID: 1}}) }},
		{"process ended", false, func(ctx context.Context) error { return s.DeleteProcess(ctx, id) }},
		{"failure", false, func(ctx context.Context) error { return s.SetFailure(ctx, id, tenement.Failure{Reason: "x"}) }},
		{"event", false, func(ctx context.Context) error { return s.AppendEvent(ctx, tenement.Event{Action: "x"}) }},
	} {
		if err := test.do(t.Context()); (err != nil) != test.waits {
			t.Errorf("%s: error %v; waits for the disk: want %v", test.name, err, test.waits)
		}
	}
}
