package memory

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"tenement"
)

func TestMachine(t *testing.T) {
	t.Parallel()
	got, err := machine("MemTotal:       24683520 kB\nMemFree:         100 kB\nMemAvailable:   2048 kB\n")
	if got != 2<<20 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
	for _, text := range []string{"", "MemFree: 1 kB\n", "MemAvailable: much kB\n"} {
		if _, err := machine(text); err == nil {
			t.Errorf("%q is no error", text)
		}
	}
}

func TestAvailableHere(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's /proc/meminfo")
	}
	if got, err := Available("", ""); got <= 0 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
}

// TestHeadroom walks from a group without a limit to the one above the mount's root.
func TestHeadroom(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	group := filepath.Join(root, "system.slice", "ten.service")
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(dir, name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := func(want tenement.Bytes) {
		t.Helper()
		if got, err := headroom(root, group); got != want || err != nil {
			t.Errorf("%d, want %d, %v", got, want, err)
		}
	}
	want(math.MaxInt64)
	write(group, "memory.max", "max\n")
	want(math.MaxInt64)
	for dir, current := range map[string]string{group: "700\n", filepath.Dir(group): "900\n"} {
		write(dir, "memory.current", current)
		write(dir, "memory.stat", "anon 600\nfile 300\ninactive_file 100\n")
	}
	write(group, "memory.max", "1000\n")
	want(400)
	write(group, "memory.high", "800\n")
	want(200)
	write(filepath.Dir(group), "memory.max", "900\n")
	want(100)
	write(filepath.Dir(group), "memory.max", "300\n")
	want(0)
	write(group, "memory.max", "lots\n")
	if _, err := headroom(root, group); err == nil {
		t.Error("a limit that cannot be read is no error")
	}
}
