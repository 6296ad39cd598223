package secrets_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tenement"
	"tenement/internal/secrets"
)

func TestSealedIsOpenedWithItsKeyOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secrets.key")
	key := secrets.NewKey(path)
	text := []byte("hunter2 with a \x01 in it")
	sealed, err := key.Seal(text)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, text) {
		t.Error("it can be read as it is")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info, err)
	}
	wants := func(why string, fails bool) {
		t.Helper()
		got, err := secrets.NewKey(path).Open(sealed)
		switch {
		case !fails && (err != nil || !bytes.Equal(got, text)):
			t.Errorf("%s: %q, %v", why, got, err)
		case fails && (tenement.CodeOf(err) != tenement.CodeUnavailable || tenement.HintOf(err) == "" || got != nil):
			t.Errorf("%s: %q, %v", why, got, err)
		}
	}
	wants("a new start", false)

	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	must(t, os.Remove(path))
	wants("without the key", true)
	if _, err := key.Seal(text); err != nil { // makes another
		t.Fatal(err)
	}
	wants("with another key", true)
	other, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, append(other, kept...), 0o600))
	wants("with both", false)
	must(t, os.Chmod(path, 0o640))
	wants("with a key that others may read", true)
	must(t, os.WriteFile(path, []byte("AGE-SECRET-KEY-1NONSENSE\n"), 0o600))
	must(t, os.Chmod(path, 0o600))
	if _, err := key.Open(sealed); err == nil || strings.Contains(err.Error(), "NONSENSE") {
		t.Errorf("a file that is no key: %v", err)
	}
}

// TestOneKeyForAll: whoever seals first at the same time as others, there is one key.
func TestOneKeyForAll(t *testing.T) {
	t.Parallel()
	key := secrets.NewKey(filepath.Join(t.TempDir(), "secrets.key"))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			sealed, err := key.Seal([]byte("x"))
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := key.Open(sealed); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
