package daemon_test

import (
	"bytes"
	"testing"
	"time"

	"tenement"
	"tenement/internal/api"
)

func TestProfile(t *testing.T) {
	t.Parallel()
	s := build(t, settings+service("api", ""))
	for _, kind := range api.ProfileKinds {
		begins := []byte{0x1f, 0x8b} // gzip, as pprof has it
		if kind == api.ProfileTrace {
			begins = []byte("go 1.")
		}
		profile, err := s.api.Profile(t.Context(), kind, time.Second)
		if err != nil || !bytes.HasPrefix(profile, begins) {
			t.Errorf("%s: %.20q, %v", kind, profile, err)
		}
	}
	if _, err := s.api.Profile(t.Context(), "pgo", time.Second); tenement.CodeOf(err) != tenement.CodeInvalid {
		t.Errorf("an unknown kind: %v", err)
	}
}
