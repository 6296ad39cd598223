package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"tenement"
)

// TestALinkOfATenantShowsNothing: arguments often name a file of the data directory, and
// its tenant may have made it a link to anything.
func TestALinkOfATenantShowsNothing(t *testing.T) {
	t.Parallel()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"data/api/alice", "data/web/bob", "shared", "etc"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	secret, own, shared := filepath.Join(top, "data/web/bob"), filepath.Join(top, "data/api/alice"), filepath.Join(top, "shared")
	err = errors.Join(
		os.WriteFile(filepath.Join(secret, "db"), nil, 0o755),
		os.Symlink(filepath.Join(secret, "db"), filepath.Join(own, "db")),
		os.Symlink(secret, filepath.Join(own, "dir")),
		os.Symlink(secret, filepath.Join(shared, "dir")),
		os.Symlink(filepath.Join(own, "db"), filepath.Join(top, "etc/by-the-operator")),
	)
	if err != nil {
		t.Fatal(err)
	}
	s := Spec{
		Instance: tenement.InstanceID{Service: "api", Name: "alice"}, DataDir: own,
		Service: &tenement.Service{Name: "api", DataDir: filepath.Dir(own), Egress: tenement.EgressDeny, Writable: []string{shared}},
	}
	for _, path := range []string{own + "/db", own + "/dir/db", shared + "/dir/db", top + "/etc/by-the-operator"} {
		for what, c := range map[string]command{
			"argument": {path: "/bin/sh", args: []string{"sh", path}, dir: own},
			"program":  {path: path, args: []string{path}, dir: own},
			"workdir":  {path: "/bin/sh", args: []string{"sh"}, dir: path},
		} {
			v, err := newView(s.Service, ownPaths(s, c))
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range slices.Concat(v.binds, v.late) {
				if within(secret, b.source) {
					t.Errorf("%s %s shows %s at %s", what, path, b.source, b.path)
				}
			}
		}
	}
}

func TestTheRootIsNotShownAsAWorkingDirectory(t *testing.T) {
	t.Parallel()
	s := Spec{DataDir: "/var/lib/tenement/api/alice", Service: &tenement.Service{DataDir: "/var/lib/tenement/api"}}
	for _, dir := range []string{"/", "/var", "/var/lib/tenement"} {
		if got := ownPaths(s, command{path: s.DataDir + "/app", args: []string{"app"}, dir: dir}); len(got) > 0 {
			t.Errorf("working directory %s: %v", dir, got)
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		os.MkdirAll(filepath.Join(top, "a/b"), 0o700),
		os.Symlink("b/../b", filepath.Join(top, "a/relative")),
		os.Symlink(filepath.Join(top, "a/relative"), filepath.Join(top, "absolute")),
		os.Symlink("loop", filepath.Join(top, "loop")),
	)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := resolve(filepath.Join(top, "absolute")+"/", nil); err != nil || got != filepath.Join(top, "a/b") {
		t.Errorf("%s, %v", got, err)
	}
	for _, path := range []string{"loop", "missing", "a/missing/x"} {
		if got, err := resolve(filepath.Join(top, path), nil); err == nil {
			t.Errorf("%s: %s", path, got)
		}
	}
}
