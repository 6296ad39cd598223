package store

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tenement"
)

func TestRestoreNamedCopy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(t.Context(), dir)
	must(t, err)
	register(t, s, "api:alice")
	old := backUp(t, s, noon)
	register(t, s, "api:bob")
	backUp(t, s, noon.Add(day))
	must(t, s.Close())
	mine := filepath.Join(t.TempDir(), "mine.db")
	must(t, copyFile(old, touch(t, mine)))
	for i, from := range []string{old, filepath.Base(old), mine} {
		r, err := Restore(t.Context(), dir, from, noon)
		must(t, err)
		if r.Instances != 1 || filepath.Base(r.From) != filepath.Base(from) {
			t.Errorf("%s: restored %+v", from, r)
		}
		// At the same moment, and still nothing takes the place of anything.
		if want := []string{"120000Z", "120001Z", "120002Z"}[i]; !strings.HasSuffix(r.Aside, want) || !exists(r.Aside) {
			t.Errorf("%s: what was there is at %s, want …%s", from, r.Aside, want)
		}
	}
	s = openStore(t, dir)
	if list, err := s.Instances(t.Context(), Filter{}); err != nil || names(list) != "api:alice" {
		t.Errorf("restored %v, %v", list, err)
	}
	if list, err := Copies(dir); err != nil || len(list) != 2 {
		t.Errorf("the copies are now %v, %v", list, err)
	}
}

func touch(t *testing.T, path string) string {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o600))
	return path
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	addRows(t, s, 1000)
	good := backUp(t, s, noon)
	_, err := Restore(t.Context(), dir, "", noon)
	wantCode(t, err, tenement.CodeConflict) // it is open
	must(t, s.Close())
	before := contents(t, filepath.Join(dir, "state.db"))

	other := t.TempDir()
	flipped, newer, part := filepath.Join(other, "flipped"), filepath.Join(other, "newer"), filepath.Join(other, "part")
	for _, path := range []string{flipped, newer, part} {
		must(t, copyFile(good, touch(t, path)))
	}
	flipPage(t, flipped)
	execOn(t, newer, "PRAGMA user_version = 999")
	must(t, os.WriteFile(part+"-wal", []byte("x"), 0o600))
	for _, c := range []struct {
		copy string
		code tenement.Code
	}{
		{flipped, tenement.CodeInternal}, {newer, tenement.CodeConflict}, {part, tenement.CodeInvalid},
		{other, tenement.CodeInvalid}, {filepath.Join(other, "nothing"), tenement.CodeNotFound}, {"nothing", tenement.CodeNotFound},
	} {
		_, err := Restore(t.Context(), dir, c.copy, noon)
		wantCode(t, err, c.code)
		if contents(t, filepath.Join(dir, "state.db")) != before {
			t.Errorf("%s: state.db is another", c.copy)
		}
	}
	if got := fileNames(t, dir); got != "backups lock state.db" {
		t.Errorf("left behind: %s", got)
	}
	_, err = Restore(t.Context(), filepath.Join(other, "no directory"), "", noon)
	wantCode(t, err, tenement.CodeNotFound)
}

// TestRestoredFilesAreTheDaemons: root restores, and the daemon is another user.
func TestRestoredFilesAreTheDaemons(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	dir, _ := damagedState(t, damages["missing"].damage)
	const user, group = 4711, 4712
	must(t, os.Remove(filepath.Join(dir, "lock")))
	must(t, os.Chown(dir, user, group))
	_, err := Restore(t.Context(), dir, "", noon)
	must(t, err)
	for _, name := range []string{"state.db", "lock"} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		owner := info.Sys().(*syscall.Stat_t)
		if owner.Uid != user || owner.Gid != group || info.Mode() != 0o600 {
			t.Errorf("%s is owned by %d:%d with mode %v", name, owner.Uid, owner.Gid, info.Mode())
		}
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/var/lib/ten-1": "/var/lib/ten-1", "/da ta": "'/da ta'", "/it's": `'/it'\''s'`, "": "''", "/a$b/c": "'/a$b/c'",
	} {
		if got := quote(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
