package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestMakePlaceFollowsNoLink: below what a service may change a tenant may have put one.
func TestMakePlaceFollowsNoLink(t *testing.T) {
	t.Parallel()
	root, outside := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(root, "shared"), 0o755), os.Symlink(outside, filepath.Join(root, "shared/link")), os.Symlink(outside+"/file", filepath.Join(root, "shared/file"))); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []bool{true, false} {
		for path, bad := range map[string]bool{"/shared/link/a": true, "/shared/link/a/b": true, "/shared/file": false, "/shared/link": false, "/shared": false, "/new/place": false} {
			if err := makePlace(root, path, dir); (err != nil) != bad {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	if made, err := os.ReadDir(outside); err != nil || len(made) > 0 {
		t.Errorf("made outside: %v, %v", made, err)
	}
	for _, path := range []string{"file", "dir"} {
		if err := makePlace(root, "/here/"+path, path == "dir"); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(filepath.Join(root, "here", path)); err != nil || info.IsDir() != (path == "dir") {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}
