package alert

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"tenement"
	"tenement/internal/config"
	"tenement/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	alice = tenement.InstanceID{Service: "api", Name: "alice"}
	bob   = tenement.InstanceID{Service: "api", Name: "bob"}
)

// The example of Standard Webhooks.
const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// got is one message that arrived.
type got struct {
	message
	id string
	at time.Time
}

// target is a receiver of the test, without a network.
type target struct {
	t      *testing.T
	answer func(n int, m got) *http.Response // to the nth request; nil: it cannot be reached

	mu   sync.Mutex
	all  []got
	hang bool // it answers nothing
}

func (r *target) RoundTrip(request *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		r.t.Error(err)
	}
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err == nil {
		err = webhook.Verify(body, request.Header)
	}
	if err != nil {
		r.t.Errorf("%s with %v: %v", body, request.Header, err)
	}
	m := got{id: request.Header.Get("webhook-id"), at: time.Now()}
	if err := json.Unmarshal(body, &m.message); err != nil {
		r.t.Error(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, m)
	if r.hang {
		<-request.Context().Done()
		return nil, request.Context().Err()
	}
	if r.answer == nil {
		return status(204), nil
	}
	answer := r.answer(len(r.all), m)
	if answer == nil {
		return nil, errors.New("connection refused")
	}
	return answer, nil
}

// answers says how it answers from now on, and gives how many messages have arrived.
func (r *target) answers(answer func(n int, m got) *http.Response) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
	return len(r.all)
}

func status(code int, header ...string) *http.Response {
	response := &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("said\nmore"))}
	for i := 0; i < len(header); i += 2 {
		response.Header.Set(header[i], header[i+1])
	}
	return response
}

// wants waits until nothing happens any more and gives the messages, n in all.
func (r *target) wants(n int) []got {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) != n {
		r.t.Fatalf("%d messages arrived, want %d: %+v", len(r.all), n, r.all)
	}
	return r.all
}

// world is an outbox with a real store.
type world struct {
	*Outbox
	*target
	dir    string
	lost   int
	sent   map[tenement.AlertKind]int
	gaveUp map[tenement.AlertKind]int
	free   tenement.Bytes // guarded by mu
	kinds  []tenement.AlertKind
	close  func() error
	stop   func()
}

// pass lets time go by until nothing more happens.
func pass(d time.Duration) {
	time.Sleep(d) // virtual
	synctest.Wait()
}

// simulate runs test in virtual time.
func simulate(t *testing.T, test func(w *world)) {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{target: &target{t: t}, dir: dir, free: 10 << 30, kinds: tenement.AlertKinds, sent: map[tenement.AlertKind]int{}, gaveUp: map[tenement.AlertKind]int{}}
		w.start()
		defer func() { w.end() }()
		test(w)
	})
}

