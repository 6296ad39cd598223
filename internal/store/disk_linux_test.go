package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tenement"
)

// inOwnMounts runs the calling test again in a process with mounts of its own, on a
// file system of 1 MiB that is gone with it; there it returns the directory.
func inOwnMounts(t *testing.T) (dir string, child bool) {
	t.Helper()
	const variable = "STORE_TEST_MOUNT"
	if dir := os.Getenv(variable); dir != "" {
		must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=0700"))
		return dir, true
	}
	t.Parallel()
	requireRoot(t)
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.timeout=2m")
	again.Env = append(os.Environ(), variable+"="+t.TempDir())
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // what is mounted there stays there
	if out, err := again.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return "", false
}

// fill leaves no room on dir's file system until the file it returns is removed.
func fill(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filling")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	must(t, err)
	for size := 1 << 16; size > 0; {
		if _, err := file.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else {
			must(t, err)
		}
	}
	must(t, file.Close())
	return path
}

// registerUntilFull is how many instances could be registered; the error is the first.
func registerUntilFull(t *testing.T, s *Store) (n int, err error) {
	t.Helper()
	for ; n < 100_000; n++ {
		if _, err := s.Register(t.Context(), tenement.InstanceID{Service: "api", Name: fmt.Sprint("t", n)}, noon); err != nil {
			return n, err
		}
	}
	t.Fatal("the disk does not fill up")
	return n, nil
}

// news are what OnWritable was told.
type news []error

func (n *news) of(s *Store) { s.OnWritable(func(failed error) { *n = append(*n, failed) }) }

func (n news) check(t *testing.T, when string, want ...bool) {
	t.Helper()
	if len(n) != len(want) {
		t.Fatalf("%s: told %v", when, n)
	}
	for i, failed := range n {
		if (failed == nil) != want[i] {
			t.Errorf("%s: told %v, want writable %v", when, n, want)
		}
	}
}

// wantTrouble checks the error of a write that the disk refused.
func wantTrouble(t *testing.T, err error, hint string) {
	t.Helper()
	wantCode(t, err, tenement.CodeUnavailable)
	if !strings.Contains(tenement.HintOf(err), hint) {
		t.Errorf("error %v has hint %q, want %q", err, tenement.HintOf(err), hint)
	}
}

// TestFullDisk is about a real one: writes are refused, all of them and wholly, reads
// and what was confirmed stay, and with room again writing goes on.
func TestFullDisk(t *testing.T) {
	dir, child := inOwnMounts(t)
	if !child {
		return
	}
	ctx, state := t.Context(), filepath.Join(dir, ".tenement")
	s := openStore(t, state)
	var told news
	told.of(s)
	register(t, s, "api:alice")
	alice := instanceID(t, "api:alice")
	little := filepath.Join(dir, "little")
	must(t, os.WriteFile(little, make([]byte, 64<<10), 0o600))
	filling := fill(t, dir)
	full := "the disk of " + state + " is full"
	n, err := registerUntilFull(t, s)
	wantTrouble(t, err, full)
	told.check(t, "full", false)
	wantTrouble(t, told[0], full)

	must(t, os.Remove(little))
	register(t, s, "api:bob") // which finds room
	wantTrouble(t, s.CheckWritable(ctx), full)
	told.check(t, "almost full", false)
	n++

	// Small writes may still find room in the log; these do not.
	big := strings.Repeat("x", 300_000)
	for range 3 { // each leaves the connection as it found it
		wantTrouble(t, s.SetFailure(ctx, alice, tenement.Failure{Reason: big}), full)
		wantTrouble(t, s.AppendEvent(ctx, tenement.Event{Detail: big}), full)
		wantTrouble(t, s.PutProcess(ctx, alice, Process{Ref: tenement.Ref{PID: 1, Cgroup: big}}), full)
		wantTrouble(t, s.CreateToken(ctx, tenement.Token{ID: big}, [32]byte{1}), full)
	}
	_, err = s.BackUp(ctx, noon)
	wantTrouble(t, err, full)
	if list, err := s.Instances(ctx, Filter{Limit: 200_000}); err != nil || len(list) != n+1 {
		t.Errorf("%d instances are there, %v; %d were confirmed", len(list), err, n+1)
	}
	if i, err := s.Instance(ctx, alice); err != nil || i.Failure.Reason != "" {
		t.Errorf("half a write: %+v, %v", i.Failure, err)
	}

	must(t, os.Remove(filling))
	must(t, s.SetFailure(ctx, alice, tenement.Failure{Reason: big}))
	must(t, s.SetWeights(ctx, Weight{alice, 1}, Weight{alice, 2}))
	told.check(t, "room again", false, true)
	must(t, s.Check(ctx))
	must(t, s.Close())
	s = openStore(t, state)
	if i, err := s.Instance(ctx, alice); err != nil || i.Weight != 2 || i.Failure.Reason != big {
		t.Errorf("reopened: weight %d, %d bytes, %v", i.Weight, len(i.Failure.Reason), err)
	}
	if left := fileNames(t, filepath.Join(state, "backups")); left != "" {
		t.Errorf("the copy that found no room left %s", left)
	}
}

