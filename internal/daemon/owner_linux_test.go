package daemon_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tenement"
)

// TestOwnUsers: isolated instances have users and directories of their own, and files
// that were kept are handed to the next of the name.
func TestOwnUsers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), "root") {
			t.Fatal("this is not root")
		}
		t.Skip("only root gives users to instances: run the tests of internal/daemon as root")
	}
	s := build(t, settings+"uid_first = 3_000_000\n"+service("api", "isolation = \"namespace\"\nstorage_quota_mb = 16"))
	s.spawn("api:alice", "api:bob")
	for n, name := range []string{"alice", "bob"} {
		s.get("http://" + name + ".api.localhost/")
		s.belongs(t, 3_000_000+n, filepath.Join("/proc", s.instancePID(name)), filepath.Join(s.dir, "api", name))
	}
	s.belongs(t, 0, s.dir, filepath.Join(s.dir, "api"))
	alice := id(t, "api:alice")
	if err := s.api.Delete(t.Context(), alice, false); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(s.dir, "api", "alice", "terminated") // which the tenant program leaves
	s.belongs(t, 3_000_000, kept)
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/")
	s.belongs(t, 3_000_002, kept, filepath.Dir(kept), filepath.Join("/proc", s.instancePID("alice")))
	if err := s.api.Delete(t.Context(), alice, true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Dir(kept)); !os.IsNotExist(err) {
		t.Errorf("after a purge: %v", err)
	}
	storage, err := s.api.Storage(t.Context(), id(t, "api:bob"))
	if err != nil || storage.Enforcement == "none" || storage.LimitBytes != 16<<20 {
		t.Errorf("%+v, %v", storage, err)
	}
}

// instancePID is the process of an instance of api, as text.
func (s *site) instancePID(name string) string {
	s.t.Helper()
	in := s.instance("api:" + name)
	if in.State != tenement.Ready {
		s.t.Fatalf("%s is %s", name, in.State)
	}
	return strconv.Itoa(in.PID)
}

func (s *site) belongs(t *testing.T, uid int, paths ...string) {
	t.Helper()
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if owner, _ := info.Sys().(*syscall.Stat_t); int(owner.Uid) != uid || int(owner.Gid) != uid {
			t.Errorf("%s belongs to %d:%d, want %d", path, owner.Uid, owner.Gid, uid)
		}
	}
}
