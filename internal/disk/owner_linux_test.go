package disk

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// asOrdinaryUser runs do on a thread whose file accesses are those of a user
// without privileges (setfsuid(2) drops the capabilities that override modes).
// Who is no root is such a user already.
func asOrdinaryUser(t *testing.T, paths []string, do func()) {
	if os.Getuid() != 0 {
		do()
		return
	}
	for _, path := range paths {
		must(t, os.Lchown(path, nobody, nobody))
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := unix.SetfsuidRetUid(nobody); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := unix.SetfsuidRetUid(0); err != nil {
			panic(err) // the thread must not go on with this
		}
	}()
	do()
}

// TestWithoutPrivileges: directories that their own user may not change are no
// obstacle to that user.
func TestWithoutPrivileges(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(*Root) error{
		"empty":  func(r *Root) error { return r.Empty(alice) },
		"remove": func(r *Root) error { return r.Remove(alice, 0) },
		"make": func(r *Root) error {
			uid := 0
			if os.Geteuid() == 0 {
				uid = nobody // geteuid(2) does not know of asOrdinaryUser
			}
			_, err := r.Make(t.Context(), alice, uid)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, root := open(t)
			dir, err := r.Make(t.Context(), alice, 0)
			must(t, err)
			file := writeFile(t, 1, dir, "module", "cache", "file.go")
			paths := []string{root, filepath.Dir(dir), dir, filepath.Dir(filepath.Dir(file)), filepath.Dir(file), file}
			must(t, syscall.Chmod(paths[4], 0o555))
			must(t, syscall.Chmod(paths[3], 0o000))
			if name != "empty" {
				must(t, syscall.Chmod(dir, 0o000))
			}
			asOrdinaryUser(t, paths, func() { err = do(r) })
			must(t, err)
			if name != "make" {
				wantGone(t, filepath.Join(dir, "module"))
			}
		})
	}
}
