package store

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func instanceID(t testing.TB, s string) tenement.InstanceID {
	t.Helper()
	id, err := tenement.ParseInstanceID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func register(t testing.TB, s *Store, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := s.Register(t.Context(), instanceID(t, name), noon); err != nil {
			t.Fatal(err)
		}
	}
}

func wantCode(t *testing.T, err error, code tenement.Code) {
	t.Helper()
	if tenement.CodeOf(err) != code {
		t.Errorf("error %v has code %q, want %q", err, tenement.CodeOf(err), code)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestReopen fills every table, and finds all of it again in another Store.
func TestReopen(t *testing.T) {
	t.Parallel()
	ctx, dir := t.Context(), t.TempDir()
	alice, bob := instanceID(t, "api:alice"), instanceID(t, "api:bob_2")
	crashed := tenement.Failure{Crashes: []time.Time{noon, noon.Add(time.Second)}, RetryAt: noon.Add(time.Minute), Reason: "exit status 3"}
	process := Process{
		Ref:   tenement.Ref{PID: 4711, StartTime: 1<<64 - 2, BootID: "b", Port: 40123, Cgroup: "/sys/fs/cgroup/x"},
		State: tenement.Ready,
	}
	token := tenement.Token{ID: "t1", Name: "ci", Scope: tenement.TenantScope("alice"), CreatedAt: noon, ExpiresAt: noon.Add(time.Hour)}
	event := tenement.Event{ID: 1, At: noon, Actor: "token:x", From: "192.0.2.1", Action: "spawn", Target: "api:alice", Outcome: "ok", Detail: "ü"}

	s, err := Open(ctx, dir)
	must(t, err)
	register(t, s, "api:bob_2", "api:alice")
	must(t, s.SetSuspended(ctx, bob, true))
	must(t, s.SetWeights(ctx, Weight{alice, 100}))
	must(t, s.SetFailure(ctx, alice, crashed))
	must(t, s.PutProcess(ctx, alice, process))
	must(t, s.CreateToken(ctx, token, [32]byte{1}))
	must(t, s.TouchToken(ctx, "t1", noon.Add(time.Minute)))
	must(t, s.AppendEvent(ctx, event))
	must(t, s.Close())
	must(t, s.Close())

	s = openStore(t, dir)
	instances, err := s.Instances(ctx, Filter{})
	must(t, err)
	weights, err := s.Weights(ctx)
	must(t, err)
	processes, err := s.Processes(ctx)
	must(t, err)
	tokens, err := s.Tokens(ctx)
	must(t, err)
	events, err := s.Events(ctx, tenement.EventQuery{})
	must(t, err)
	token.LastUsed = noon.Add(time.Minute)
	for _, table := range []struct{ got, want any }{
		{instances, []tenement.Instance{
			{ID: alice, Weight: 100, CreatedAt: noon, Failure: crashed},
			{ID: bob, Suspended: true, CreatedAt: noon},
		}},
		{weights, []Weight{{alice, 100}}},
		{processes, map[tenement.InstanceID]Process{alice: process}},
		{tokens, []tenement.Token{token}},
		{events, []tenement.Event{event}},
	} {
		if diff := cmp.Diff(table.want, table.got); diff != "" {
			t.Errorf("after reopening (-want +got):\n%s", diff)
		}
	}
}

func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a b?c#d%20e", ".tenement")
	must(t, os.MkdirAll(dir, 0o755))
	s := openStore(t, dir)
	register(t, s, "api:alice")
	for name, want := range map[string]os.FileMode{
		".": 0o700 | os.ModeDir, "lock": 0o600, "state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
	}
}

// TestPragmas asks every connection, because each has its own.
func TestPragmas(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	want := map[string]string{"journal_mode": "wal", "synchronous": "1", "foreign_keys": "1", "busy_timeout": "5000"}
	for range readers {
		conn, err := s.read.Conn(t.Context())
		must(t, err)
		defer conn.Close()
		for pragma, value := range want {
			var got string
			must(t, conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
			if got != value {
				t.Errorf("%s is %s, want %s", pragma, got, value)
			}
		}
		if _, err := conn.ExecContext(t.Context(), "DELETE FROM instances"); err == nil {
			t.Error("a reading connection could write")
		}
	}
}

func TestSecondDaemonIsKeptOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(t.Context(), dir)
	must(t, err)
	_, err = Open(t.Context(), dir)
	wantCode(t, err, tenement.CodeConflict)
	if pid := strconv.Itoa(os.Getpid()); !strings.Contains(tenement.HintOf(err), "process "+pid+" ") {
		t.Errorf("hint %q does not name process %s", tenement.HintOf(err), pid)
	}
	must(t, s.Close())
	openStore(t, dir)
}

// TestLockEndsWithItsProcess starts this test again as another process, which
// takes the lock and is killed.
func TestLockEndsWithItsProcess(t *testing.T) {
	const variable = "STORE_TEST_HOLD"
	if dir := os.Getenv(variable); dir != "" {
		openStore(t, dir) // which t refers to: what nobody does is collected, and its lock with it
		os.Stdout.WriteString("\nheld\n")
		select {}
	}
	t.Parallel()
	dir := t.TempDir()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLockEndsWithItsProcess$")
	child.Env = append(os.Environ(), variable+"="+dir)
	stdout, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	var said strings.Builder
	for buf := make([]byte, 64); !strings.Contains(said.String(), "held"); {
		n, err := stdout.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			t.Fatalf("the other process ended: %s", said.String())
		}
	}
	_, err = Open(t.Context(), dir)
	wantCode(t, err, tenement.CodeConflict)
	if pid := strconv.Itoa(child.Process.Pid); !strings.Contains(tenement.HintOf(err), "process "+pid+" ") {
		t.Errorf("hint %q does not name process %s", tenement.HintOf(err), pid)
	}
	must(t, child.Process.Kill())
	_ = child.Wait() // says that it was killed
	openStore(t, dir)
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(t.Context(), dir)
	must(t, err)
	_, err = s.write.ExecContext(t.Context(), "PRAGMA user_version = 999")
	must(t, err)
	must(t, s.Close())
	_, err = Open(t.Context(), dir)
	wantCode(t, err, tenement.CodeConflict)
	if !strings.Contains(tenement.HintOf(err), "newer") {
		t.Errorf("hint %q", tenement.HintOf(err))
	}
}

