package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"tenement"
)

func measured(t *testing.T, r *Root, stop Limit) Use {
	t.Helper()
	use, err := r.Measure(t.Context(), alice, stop)
	must(t, err)
	return use
}

// TestMeasureCountsBlocks as the file system does: a hole is none, and a second name of
// a file is a name.
func TestMeasureCountsBlocks(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	dir, err := r.Make(t.Context(), alice, 0)
	must(t, err)
	before := measured(t, r, Limit{})
	file := writeFile(t, 3<<20, dir, "deep", "app.db")
	must(t, os.Link(file, filepath.Join(dir, "again")))
	must(t, os.Symlink(file, filepath.Join(dir, "link")))
	got := measured(t, r, Limit{})
	if got.Files != before.Files+4 {
		t.Errorf("%d names, want 4 more than %d", got.Files, before.Files)
	}
	if grown := got.Bytes - before.Bytes; grown < 3<<20 || grown > 3<<20+64<<10 {
		t.Errorf("3 MiB took %d bytes", grown)
	}
}

// TestMeasureStopsAtTheLimit: what is far beyond takes no longer than what is not.
func TestMeasureStopsAtTheLimit(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	dir, err := r.Make(t.Context(), alice, 0)
	must(t, err)
	for n := range 100 {
		writeFile(t, 64<<10, dir, fmt.Sprint(n))
	}
	for _, stop := range []Limit{{Files: 10}, {Bytes: 640 << 10}} {
		if got := measured(t, r, stop); !stop.Reached(got) || got.Files > 20 {
			t.Errorf("with %+v it has looked at %+v", stop, got)
		}
	}
}

// TestTooDeepIsRefused: each level costs a descriptor of the daemon's.
func TestTooDeepIsRefused(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	dir, err := r.Make(t.Context(), alice, 0)
	must(t, err)
	deepen := func(levels int) {
		for range levels {
			dir = filepath.Join(dir, "d")
			must(t, os.Mkdir(dir, 0o700))
		}
	}
	deepen(maxDepth)
	if got := measured(t, r, Limit{}); got.Files != maxDepth+1 {
		t.Errorf("%+v", got)
	}
	deepen(1)
	_, err = r.Measure(t.Context(), alice, Limit{})
	wantConflict(t, err)
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for bytes, want := range map[tenement.Bytes]Limit{
		0: {}, 1 << 20: {1 << 20, 1000}, 1 << 30: {1 << 30, 65536},
	} {
		if got := LimitOf(bytes); got != want {
			t.Errorf("%d bytes: %+v, want %+v", bytes, got, want)
		}
	}
	limit := Limit{Bytes: 10, Files: 3}
	for use, want := range map[Use]bool{{9, 2}: false, {10, 2}: true, {0, 3}: true, {11, 4}: true} {
		if limit.Reached(use) != want || (Limit{}).Reached(use) {
			t.Errorf("%+v", use)
		}
	}
}
