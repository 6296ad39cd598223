package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"tenement/internal/runtime/runtimetest"
)

// alertReceiver gives each message as its id and its body, and answers with status.
func alertReceiver(t *testing.T, status *atomic.Int64) (url string, messages <-chan string) {
	t.Helper()
	arrived := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		arrived <- r.Header.Get("webhook-id") + " " + string(body)
		w.WriteHeader(int(status.Load()))
	}))
	t.Cleanup(server.Close)
	return server.URL, arrived
}

// alertsTo is a section of the configuration; more are further keys.
func alertsTo(t *testing.T, url, more string) string {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("\n[settings.alerts]\nurl = '%s/'\nsecret_file = '%s'\n%s\n", url, secret, more)
}

// TestAlertsSurviveTheDaemon: an alert that its receiver does not take is sent by the next
// daemon, after a kill -9 and after an upgrade, the same each time.
func TestAlertsSurviveTheDaemon(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	if err := build(); err != nil {
		t.Fatal(err)
	}
	var status atomic.Int64
	status.Store(http.StatusInternalServerError)
	url, messages := alertReceiver(t, &status)
	config := filepath.Join(t.TempDir(), "tenement.toml")
	writeConfig(t, config, "[service.broken]\ncommand = \"sh -c 'exit 3'\"\n[settings]\nmax_restarts = 0\n"+alertsTo(t, url, ""))
	d := startConfig(t, config, t.TempDir())
	if out, err := d.tryCommand("spawn", "broken:alice"); err == nil {
		t.Errorf("it came up:\n%s", out)
	}
	first := runtimetest.Within(t, "the first attempt", messages)
	if !strings.Contains(first, `"type":"failed"`) || !strings.Contains(first, `"instance":"broken:alice"`) {
		t.Error(first)
	}
	runtimetest.Eventually(t, "it is pending", func() bool {
		return strings.Contains(d.command("alerts"), "broken:alice")
	})
	d.kill()
	next := d.again()
	if again := runtimetest.Within(t, "an attempt after the kill", messages); again != first {
		t.Errorf("after the kill %s, not %s", again, first)
	}
	status.Store(http.StatusOK)
	next.upgrade()
	if again := runtimetest.Within(t, "an attempt after the upgrade", messages); again != first {
		t.Errorf("after the upgrade %s, not %s", again, first)
	}
	runtimetest.Eventually(t, "nothing is pending", func() bool {
		return !strings.Contains(next.command("alerts"), "broken:alice")
	})
	if out, err := next.tryCommand("alerts", "test"); err != nil || !strings.Contains(out, "status 200") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAlertsDocument runs the receiver of the document with the secret and the section of
// the document.
func TestAlertsDocument(t *testing.T) {
	t.Parallel()
	requirePython(t)
	d := founding(t)
	dir := t.TempDir()
	local := strings.NewReplacer("/etc/tenement", dir, "https://alerts.example.com/tenement", "http://"+freeAddress(t))
	d.shell(local.Replace(block(t, "docs/operations.md", "sh", "whsec_")))
	section := local.Replace(block(t, "docs/operations.md", "toml", "[settings.alerts]"))
	program := filepath.Join(dir, "receiver.py")
	if err := os.WriteFile(program, []byte(block(t, "docs/operations.md", "python", "hmac")), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(section, "http://127.0.0.1:")
	port, _, _ = strings.Cut(port, `"`)
	cmd := exec.CommandContext(t.Context(), "python3", program, filepath.Join(dir, "alerts.secret"))
	cmd.Env = append(os.Environ(), "PORT="+port)
	printed := &transcript{t: t}
	cmd.Stdout, cmd.Stderr = printed, printed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if err := os.WriteFile(d.config, []byte(read(t, d.config)+section), 0o600); err != nil {
		t.Fatal(err)
	}
	d.command("reload")
	runtimetest.Eventually(t, "the receiver listens and knows the signature", func() bool {
		_, err := d.tryCommand("alerts", "test")
		return err == nil
	})
	runtimetest.Eventually(t, "it says so", func() bool { return printed.count(" test") > 0 })
}

// freeAddress is one of this machine that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
