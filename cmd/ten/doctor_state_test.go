package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tenement"
	"tenement/internal/daemon"
	"tenement/internal/store"
)

// doctor runs ten doctor and gives its exit status and what it printed.
func doctor(t *testing.T, args ...string) (status int, printed string) {
	t.Helper()
	var out bytes.Buffer
	status = run(t.Context(), append([]string{"doctor"}, args...), &out, &out)
	return status, out.String()
}

func wantPrinted(t *testing.T, printed string, patterns ...string) {
	t.Helper()
	for _, pattern := range patterns {
		if !regexp.MustCompile("(?m)" + pattern).MatchString(printed) {
			t.Errorf("nothing matches %q in:\n%s", pattern, printed)
		}
	}
}

// registryWithCopies has two instances, and a good copy of one of them.
func registryWithCopies(t *testing.T) (dataDir string, s *store.Store, copy string) {
	t.Helper()
	dataDir = t.TempDir()
	if err := os.Chmod(dataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), daemon.StateDir(dataDir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // again, where the test did
	registerOne(t, s, "alice")
	if copy, err = s.BackUp(t.Context(), time.Now().Add(-5*time.Hour)); err != nil {
		t.Fatal(err)
	}
	registerOne(t, s, "bob")
	return dataDir, s, copy
}

func registerOne(t *testing.T, s *store.Store, name string) {
	t.Helper()
	if _, err := s.Register(t.Context(), tenement.InstanceID{Service: "api", Name: name}, time.Now()); err != nil {
		t.Fatal(err)
	}
}

func TestDoctorLooksAtTheRegistry(t *testing.T) {
	t.Parallel()
	dataDir, s, copy := registryWithCopies(t)
	_, printed := doctor(t, "--data-dir", dataDir) // while it is open
	wantPrinted(t, printed, `^ok    registry: 2 instances, version \d+$`,
		"^ok    copy "+regexp.QuoteMeta(filepath.Base(copy))+": 5h ago, good, 1 instance$")
	status, printed := doctor(t, "--data-dir", dataDir, "--restore")
	if status != 1 {
		t.Errorf("restored while it is open: %s", printed)
	}
	wantPrinted(t, printed, "^error: .*held by another daemon", "^hint: process .* stop it")

	if _, err := s.BackUp(t.Context(), time.Now().Add(-72*time.Hour)); err != nil {
		t.Fatal(err)
	}
	must(t, s.Close(), os.Truncate(copy, 5000), os.Truncate(filepath.Join(daemon.StateDir(dataDir), "state.db"), 5000))
	status, printed = doctor(t, "--data-dir", dataDir)
	if status != 1 {
		t.Errorf("exit status %d", status)
	}
	wantPrinted(t, printed, "^fail  registry: .*malformed", "^      hint: the newest good copy is .*ten doctor --data-dir "+regexp.QuoteMeta(dataDir)+" --restore$",
		"^warn  copy .*malformed", "^      hint: it cannot be restored")
}

func TestDoctorSaysThatTheNewestCopyIsOld(t *testing.T) {
	t.Parallel()
	dataDir, _, _ := registryWithCopies(t)
	findings := copyFindings(t.Context(), daemon.StateDir(dataDir), time.Now().Add(72*time.Hour))
	if len(findings) != 1 || findings[0].Verdict != verdictWarn || !strings.Contains(findings[0].Hint, "one a day") {
		t.Errorf("findings %+v", findings)
	}
}

// TestDoctorRestores follows the doctor's own hint.
func TestDoctorRestores(t *testing.T) {
	t.Parallel()
	dataDir, s, copy := registryWithCopies(t)
	path := filepath.Join(daemon.StateDir(dataDir), "state.db")
	must(t, s.Close(), os.Truncate(path, 5000))
	_, printed := doctor(t, "--data-dir", dataDir)
	_, command, found := strings.Cut(printed, "since, with: ten ")
	if !found {
		t.Fatalf("no command in:\n%s", printed)
	}
	command, _, _ = strings.Cut(command, "\n")
	status, printed := doctor(t, strings.Fields(strings.TrimPrefix(command, "doctor "))...)
	if status != 0 {
		t.Errorf("exit status %d", status)
	}
	wantPrinted(t, printed, "^restored 1 instance from "+regexp.QuoteMeta(copy)+"$", "^what was there is kept as "+regexp.QuoteMeta(path)+`\.damaged-`)
	_, printed = doctor(t, "--data-dir", dataDir)
	wantPrinted(t, printed, "^ok    registry: 1 instance, ")
	status, printed = doctor(t, "--data-dir", dataDir, "--json", "--restore="+filepath.Base(copy))
	if status != 0 || !strings.Contains(printed, `"instances": 1`) {
		t.Errorf("exit status %d: %s", status, printed)
	}
	for arg, want := range map[string]int{"--restore=": 2, "--restore=nothing": 3} {
		if status, printed := doctor(t, "--data-dir", dataDir, arg); status != want {
			t.Errorf("%s: exit status %d: %s", arg, status, printed)
		}
	}
}

func must(t *testing.T, failed ...error) {
	t.Helper()
	for _, err := range failed {
		if err != nil {
			t.Fatal(err)
		}
	}
}
