package api

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestSecretsAreForAdmins: a tenant's token is not even told their names.
func TestSecretsAreForAdmins(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	base := overTCP(t, newTestServer(t, b))
	for tenant, told := range map[string]bool{"": true, "alice": false} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/api/instances/api:alice/settings", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+b.secret(t, tenant))
		resp, err := (&http.Client{}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || strings.Contains(string(text), "TOKEN") != told || !strings.Contains(string(text), "memory_limit_mb") {
			t.Errorf("tenant %q: %s, %v", tenant, text, err)
		}
	}
}