func (w *world) newReceiver() *Receiver {
	w.t.Helper()
	file := filepath.Join(w.dir, "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	r, err := NewReceiver(config.Alerts{URL: "https://alerts.example.com/secret-path", SecretFile: file, On: w.kinds, DiskLow: 1 << 30})
	if err != nil {
		w.t.Fatal(err)
	}
	r.client.Transport = w.target
	return r
}

func (w *world) start() {
	w.t.Helper()
	db, err := store.Open(w.t.Context(), filepath.Join(w.dir, "state"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.close = db.Close
	for _, id := range []tenement.InstanceID{alice, bob} {
		if _, err := db.Register(w.t.Context(), id, time.Now()); err != nil {
			w.t.Fatal(err)
		}
	}
	w.Outbox = New(Config{
		Store: db, Receiver: w.newReceiver(), Domain: func() string { return "example.com" },
		Room: func() (available, total tenement.Bytes) {
			w.mu().Lock()
			defer w.mu().Unlock()
			return w.free, 20 << 30
		},
		Sent:   func(k tenement.AlertKind) { w.sent[k]++ },
		GaveUp: func(k tenement.AlertKind) { w.gaveUp[k]++ },
		Lost:   func(n int) { w.lost += n },
		Log:    slog.New(slog.NewTextHandler(w.t.Output(), nil)),
	})
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	w.stop = func() { cancel(); <-done }
}

func (w *world) mu() *sync.Mutex { return &w.target.mu }

// kill ends the outbox as the end of its daemon does that has no time for anything.
func (w *world) kill() {
	w.t.Helper()
	w.stop()
	if err := w.close(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) end() {
	w.t.Helper()
	w.stop()
	w.Flush(w.t.Context())
	if err := w.close(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) setFree(free tenement.Bytes) {
	w.mu().Lock()
	defer w.mu().Unlock()
	w.free = free
}

// TestMessage is what a receiver is sent.
func TestMessage(t *testing.T) {
	simulate(t, func(w *world) {
		now := time.Now()
		w.Tell(tenement.AlertFailed, alice, "exit status 3")
		m := w.wants(1)[0]
		want := message{Type: "failed", Timestamp: now, Data: about{Domain: "example.com", Instance: "api:alice", Reason: "exit status 3"}}
		if !m.Timestamp.Equal(now) {
			t.Errorf("at %v", m.Timestamp)
		}
		if m.Timestamp = now; m.message != want || !strings.HasPrefix(m.id, "msg_") {
			t.Errorf("%+v", m)
		}
		if n := len(w.Pending()); n != 0 || w.sent[tenement.AlertFailed] != 1 {
			t.Errorf("%d are pending, sent %v", n, w.sent)
		}
		w.Tell(tenement.AlertOOM, bob, strings.Repeat("x", 5000)+"\xff")
		if m = w.wants(2)[1]; len(m.Data.Reason) != maxReason {
			t.Errorf("%d bytes of reason", len(m.Data.Reason))
		}
	})
}

// TestSignature is the example that Standard Webhooks' libraries share.
func TestSignature(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	webhook, err := readSecret(file)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := webhook.Sign("msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; err != nil || signature != want {
		t.Errorf("%s, %v, want %s", signature, err, want)
	}
}

// TestSecretsThatCannotBeUsed says why, with a way out, and never what was read.
func TestSecretsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		says string
	}{
		"missing":       {"", 0, "no such file"},
		"for everybody": {secret, 0o604, "everybody"},
		"empty":         {"", 0o600, "whsec_"},
		"unmarked":      {strings.TrimPrefix(secret, "whsec_"), 0o600, "whsec_"},
		"no base64":     {secret + "!", 0o600, "base64"},
		"short":         {"whsec_c2VjcmV0", 0o600, "24 to 64 bytes"},
		"long":          {"whsec_" + strings.Repeat("AAAA", 22), 0o600, "24 to 64 bytes"},
	} {
		file := filepath.Join(t.TempDir(), "secret")
		if c.mode != 0 {
			if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
				t.Fatal(err)
			}
		}
		_, err := NewReceiver(config.Alerts{URL: "http://localhost", SecretFile: file})
		if tenement.CodeOf(err) != tenement.CodeInvalid || !strings.Contains(err.Error(), c.says) || !strings.Contains(tenement.HintOf(err), file) {
			t.Errorf("%s: %v, hint %q", name, err, tenement.HintOf(err))
		} else if c.text != "" && strings.Contains(err.Error(), strings.TrimPrefix(c.text, "whsec_")) {
			t.Errorf("%s: %v tells the secret", name, err)
		}
	}
}

// TestBackoff: what the receiver does not take is sent again, the same, less and less often,
// and for a day.
func TestBackoff(t *testing.T) {
	simulate(t, func(w *world) {
		w.answers(func(n int, _ got) *http.Response {
			switch n % 4 {
			case 0:
				return status(500)
			case 1:
				return nil
			case 2:
				return status(408)
			}
			return status(429)
		})
		begin := time.Now()
		w.Tell(tenement.AlertFailed, alice, "x")
		w.wants(1)
		if p := w.Pending(); len(p) != 1 || p[0].Attempts != 1 || p[0].Error != "connection refused" || p[0].Due.Before(begin.Add(5*time.Second)) {
			t.Errorf("%+v", p)
		}
		pass(25 * time.Hour)
		if len(w.Pending()) != 0 || w.gaveUp[tenement.AlertFailed] != 1 || w.sent[tenement.AlertFailed] != 0 {
			t.Errorf("%d are pending, given up %v", len(w.Pending()), w.gaveUp)
		}
		all := w.wants(len(w.all))
		if n := len(all); n < 25 || n > 35 {
			t.Errorf("%d attempts in a day", n)
		}
		for i, m := range all[1:] {
			if m.id != all[0].id || m.message != all[0].message {
				t.Errorf("attempt %d is of %+v", i+1, m)
			}
			least := min(5*time.Second<<i, time.Hour)
			if waited := m.at.Sub(all[i].at); waited < least || waited > least+least/4+time.Second {
				t.Errorf("attempt %d came after %v, want %v and at most a quarter more", i+1, waited, least)
			}
		}
		if last := all[len(all)-1].at.Sub(begin); last > 24*time.Hour {
			t.Errorf("the last attempt came after %v", last)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	simulate(t, func(w *world) {
		w.answers(func(n int, _ got) *http.Response {
			switch n {
			case 1:
				return status(429, "Retry-After", "120")
			case 2:
				return status(503, "Retry-After", time.Now().Add(5*time.Minute).UTC().Format(http.TimeFormat))
			case 3:
				return status(503, "Retry-After", "9999999999999")
			}
			return status(200)
		})
		w.Tell(tenement.AlertFailed, alice, "x")
		w.wants(1)
		if p := w.Pending(); time.Until(p[0].Due) < 119*time.Second {
			t.Errorf("%+v", p)
		}
		w.Tell(tenement.AlertFailed, bob, "x") // is for the same receiver
		pass(119 * time.Second)
		w.wants(1)
		pass(2 * time.Second)
		w.wants(2)
		pass(298 * time.Second)
		w.wants(2)
		pass(3 * time.Second)
		w.wants(3)
		pass(longestDelay - 5*time.Second)
		w.wants(3)
		pass(5 * time.Second)
		w.wants(5)
	})
}

// TestFinalAnswers: what the receiver refuses is not sent again, and no redirect followed.
func TestFinalAnswers(t *testing.T) {
	simulate(t, func(w *world) {
		codes := []int{301, 307, 400, 401, 404, 410, 422}
		w.answers(func(n int, _ got) *http.Response {
			return status(codes[n-1], "Location", "https://elsewhere.example.com/")
		})
		for n := range codes {
			w.Tell(tenement.AlertFailed, alice, "x")
			w.wants(n + 1)
			if len(w.Pending()) != 0 || w.gaveUp[tenement.AlertFailed] != n+1 {
				t.Errorf("%d: %d are pending, given up %v", codes[n], len(w.Pending()), w.gaveUp)
			}
			pass(quiet)
		}
		pass(patience)
		w.wants(len(codes))
	})
}

// TestQuiet: of one kind nothing more is said about one instance for an hour, whichever
// daemon it is.
func TestQuiet(t *testing.T) {
	simulate(t, func(w *world) {
		for range 100 {
			w.Tell(tenement.AlertQuota, alice, "x")
			synctest.Wait()
		}
		w.wants(1)
		w.Tell(tenement.AlertQuota, bob, "x")
		w.Tell(tenement.AlertOOM, alice, "x")
		w.wants(3)
		pass(quiet - time.Second)
		w.end()
		w.start()
		w.Tell(tenement.AlertQuota, alice, "x")
		w.wants(3)
		pass(time.Second)
		w.Tell(tenement.AlertQuota, alice, "x")
		w.wants(4)
	})
}

// TestOnlyWhatIsWanted: the others are not sent, and nothing is without a receiver.
func TestOnlyWhatIsWanted(t *testing.T) {
	simulate(t, func(w *world) {
		w.kinds = []tenement.AlertKind{tenement.AlertOOM}
		w.Reconfigure(w.newReceiver())
		w.setFree(0)
		for _, kind := range tenement.AlertKinds {
			w.Tell(kind, alice, "x")
		}
		pass(time.Minute)
		if m := w.wants(1)[0]; m.Type != tenement.AlertOOM {
			t.Errorf("%+v", m)
		}
		w.Reconfigure(nil)
		w.Tell(tenement.AlertOOM, bob, "x")
		pass(time.Minute)
		w.wants(1)
		if _, err := w.Test(w.t.Context()); tenement.CodeOf(err) != tenement.CodeConflict {
			t.Errorf("test: %v", err)
		}
	})
}

// TestNextDaemonSends: what could not be sent is sent by the next daemon, at once, with the
// same id; also what was under way.
func TestNextDaemonSends(t *testing.T) {
	simulate(t, func(w *world) {
		w.answers(func(int, got) *http.Response { return status(500) })
		w.Tell(tenement.AlertFailed, alice, "x")
		w.Tell(tenement.AlertOOM, bob, "y")
		pass(10 * time.Minute)
		before := w.wants(len(w.all))
		w.kill()
		w.answers(nil)
		w.start()
		all := w.wants(len(before) + 2)
		if again := all[len(before)]; again.id != all[0].id || again.message != all[0].message {
			t.Errorf("%+v came after %+v", again, all[0])
		}
		w.kill()
		w.start()
		pass(time.Hour)
		w.wants(len(before) + 2)
	})
}

// TestCutShort: an attempt that the end of the daemon cuts short has not failed, and one
// that is not answered has.
func TestCutShort(t *testing.T) {
	simulate(t, func(w *world) {
		w.hang = true
		w.Tell(tenement.AlertFailed, alice, "x")
		pass(sendTimeout - time.Second)
		w.stop()
		if p := w.Pending(); len(p) != 1 || p[0].Attempts != 0 || p[0].Error != "" {
			t.Errorf("%+v", p)
		}
		w.end()
		w.start()
		pass(sendTimeout + time.Second)
		w.hang = false
		if p := w.Pending(); len(p) != 1 || p[0].Attempts != 1 || p[0].Error == "" {
			t.Errorf("%+v", p)
		}
	})
}

// TestRepairedReceiver: whoever configures another receiver need not wait for the back-off.
func TestRepairedReceiver(t *testing.T) {
	simulate(t, func(w *world) {
		w.answers(func(int, got) *http.Response { return nil })
		w.Tell(tenement.AlertFailed, alice, "x")
		pass(3 * time.Hour)
		before := w.answers(nil)
		w.wants(before)
		w.Reconfigure(w.newReceiver())
		w.wants(before + 1)
		if len(w.Pending()) != 0 {
			t.Error("it is still pending")
		}
	})
}

// TestFlood: what is pending is bounded, in memory and on the disk, and what is lost counted.
func TestFlood(t *testing.T) {
	simulate(t, func(w *world) {
		w.answers(func(int, got) *http.Response { return nil })
		w.most = 20 // nobody reads it yet
		for n := range 30 {
			w.Tell(tenement.AlertFailed, tenement.InstanceID{Service: "api", Name: "i" + strconv.Itoa(n)}, "x")
			if n < 25 { // else they are told at once
				synctest.Wait()
			}
		}
		synctest.Wait()
		pending := w.Pending()
		if len(pending) != 20 || w.lost != 10 || pending[19].Instance.Name != "i29" {
			t.Errorf("%d are pending, %d lost", len(pending), w.lost)
		}
		kept, err := w.Store.Alerts(w.t.Context())
		if err != nil || len(kept) != 20 || kept[0].ID != pending[0].ID {
			t.Errorf("%d on record, %v", len(kept), err)
		}
		w.wants(1) // one that is away is not asked for each
		w.stop()
		for n := range 30 {
			w.Tell(tenement.AlertOOM, tenement.InstanceID{Service: "api", Name: "i" + strconv.Itoa(n)}, "x")
		}
		if len(w.told) != 20 || w.lost != 20 {
			t.Errorf("%d are told, %d lost", len(w.told), w.lost)
		}
	})
}

// TestRefusingDisk: what cannot be put on record is sent all the same, once, and the record
// is right again when that is possible.
func TestRefusingDisk(t *testing.T) {
	simulate(t, func(w *world) {
		file, err := sql.Open("sqlite", filepath.Join(w.dir, "state", "state.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		rename := func(from, to string) {
			t.Helper()
			if _, err := file.ExecContext(w.t.Context(), "ALTER TABLE "+from+" RENAME TO "+to); err != nil {
				t.Fatal(err)
			}
		}
		kept := func(want int) {
			t.Helper()
			if list, err := w.Store.Alerts(w.t.Context()); err != nil || len(list) != want {
				t.Errorf("%d on record, %v, want %d", len(list), err, want)
			}
		}
		w.answers(func(int, got) *http.Response { return nil })
		rename("alerts", "away")
		w.Tell(tenement.AlertFailed, alice, "x")
		m := w.wants(1)[0]
		w.Tell(tenement.AlertFailed, alice, "x")
		synctest.Wait()
		if n := len(w.Pending()); n != 1 {
			t.Errorf("%d are pending", n)
		}
		rename("away", "alerts")
		kept(0)
		pass(2 * lookPace)
		kept(1)

		rename("alerts", "away")
		n := w.answers(nil)
		pass(time.Minute)
		if again := w.wants(n + 1)[n]; again.id != m.id || len(w.Pending()) != 0 {
			t.Errorf("%+v came after %+v", again, m)
		}
		rename("away", "alerts")
		kept(1)
		pass(2 * lookPace)
		kept(0)
		w.wants(n + 1)
	})
}

// TestDisk: that it is low is said once, and that it is no more once there is clearly more
// room; whichever daemon it is, and at most once an hour.
func TestDisk(t *testing.T) {
	simulate(t, func(w *world) {
		at := func(free tenement.Bytes, want int, kind tenement.AlertKind) {
			t.Helper()
			w.setFree(free)
			pass(time.Minute)
			all := w.wants(want)
			if want == 0 {
				return
			}
			if m := all[want-1]; m.Type != kind || m.Data.Instance != "" || m.Data.Disk.Total != 20<<30 {
				t.Errorf("%+v", m)
			}
		}
		const low, resolved = tenement.AlertDiskLow, tenement.AlertDiskLowResolved
		at(1<<30, 0, "")
		at(1<<30-1, 1, low)
		if m := w.all[0]; m.Data.Disk.Available != 1<<30-1 || !strings.Contains(m.Data.Reason, "disk_low_mb = 1024") {
			t.Errorf("%+v", m)
		}
		at(0, 1, low)
		at(1280<<20-1, 1, low)
		w.end()
		w.start()
		at(0, 1, low)
		at(1280<<20, 2, resolved)
		at(2<<30, 2, resolved)
		at(0, 2, resolved) // within the hour
		w.end()
		w.start()
		at(0, 2, resolved)
		pass(quiet)
		at(0, 3, low)
		at(10<<30, 4, resolved)
	})
}

// TestTestMessage: it is sent at once and once, and the answer is known.
func TestTestMessage(t *testing.T) {
	simulate(t, func(w *world) {
		w.kinds = nil
		w.Reconfigure(w.newReceiver())
		answer, err := w.Test(w.t.Context())
		m := w.wants(1)[0]
		if err != nil || !answer.Delivered() || answer.Status != 204 || answer.ID != m.id || m.Type != tenement.AlertTest {
			t.Errorf("%+v, %v of %+v", answer, err, m)
		}
		w.answers(func(n int, _ got) *http.Response {
			if n == 2 {
				return status(500)
			}
			return nil
		})
		for _, want := range []string{"status 500: said", "connection refused"} {
			if answer, err = w.Test(w.t.Context()); err != nil || answer.Delivered() || answer.Error != want {
				t.Errorf("%+v, %v", answer, err)
			}
		}
		pass(time.Hour)
		w.wants(3)
	})
}
