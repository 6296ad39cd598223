package daemon_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"tenement"
	"tenement/internal/daemon"
	"tenement/internal/runtime/runtimetest"
	"tenement/internal/store"
)

const alertSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// alertMessage is one that a receiver got.
type alertMessage struct {
	ID   string `json:"-"`
	Type string
	Data struct{ Domain, Instance, Reason string }
}

// receiver is whoever a test's daemon sends its alerts to.
type receiver struct {
	t    *testing.T
	url  string
	file string // with the secret

	mu     sync.Mutex
	status func(alertMessage) int // nil: 204
	all    []alertMessage
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{t: t, file: filepath.Join(t.TempDir(), "secret")}
	if err := os.WriteFile(r.file, []byte(alertSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(r.receive))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *receiver) receive(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	var m alertMessage
	if err == nil {
		err = json.Unmarshal(body, &m)
	}
	var webhook *standardwebhooks.Webhook
	if err == nil {
		webhook, err = standardwebhooks.NewWebhook(alertSecret)
	}
	if err == nil {
		err = webhook.Verify(body, request.Header)
	}
	if err != nil {
		r.t.Errorf("%s: %v", body, err)
	}
	m.ID = request.Header.Get("webhook-id")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, m)
	status := http.StatusNoContent
	if r.status != nil {
		status = r.status(m)
	}
	w.WriteHeader(status)
}

// answers says with which status it answers from now on.
func (r *receiver) answers(status func(alertMessage) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

// got is what has arrived so far, as "kind instance".
func (r *receiver) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []string
	for _, m := range r.all {
		list = append(list, strings.TrimSpace(m.Type+" "+m.Data.Instance))
	}
	return list
}

// wants waits for exactly these.
func (r *receiver) wants(want ...string) {
	r.t.Helper()
	runtimetest.Eventually(r.t, fmt.Sprintf("%q arrive", want), func() bool { return len(r.got()) >= len(want) })
	if got := r.got(); !slices.Equal(got, want) {
		r.t.Fatalf("%q arrived, want %q", got, want)
	}
}

// config is a section for it; more are further keys.
func (r *receiver) config(more string) string {
	return fmt.Sprintf("\n[settings.alerts]\nurl = '%s/hook'\nsecret_file = '%s'\n%s\n", r.url, r.file, more)
}

// crashing is a service whose program ends before it is ready.
func crashing(name string) string {
	return "\n[service." + name + "]\ncommand = \"sh -c 'exit 3'\"\n"
}

