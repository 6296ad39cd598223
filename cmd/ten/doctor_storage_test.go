package main

import (
	"path/filepath"
	"strings"
	"testing"

	"tenement"
	"tenement/internal/config"
	"tenement/internal/disk"
)

// TestDoctorOnStorageQuotas: that a quota is only measured is worth a warning where
// there is one, also before the data directory is made.
func TestDoctorOnStorageQuotas(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kept, err := disk.ProjectQuotas(dir)
	if err != nil {
		t.Fatal(err)
	}
	for quota, want := range map[tenement.Bytes]verdict{0: verdictOK, 1 << 20: verdictWarn} {
		if kept {
			want = verdictOK
		}
		e := &examination{
			dataDir: filepath.Join(dir, "not", "yet"),
			config:  &config.Config{Services: map[string]*tenement.Service{"api": {Limits: tenement.Limits{Storage: quota}}}},
		}
		got := checkStorageQuotas(t.Context(), e)
		if len(got) != 1 || got[0].Verdict != want || (got[0].Hint != "") != (want == verdictWarn) || !strings.Contains(got[0].Detail, e.dataDir) {
			t.Errorf("quota %d: %+v, want %s", quota, got, want)
		}
	}
}
