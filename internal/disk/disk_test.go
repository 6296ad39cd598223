package disk

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tenement"
)

var alice = tenement.InstanceID{Service: "api", Name: "alice"}

func open(t *testing.T) (*Root, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data")
	r, err := Open(path)
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r, path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	must(t, err)
	if info.Mode() != want {
		t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
	}
}

func wantGone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("%s is there: %v", path, err)
	}
}

// wantConflict wants a hint too: the operator has to tidy up.
func wantConflict(t *testing.T, err error) {
	t.Helper()
	if tenement.CodeOf(err) != tenement.CodeConflict || tenement.HintOf(err) == "" {
		t.Errorf("error %v has code %q, hint %q", err, tenement.CodeOf(err), tenement.HintOf(err))
	}
}

func writeFile(t *testing.T, size int, path ...string) string {
	t.Helper()
	name := filepath.Join(path...)
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, make([]byte, size), 0o644))
	return name
}

func TestOpen(t *testing.T) {
	t.Parallel()
	_, path := open(t)
	wantMode(t, path, fs.ModeDir|0o700)

	existing := filepath.Join(t.TempDir(), "existing")
	must(t, os.Mkdir(existing, 0o755))
	r, err := Open(existing)
	must(t, err)
	must(t, r.Close())
	wantMode(t, existing, fs.ModeDir|0o755)

	_, err = Open(writeFile(t, 1, path, "file"))
	if tenement.CodeOf(err) != tenement.CodeInternal || tenement.HintOf(err) == "" {
		t.Errorf("a file as root: %v, hint %q", err, tenement.HintOf(err))
	}
}

func TestMake(t *testing.T) {
	t.Parallel()
	r, root := open(t)
	for range 2 {
		path, err := r.Make(t.Context(), alice, 0)
		must(t, err)
		if want := filepath.Join(root, "api", "alice"); path != want {
			t.Errorf("path %s, want %s", path, want)
		}
		wantMode(t, path, fs.ModeDir|0o700)
		wantMode(t, filepath.Dir(path), fs.ModeDir|0o700)
		// What a careless operator may do, and the next round has to correct.
		must(t, os.Chmod(path, 0o755|fs.ModeSetgid))
		must(t, os.Chmod(filepath.Dir(path), 0o777|fs.ModeSticky))
	}
	_, err := r.Make(t.Context(), alice, 0)
	must(t, err)
	wantMode(t, filepath.Join(root, "api"), fs.ModeDir|0o700)
	wantMode(t, filepath.Join(root, "api", "alice"), fs.ModeDir|0o700)
}

func TestMakeKeepsContent(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	path, err := r.Make(t.Context(), alice, 0)
	must(t, err)
	file := writeFile(t, 3, path, "app.db")
	_, err = r.Make(t.Context(), alice, 0)
	must(t, err)
	wantMode(t, file, 0o644)
}

// TestRelativeRoot: the path goes into the environment of a process that runs elsewhere.
func TestRelativeRoot(t *testing.T) {
	t.Chdir(t.TempDir())
	r, err := Open("data")
	must(t, err)
	defer r.Close()
	path, err := r.Make(t.Context(), alice, 0)
	must(t, err)
	if !filepath.IsAbs(path) {
		t.Errorf("%s is not absolute", path)
	}
}

func TestInvalidNames(t *testing.T) {
	t.Parallel()
	r, root := open(t)
	victim := writeFile(t, 1, filepath.Dir(root), "victim")
	for _, id := range []tenement.InstanceID{
		{}, {Service: "api"}, {Name: "alice"}, {Service: "..", Name: "victim"}, {Service: "api", Name: ".."},
		{Service: "api", Name: "."}, {Service: "api", Name: "../../victim"}, {Service: ".tenement", Name: "x"},
		{Service: "api", Name: "a/b"}, {Service: "/", Name: "etc"}, {Service: "api", Name: "a\x00"},
	} {
		_, makeErr := r.Make(t.Context(), id, 0)
		_, usageErr := r.Measure(t.Context(), id, Limit{})
		_, limitErr := r.Limit(t.Context(), id, 0, 1<<20)
		_, lookErr := r.Storage(t.Context(), id, 0, false, 0)
		for _, err := range []error{makeErr, usageErr, limitErr, lookErr, r.Empty(id), r.Remove(id, 0)} {
			if tenement.CodeOf(err) != tenement.CodeInvalid {
				t.Errorf("%q: %v", id, err)
			}
		}
	}
	wantMode(t, victim, 0o644)
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
		t.Errorf("something was made: %v, %v", entries, err)
	}
}

// planted puts something that is no directory in the place of a service's or an
// instance's. The links lead outside and, as os.Root would follow them, inside.
var planted = map[string]func(place, elsewhere string) error{
	"absolute link": func(place, elsewhere string) error { return os.Symlink(elsewhere, place) },
	"relative link": func(place, elsewhere string) error {
		target, err := filepath.Rel(filepath.Dir(place), elsewhere)
		if err != nil {
			return err
		}
		return os.Symlink(target, place)
	},
	"dangling link": func(place, _ string) error { return os.Symlink("nowhere", place) },
	"file":          func(place, _ string) error { return os.WriteFile(place, nil, 0o600) },
	"fifo":          func(place, _ string) error { return syscall.Mkfifo(place, 0o600) },
}