// TestFullDiskInATransaction: of several changes none stays.
func TestFullDiskInATransaction(t *testing.T) {
	dir, child := inOwnMounts(t)
	if !child {
		return
	}
	s := openStore(t, dir)
	addRows(t, s, 300)
	all := make([]Weight, 300)
	for n := range all {
		all[n] = Weight{tenement.InstanceID{Service: "api", Name: fmt.Sprint("tenant-", n)}, 7}
	}
	filling := fill(t, dir)
	for range 500 { // until the log has no room of its own
		if err := s.SetWeights(t.Context(), all...); err != nil {
			wantTrouble(t, err, "is full")
			break
		}
		for n := range all {
			all[n].Weight++
		}
	}
	want := map[int]int{}
	weights, err := s.Weights(t.Context())
	must(t, err)
	for _, w := range weights {
		want[w.Weight]++
	}
	if len(want) > 1 {
		t.Errorf("half of a transaction stayed: %v", want)
	}
	wantTrouble(t, s.SetWeights(t.Context(), all...), "is full")
	must(t, os.Remove(filling))
	must(t, s.SetWeights(t.Context(), all...))
}

// TestOpenOnFullOrReadOnlyDisk: a daemon that starts there says why it cannot, and
// can as soon as that has passed.
func TestOpenOnFullOrReadOnlyDisk(t *testing.T) {
	dir, child := inOwnMounts(t)
	if !child {
		return
	}
	s, err := Open(t.Context(), dir)
	must(t, err)
	register(t, s, "api:alice")
	must(t, s.Close())

	must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, "size=1m"))
	_, err = Open(t.Context(), dir)
	wantTrouble(t, err, "read-only")
	must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=1m"))

	filling := fill(t, dir)
	_, err = Open(t.Context(), dir)
	wantTrouble(t, err, "is full")
	must(t, os.Remove(filling))
	s = openStore(t, dir)
	if _, err := s.Instance(t.Context(), instanceID(t, "api:alice")); err != nil {
		t.Error(err)
	}
}

// TestFailingDisk has the kernel refuse writes beyond a size, which SQLite takes for
// a failing disk, in a process of its own because the limit is the process's.
func TestFailingDisk(t *testing.T) {
	const variable = "STORE_TEST_FAILING"
	dir := os.Getenv(variable)
	if dir == "" {
		t.Parallel()
		runAgain(t, "TestFailingDisk", variable+"="+t.TempDir())
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	s := openStore(t, dir)
	var told news
	told.of(s)
	addRows(t, s, 1000)
	var before unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &before))
	must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 100_000, Max: before.Max}))
	_, err := registerUntilFull(t, s)
	wantTrouble(t, err, "the disk of "+dir+" fails")
	wantTrouble(t, s.CheckWritable(t.Context()), "fails")
	if list, err := s.Instances(t.Context(), Filter{}); err != nil || len(list) != 1000 {
		t.Errorf("%d instances, %v", len(list), err)
	}
	must(t, s.SetWeights(t.Context())) // writes nothing, and so shows nothing
	told.check(t, "failing", false)
	must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &before))
	must(t, s.CheckWritable(t.Context()))
	told.check(t, "again", false, true)
	register(t, s, "web:alice")
	must(t, s.Check(t.Context()))
}

// TestWritability is about what the store tells of it, whichever way it learns it.
func TestWritability(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), openStore(t, t.TempDir())
	register(t, s, "api:alice", "api:bob")
	alice := instanceID(t, "api:alice")
	var told news
	told.of(s)
	pragma := func(text string) {
		t.Helper()
		_, err := s.write.ExecContext(ctx, "PRAGMA "+text)
		must(t, err)
	}
	wantCode(t, s.SetSuspended(ctx, instanceID(t, "api:nobody"), true), tenement.CodeNotFound)
	ended, cancel := context.WithDeadline(ctx, time.Unix(0, 0))
	defer cancel()
	wantCode(t, s.CheckWritable(ended), tenement.CodeTimeout)
	told.check(t, "after mistakes of the caller")

	pragma("query_only(ON)")
	for range 2 {
		wantTrouble(t, s.SetSuspended(ctx, alice, true), "read-only")
		wantTrouble(t, s.CheckWritable(ctx), "read-only")
	}
	told.check(t, "read-only", false)
	pragma("query_only(OFF)")
	must(t, s.CheckWritable(ctx))
	told.check(t, "writable", false, true)

	// As full as it is: the one page that CheckWritable writes still has room.
	var pages int
	must(t, s.write.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages))
	pragma(fmt.Sprintf("max_page_count(%d)", pages))
	wantTrouble(t, s.SetFailure(ctx, alice, tenement.Failure{Reason: strings.Repeat("x", 10_000)}), "is full")
	told.check(t, "full", false, true, false)
	pragma("max_page_count(1000000)")
	must(t, s.SetFailure(ctx, alice, tenement.Failure{Reason: strings.Repeat("x", 10_000)}))
	told.check(t, "room", false, true, false, true)
}

// TestCheckWritableWrites: SQLite skips pages that stay as they are, but not this one.
func TestCheckWritableWrites(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	size := func() int64 {
		info, err := os.Stat(s.log)
		must(t, err)
		return info.Size()
	}
	before := size()
	must(t, s.CheckWritable(t.Context()))
	if size() == before {
		t.Error("nothing was written")
	}
	var version int
	must(t, s.read.QueryRowContext(t.Context(), "PRAGMA user_version").Scan(&version))
	if version != len(migrations) {
		t.Errorf("the version is now %d", version)
	}
}
