package daemon_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tenement"
	"tenement/internal/runtime/runtimetest"
)

// TestStorageQuota: an instance that has stored too much is refused with 507, as a
// program and as a person like it, until there is room or more is allowed.
func TestStorageQuota(t *testing.T) {
	t.Parallel()
	text := settings + service("api", "isolation = \"process\"\nstorage_quota_mb = 1\nidle_timeout = 0")
	s := build(t, text)
	s.spawn("api:alice")
	s.get("http://alice.api.localhost/")
	storage, err := s.api.Storage(t.Context(), id(t, "api:alice"))
	if err != nil || storage.Enforcement != "measured" || storage.LimitBytes != 1<<20 || storage.LimitFiles != 1000 || storage.UsedBytes > 64<<10 || storage.UsedFiles < 1 {
		t.Errorf("%+v, %v", storage, err)
	}
	if err := s.api.Stop(t.Context(), id(t, "api:alice")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.dir, "api", "alice", "big")
	s.write(file, strings.Repeat("x", 1<<20), 0o600)

	s.refusedFor(t, "application/problem+json", `"status":507`)
	s.refusedFor(t, "text/html", "used up its storage")
	err = s.api.Start(t.Context(), id(t, "api:alice"))
	if tenement.CodeOf(err) != tenement.CodeStorageFull || !strings.Contains(tenement.HintOf(err), "storage_quota_mb") {
		t.Errorf("start: %v, hint %q", err, tenement.HintOf(err))
	}
	s.text.Store(strings.Replace(text, "storage_quota_mb = 1", "storage_quota_mb = 2", 1))
	if _, err := s.api.Reload(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	s.servesAgain(t)

	s.text.Store(text)
	if _, err := s.api.Reload(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := s.api.Stop(t.Context(), id(t, "api:alice")); err != nil {
		t.Fatal(err)
	}
	s.wants("http://alice.api.localhost/", http.StatusInsufficientStorage)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s.servesAgain(t)
}

// servesAgain waits for alice to be woken by a request.
func (s *site) servesAgain(t *testing.T) {
	t.Helper()
	runtimetest.Eventually(t, "it is noticed that there is room", func() bool {
		status, _, err := s.ask(t.Context(), "http://alice.api.localhost/")
		return err == nil && status == http.StatusOK
	})
}

// refusedFor asks for an answer of a kind.
func (s *site) refusedFor(t *testing.T, accept, want string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://alice.api.localhost/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	answer, err := s.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusInsufficientStorage || answer.Header.Get("X-Tenement-Error") != "storage_full" ||
		!strings.HasPrefix(answer.Header.Get("Content-Type"), accept) || !strings.Contains(string(body), want) {
		t.Errorf("%d %v\n%s\n%v", answer.StatusCode, answer.Header, body, err)
	}
}
