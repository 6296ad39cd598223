package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNotes(t *testing.T) {
	t.Parallel()
	d := start(t, "notes")
	d.command("spawn", "notes:alice", "--no-wake")
	d.command("spawn", "notes:bob")
	keepsApart(t, d, "notes", "app.db")

	const alice = "alice.notes.localhost"
	page := d.get(http.StatusOK, alice, "/")
	if !strings.Contains(page.body, "alice of notes") || !strings.Contains(page.body, "<form") {
		t.Errorf("the page lacks the note or the form:\n%s", page.body)
	}
	// As a browser sends the form: back to the page with the new note on it.
	sent := d.expect(http.StatusSeeOther, http.MethodPost, alice, "/notes", "text=from+the+form",
		"Content-Type", "application/x-www-form-urlencoded", "Accept", "text/html")
	if location := sent.header.Get("Location"); location != "/" {
		t.Errorf("Location = %q, want /", location)
	}
	d.expect(http.StatusCreated, http.MethodPost, alice, "/notes", `{"text":"from <JSON>"}`,
		"Content-Type", "application/json")
	page = d.get(http.StatusOK, alice, "/")
	for _, want := range []string{"from the form", "from &lt;JSON&gt;"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}

	// A customer nobody registered is no customer: nothing starts, nothing is made.
	stranger := d.get(http.StatusNotFound, "carol.notes.localhost", "/notes")
	if stranger.header.Get("X-Tenement-Error") == "" {
		t.Errorf("the 404 for an unknown customer is not the daemon's own: %v", stranger.header)
	}
	if _, err := os.Stat(filepath.Join(d.dataDir, "notes", "carol")); !os.IsNotExist(err) {
		t.Errorf("the unknown customer has a directory: %v", err)
	}
}

func TestPython(t *testing.T) {
	t.Parallel()
	requirePython(t)
	d := start(t, "python")
	d.command("spawn", "api:alice", "--no-wake")
	d.command("spawn", "api:bob")
	keepsApart(t, d, "api", "app.db")
}

func TestNode(t *testing.T) {
	t.Parallel()
	requireNode(t)
	d := start(t, "node")
	d.command("spawn", "list:alice", "--no-wake")
	d.command("spawn", "list:bob")
	keepsApart(t, d, "list", "notes.json")
}

func TestMultiRuntime(t *testing.T) {
	t.Parallel()
	requirePython(t)
	requireNode(t)
	d := start(t, "multi-runtime")
	for service, file := range map[string]string{"go": "app.db", "python": "app.db", "node": "notes.json"} {
		keepsApart(t, d, service, file)
	}
}

// keepsApart posts a note for each of the service's customers alice and bob and
// demands that each sees their own, that it lies in their own directory, that it
// is nobody else's to read, and that it is still there after a sleep.
func keepsApart(t *testing.T, d *daemon, service, file string) {
	t.Helper()
	customers := []string{"alice", "bob"}
	host := func(customer string) string { return customer + "." + service + ".localhost" }
	for _, customer := range customers {
		d.get(http.StatusOK, host(customer), "/health")
		d.post(host(customer), "/notes", customer+" of "+service)
	}
	for _, customer := range customers {
		ownNoteOnly(t, d, host(customer), customer+" of "+service)
		dir := filepath.Join(d.dataDir, service, customer)
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Errorf("%s:%s keeps its data elsewhere: %v", service, customer, err)
		}
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v, want 0700", dir, info.Mode().Perm())
		}
	}
	for _, customer := range customers {
		d.command("stop", service+":"+customer)
		ownNoteOnly(t, d, host(customer), customer+" of "+service)
	}
}

func ownNoteOnly(t *testing.T, d *daemon, host, text string) {
	t.Helper()
	a := d.get(http.StatusOK, host, "/notes")
	var notes []struct{ Text string }
	if err := json.Unmarshal([]byte(a.body), &notes); err != nil {
		t.Fatalf("GET %s/notes: %v\n%s", host, err, a.body)
	}
	if len(notes) != 1 || notes[0].Text != text {
		t.Errorf("GET %s/notes = %s, want only %q", host, a.body, text)
	}
}

// TestAuth shows that an app's own tokens are the app's business: the header
// arrives as it was sent, and who is let in is decided by the app alone.
func TestAuth(t *testing.T) {
	t.Parallel()
	requirePython(t)
	d := start(t, "auth-test")
	const alice, bob = "alice.api.localhost", "bob.api.localhost"
	token := map[string]string{}
	for customer, host := range map[string]string{"alice": alice, "bob": bob} {
		d.get(http.StatusOK, host, "/health") // ready: the token is written
		content, err := os.ReadFile(filepath.Join(d.dataDir, "api", customer, "token"))
		if err != nil {
			t.Fatal(err)
		}
		token[customer] = "Bearer " + strings.TrimSpace(string(content))
	}
	if token["alice"] == token["bob"] {
		t.Fatal("alice and bob share a token")
	}

	tests := []struct {
		name, host, header string
		status             int
	}{
		{"alice to alice", alice, token["alice"], http.StatusOK},
		{"bob to bob", bob, token["bob"], http.StatusOK},
		{"alice to bob", bob, token["alice"], http.StatusUnauthorized},
		{"bob to alice", alice, token["bob"], http.StatusUnauthorized},
		{"no token", alice, "", http.StatusUnauthorized},
		{"another scheme", alice, "Basic YWxpY2U6c2VjcmV0", http.StatusUnauthorized},
		{"odd spelling", alice, `bEaReR  x=1, y="two"`, http.StatusUnauthorized},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := d.do(http.MethodGet, test.host, "/whoami", "", "Authorization", test.header)
			var told struct{ Authorization string }
			if err := json.Unmarshal([]byte(a.body), &told); err != nil {
				t.Fatalf("status %d, no answer of the app: %v\n%s", a.status, err, a.body)
			}
			if a.status != test.status {
				t.Errorf("status = %d, want %d", a.status, test.status)
			}
			if told.Authorization != test.header {
				t.Errorf("the app saw Authorization %q, sent was %q", told.Authorization, test.header)
			}
			if code := a.header.Get("X-Tenement-Error"); code != "" {
				t.Errorf("the answer is the daemon's (%s), not the app's", code)
			}
			refused := a.header.Get("WWW-Authenticate") == `Bearer realm="auth-test"`
			if want := test.status == http.StatusUnauthorized; refused != want {
				t.Errorf("the app's own WWW-Authenticate = %v, want %v", refused, want)
			}
		})
	}
}