// TestAlerts: each kind arrives once, signed, and is counted; what is not wanted does not.
func TestAlerts(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s := build(t, settings+"max_restarts = 2\n"+r.config("on = ['failed', 'crash_loop', 'quota']")+
		service("api", "isolation = 'process'\nstorage_quota_mb = 1")+strings.Replace(crashing("broken"), "command", "restart = 'always'\ncommand", 1))
	test, err := s.api.TestAlert(t.Context())
	if err != nil || !test.Delivered || test.Status != http.StatusNoContent {
		t.Errorf("%+v, %v", test, err)
	}
	r.wants("test")
	s.spawn("api:alice", "broken:bob")
	crash := func() { _ = s.api.Start(t.Context(), id(t, "broken:bob")) } // which fails
	crash()
	runtimetest.Eventually(t, "it has crashed often enough", func() bool {
		crash()
		return len(r.got()) >= 3
	})
	r.wants("test", "crash_loop broken:bob", "failed broken:bob")
	if m := r.all[2]; m.Data.Domain != "localhost" || !strings.HasPrefix(m.Data.Reason, "exit status 3 before it was ready; crash 3 within") {
		t.Errorf("%+v", m)
	}

	if err := os.MkdirAll(filepath.Join(s.dir, "api", "alice"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.write(filepath.Join(s.dir, "api", "alice", "big"), strings.Repeat("x", 1<<20), 0o600)
	for range 3 {
		s.wants("http://alice.api.localhost/", http.StatusInsufficientStorage)
		crash()
	}
	r.wants("test", "crash_loop broken:bob", "failed broken:bob", "quota api:alice")
	s.measures(`tenement_alerts_sent_total{kind="failed"} 1`, `tenement_alerts_sent_total{kind="quota"} 1`)
	if pending, err := s.api.Alerts(t.Context()); err != nil || len(pending) != 0 {
		t.Errorf("%+v are pending, %v", pending, err)
	}
}

// TestAlertOfALowDisk: a reload says what is low, and what is no more.
func TestAlertOfALowDisk(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	text := func(mb int) string {
		return settings + r.config(fmt.Sprintf("disk_low_mb = %d", mb)) + service("api", "")
	}
	s := build(t, text(1))
	s.reload(text(1<<20), false)
	r.wants("disk_low")
	s.reload(text(1<<20), false)
	s.reload(text(1), false)
	r.wants("disk_low", "disk_low.resolved")
}

// TestAlertsOutliveTheDaemon: what could not be sent is sent by the next daemon, the same
// once more; what was refused is not.
func TestAlertsOutliveTheDaemon(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	r.answers(func(m alertMessage) int {
		if m.Data.Instance == "broken:bob" {
			return http.StatusBadRequest
		}
		return http.StatusInternalServerError
	})
	dir := shortDir(t)
	text := settings + "max_restarts = 0\n" + r.config("") + crashing("broken")
	s := buildIn(t, dir, text)
	s.spawn("broken:alice", "broken:bob")
	_ = s.api.Start(t.Context(), id(t, "broken:bob"))
	r.wants("failed broken:bob")
	_ = s.api.Start(t.Context(), id(t, "broken:alice"))
	r.wants("failed broken:bob", "failed broken:alice")
	runtimetest.Eventually(t, "the attempt has failed", func() bool {
		pending, err := s.api.Alerts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(pending) == 1 && pending[0].Attempts == 1 && pending[0].Error == "status 500" && pending[0].Instance.Name == "alice"
	})
	s.measures(`tenement_alerts_failed_total{kind="failed"} 1`)
	s.stop()
	r.answers(nil)
	s = buildIn(t, dir, text)
	r.wants("failed broken:bob", "failed broken:alice", "failed broken:alice")
	if r.all[1] != r.all[2] {
		t.Errorf("%+v is not %+v", r.all[2], r.all[1])
	}
	s.measures(`tenement_alerts_sent_total{kind="failed"} 1`)
	s.stop()
	db, err := store.Open(t.Context(), daemon.StateDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if list, err := db.Alerts(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestReloadOfAlerts: a secret that cannot be used changes nothing, and without the section
// nothing is sent.
func TestReloadOfAlerts(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	off := settings + service("api", "")
	s := build(t, off)
	if _, err := s.api.TestAlert(t.Context()); tenement.CodeOf(err) != tenement.CodeConflict || !strings.Contains(tenement.HintOf(err), "ten reload") {
		t.Errorf("%v, hint %q", err, tenement.HintOf(err))
	}
	s.text.Store(strings.ReplaceAll(settings+r.config("")+service("api", ""), r.file, r.file+"-none"))
	if _, err := s.api.Reload(t.Context(), false); tenement.CodeOf(err) != tenement.CodeInvalid || !strings.Contains(err.Error(), "secret_file") {
		t.Errorf("reload: %v", err)
	}
	s.reload(settings+r.config("")+service("api", ""), false)
	if test, err := s.api.TestAlert(t.Context()); err != nil || !test.Delivered {
		t.Errorf("%+v, %v", test, err)
	}
	s.reload(off, false)
	if _, err := s.api.TestAlert(t.Context()); tenement.CodeOf(err) != tenement.CodeConflict {
		t.Errorf("%v", err)
	}
}
