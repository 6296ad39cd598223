package disk

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tenement"
)

// Numbers of users that no machine has.
const (
	aliceUID = 1_999_000_001
	bobUID   = 1_999_000_002
)

func requireRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), "root"):
		t.Fatal("this is not root")
	default:
		t.Skip("only root gives files away: run the tests of internal/disk as root")
	}
}

// wantOwner looks at paths and everything below them.
func wantOwner(t *testing.T, uid int, paths ...string) {
	t.Helper()
	for _, path := range paths {
		must(t, filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if stat := statOf(info); err == nil && (int(stat.Uid) != uid || int(stat.Gid) != uid) {
				t.Errorf("%s belongs to %d:%d, want %d", path, stat.Uid, stat.Gid, uid)
			}
			return err
		}))
	}
}

// TestHandOver: a directory goes from the daemon to a user, to another one, and back.
func TestHandOver(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	r, root := open(t)
	dir, err := r.Make(t.Context(), alice, 0)
	must(t, err)
	wantOwner(t, 0, root)
	outside := filepath.Join(filepath.Dir(root), "outside")
	secret := writeFile(t, 1, outside, "secret")
	fill(t, dir, outside)
	must(t, os.Link(filepath.Join(dir, "app.db"), filepath.Join(dir, "deep", "second name")))
	setuid := writeFile(t, 1, dir, "setuid")
	must(t, os.Chmod(setuid, fs.ModeSetuid|fs.ModeSetgid|0o755))
	for _, uid := range []int{aliceUID, bobUID, bobUID, 0} {
		_, err := r.Make(t.Context(), alice, uid)
		must(t, err)
		wantOwner(t, uid, dir)
		wantOwner(t, 0, secret)
		wantMode(t, dir, fs.ModeDir|0o700)
		wantMode(t, setuid, 0o755)
		if stat := statOf(must2(os.Lstat(filepath.Dir(dir)))); stat.Uid != 0 {
			t.Errorf("the service's directory belongs to %d", stat.Uid)
		}
	}
	_, err = r.Make(t.Context(), alice, aliceUID)
	must(t, err)
	must(t, r.Empty(alice))
	must(t, r.Remove(alice, aliceUID))
	wantGone(t, dir)
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestInterruptedHandOver: it is made good by the next start.
func TestInterruptedHandOver(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	r, _ := open(t)
	dir, err := r.Make(t.Context(), alice, bobUID)
	must(t, err)
	first := writeFile(t, 1, dir, "a", "first")
	writeFile(t, 1, dir, "b", "second")
	must(t, os.Link(first, filepath.Join(dir, "first's other name")))
	must(t, os.Lchown(first, aliceUID, aliceUID)) // as far as it came
	_, err = r.Make(t.Context(), alice, aliceUID)
	must(t, err)
	wantOwner(t, aliceUID, dir)
}

// TestPlantedForHandOver: what the tenant put there while it was the same user as
// others is not given to it, and then nothing is.
func TestPlantedForHandOver(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	for what, plant := range map[string]func(place, victim string) error{
		"hard link": func(place, victim string) error { return os.Link(victim, place) },
		"hard link twice": func(place, victim string) error {
			if err := os.Link(victim, place+"2"); err != nil {
				return err
			}
			return os.Link(victim, place)
		},
		"device": func(place, _ string) error { return syscall.Mknod(place, syscall.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r, _ := open(t)
			bob, err := r.Make(t.Context(), tenement.InstanceID{Service: "api", Name: "bob"}, 0)
			must(t, err)
			victim := writeFile(t, 5, bob, "app.db")
			dir, err := r.Make(t.Context(), alice, 0)
			must(t, err)
			own := writeFile(t, 1, dir, "a", "own")
			must(t, os.Link(own, filepath.Join(dir, "own again")))
			if err := plant(filepath.Join(dir, "a", "planted"), victim); err != nil {
				t.Fatal(err)
			}
			_, err = r.Make(t.Context(), alice, aliceUID)
			wantConflict(t, err)
			if err == nil || !strings.Contains(err.Error(), "a/planted") {
				t.Errorf("%v does not name it", err)
			}
			wantOwner(t, 0, bob, dir)

			must(t, os.RemoveAll(filepath.Join(dir, "a", "planted")))
			must(t, os.RemoveAll(filepath.Join(dir, "a", "planted2")))
			_, err = r.Make(t.Context(), alice, aliceUID)
			must(t, err)
			wantOwner(t, aliceUID, dir)
			wantOwner(t, 0, bob)
		})
	}
}

// TestOnlyRootGivesAway, and whoever is not is told so.
func TestOnlyRootGivesAway(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	r, root := open(t)
	dir, err := r.Make(t.Context(), alice, 0)
	must(t, err)
	paths := []string{root, filepath.Dir(dir), dir}
	asOrdinaryUser(t, paths, func() { _, err = r.Make(t.Context(), alice, aliceUID) })
	if tenement.CodeOf(err) != tenement.CodeForbidden || !strings.Contains(tenement.HintOf(err), "isolation") {
		t.Errorf("%v, hint %q", err, tenement.HintOf(err))
	}
}

// TestMeasuredWithoutProjectQuotas: where a file system has none, or the daemon's own
// user is to be bounded, it is said that somebody has to measure.
func TestMeasuredWithoutProjectQuotas(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	for _, uid := range []int{0, aliceUID} {
		if uid != 0 {
			requireRoot(t)
		}
		dir, err := r.Make(t.Context(), alice, uid)
		must(t, err)
		if able, err := ProjectQuotas(dir); err != nil || able != r.enforces() {
			t.Errorf("%v, %v", able, err)
		}
		if uid != 0 && r.enforces() {
			t.Skip("the file system of temporary files has project quotas: this one is for those without")
		}
		writeFile(t, 1<<20, dir, "file")
		for _, quota := range []tenement.Bytes{1 << 20, 0} {
			how, err := r.Limit(t.Context(), alice, uid, quota)
			s, lookErr := r.Storage(t.Context(), alice, uid, uid != 0, quota)
			want := Measured
			if quota == 0 {
				want = Unbounded
			}
			if err != nil || lookErr != nil || how != want || s.Enforcement != want || s.Limit != LimitOf(quota) || s.Path != dir || s.Use.Bytes < 1<<20 {
				t.Errorf("uid %d, quota %d: %s, %v; %+v, %v", uid, quota, how, err, s, lookErr)
			}
		}
	}
}