func TestPlanted(t *testing.T) {
	t.Parallel()
	for what, plant := range planted {
		for _, where := range []string{"api", "api/alice"} {
			for _, target := range []string{"../outside", "web/bob"} {
				t.Run(what+" at "+where+" to "+target, func(t *testing.T) {
					t.Parallel()
					r, root := open(t)
					elsewhere := filepath.Join(root, target)
					victim := writeFile(t, 5, elsewhere, "alice", "app.db")
					must(t, os.Chmod(elsewhere, 0o755))
					place := filepath.Join(root, where)
					must(t, os.MkdirAll(filepath.Dir(place), 0o700))
					must(t, plant(place, elsewhere))

					_, err := r.Make(t.Context(), alice, 0)
					wantConflict(t, err)
					_, err = r.Measure(t.Context(), alice, Limit{})
					wantConflict(t, err)
					wantConflict(t, r.Empty(alice))
					if where == "api" {
						wantConflict(t, r.Remove(alice, 0))
					} else {
						must(t, r.Remove(alice, 0))
						wantGone(t, place)
					}
					wantMode(t, victim, 0o644)
					wantMode(t, elsewhere, fs.ModeDir|0o755)
				})
			}
		}
	}
}

// fill makes what a tenant may leave, with links to everything it should not
// reach, and returns how many names that are.
func fill(t *testing.T, dir, outside string) int {
	t.Helper()
	writeFile(t, 10, dir, "app.db")
	writeFile(t, 200, dir, "deep", "deeper", ".hidden")
	must(t, os.Mkdir(filepath.Join(dir, "empty"), 0o000))
	for name, target := range map[string]string{
		"file": filepath.Join(outside, "secret"), "dir": outside, "up": "../..", "self": ".", "loop": "loop", "deep/up": "../../../..",
	} {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	must(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	sparse := writeFile(t, 0, dir, "sparse")
	must(t, os.Truncate(sparse, 1<<30))
	return 13
}

func TestEmptyRemoveMeasure(t *testing.T) {
	t.Parallel()
	r, root := open(t)
	outside := filepath.Join(filepath.Dir(root), "outside")
	victims := []string{writeFile(t, 1<<20, outside, "secret"), writeFile(t, 2<<20, outside, "sub", "secret")}
	bob, err := r.Make(t.Context(), tenement.InstanceID{Service: "api", Name: "bob"}, 0)
	must(t, err)
	victims = append(victims, writeFile(t, 4<<20, bob, "app.db"))
	for end, do := range map[string]func(tenement.InstanceID) error{
		"empty":  r.Empty,
		"remove": func(id tenement.InstanceID) error { return r.Remove(id, 0) },
	} {
		dir, err := r.Make(t.Context(), alice, 0)
		must(t, err)
		empty := measured(t, r, Limit{})
		names := fill(t, dir, outside)
		if got := measured(t, r, Limit{}); got.Files != empty.Files+names || got.Bytes > 1<<20 {
			t.Errorf("%+v, of which %+v was there before, want %d names more, and nothing for what is elsewhere or a hole", got, empty, names)
		}
		must(t, do(alice))
		entries, err := os.ReadDir(dir)
		if gone := os.IsNotExist(err); gone != (end == "remove") || len(entries) > 0 {
			t.Errorf("after %s: %v, %v", end, entries, err)
		}
		if got := measured(t, r, Limit{}); got.Files > 1 {
			t.Errorf("after %s: %+v", end, got)
		}
	}
	for _, victim := range victims {
		wantMode(t, victim, 0o644)
	}
}

func TestAbsent(t *testing.T) {
	t.Parallel()
	r, root := open(t)
	for _, service := range []string{"", "api"} { // neither directory, then the service's only
		must(t, os.MkdirAll(filepath.Join(root, service), 0o700))
		must(t, r.Empty(alice))
		must(t, r.Remove(alice, 0))
		if got := measured(t, r, Limit{}); got != (Use{}) {
			t.Errorf("it takes %+v", got)
		}
		wantGone(t, filepath.Join(root, "api", "alice"))
	}
}

// TestRootIsHeld: the directory that was opened is used, whatever its path leads
// to later.
func TestRootIsHeld(t *testing.T) {
	t.Parallel()
	r, root := open(t)
	must(t, os.Rename(root, root+".old"))
	victim := writeFile(t, 1, root, "api", "alice", "app.db")
	must(t, r.Remove(alice, 0))
	wantMode(t, victim, 0o644)
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for range 20 {
				path, err := r.Make(t.Context(), alice, 0)
				if err != nil {
					t.Error(err)
					return
				}
				if !strings.HasSuffix(path, "/api/alice") {
					t.Error(path)
				}
				if _, err := r.Measure(t.Context(), alice, Limit{}); err != nil {
					t.Error(err)
				}
				if err := r.Empty(alice); err != nil {
					t.Error(err)
				}
			}
		})
	}
	users.Wait()
}