func TestFailedMigrationChangesNothing(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	tx, err := s.write.BeginTx(t.Context(), nil)
	must(t, err)
	_, err = tx.ExecContext(t.Context(), "PRAGMA user_version = 0") // so that CREATE TABLE fails
	must(t, err)
	if err := migrateIn(t.Context(), tx, migrations); err == nil {
		t.Error("tables were made twice")
	}
	must(t, tx.Rollback())
	var version int
	must(t, s.read.QueryRowContext(t.Context(), "PRAGMA user_version").Scan(&version))
	if version != len(migrations) {
		t.Errorf("version is %d", version)
	}
}

func TestDamagedDatabase(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(file []byte) []byte{
		"text":      func([]byte) []byte { return []byte(strings.Repeat("not a database\n", 1000)) },
		"truncated": func(file []byte) []byte { return file[:len(file)/2] },
		"schema":    func(file []byte) []byte { return append(file[:100:100], make([]byte, len(file)-100)...) },
		"middle":    func(file []byte) []byte { clear(file[4096:]); return file },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s, err := Open(t.Context(), dir)
			must(t, err)
			register(t, s, "api:alice")
			must(t, s.Close())
			path := filepath.Join(dir, "state.db")
			file, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, damage(file), 0o600))
			s, err = Open(t.Context(), dir)
			if err == nil {
				must(t, s.Close())
			}
			wantCode(t, err, tenement.CodeInternal)
			if !strings.Contains(tenement.HintOf(err), "ten doctor") {
				t.Errorf("error %v has hint %q", err, tenement.HintOf(err))
			}
		})
	}
}

func TestOpenFailureLeavesNoLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "state.db"), 0o700))
	_, err := Open(t.Context(), dir)
	wantCode(t, err, tenement.CodeInternal)
	must(t, os.Remove(filepath.Join(dir, "state.db")))
	openStore(t, dir)
}

func TestEndedContext(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Instance(ctx, instanceID(t, "api:alice"))
	wantCode(t, err, tenement.CodeCanceled)
	_, err = s.Register(ctx, instanceID(t, "api:alice"), noon)
	wantCode(t, err, tenement.CodeCanceled)
	wantCode(t, s.SetWeights(ctx, Weight{instanceID(t, "api:alice"), 1}), tenement.CodeCanceled)
}

// TestInBubble opens and uses a Store where time is virtual: Test itself fails if
// a goroutine outlives Close.
func TestInBubble(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.Context(), dir)
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		id := tenement.InstanceID{Service: "api", Name: "alice"}
		failed := make(chan error)
		const users = 8
		for range users {
			go func() {
				_, err := s.Register(ctx, id, time.Now())
				_, lookup := s.Instance(ctx, id)
				failed <- errors.Join(err, lookup, s.SetWeights(ctx, Weight{id, 1}))
			}()
		}
		for range users {
			must(t, <-failed)
		}
		i, err := s.Instance(ctx, id)
		must(t, err)
		if !i.CreatedAt.Equal(time.Now()) {
			t.Errorf("created at %v, want the bubble's time", i.CreatedAt)
		}
		time.Sleep(time.Minute) // virtual
		must(t, s.Close())
	})
}
