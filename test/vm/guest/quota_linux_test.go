package guest

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/disk"
)

const (
	quotaDir = "/srv/quota" // a data directory, on the file system that the machine has
	aliceUID = 1_999_000_001
	bobUID   = 1_999_000_002
	laterUID = 1_999_000_003 // of alice, after she was registered anew
	mebibyte = 1 << 20
)

// unitCapabilities are those of the unit of a root daemon, as setpriv(1) has them.
const unitCapabilities = "+chown,+dac_override,+dac_read_search,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_admin,+sys_chroot,+sys_ptrace,+sys_admin,+mknod"

var (
	alice = tenement.InstanceID{Service: "api", Name: "alice"}
	bob   = tenement.InstanceID{Service: "api", Name: "bob"}
)

// TestStorageQuota bounds directories as a start does, and has programs of other users
// run into the bounds.
func TestStorageQuota(t *testing.T) {
	if err := os.Mkdir(quotaDir, 0o755); err != nil {
		t.Fatal(err)
	}
	root := must(disk.Open(quotaDir))
	defer root.Close()
	q := &quotas{root}
	steps(t,
		step{"without enforcement it is measured", q.isMeasured},
		step{"files from before count", q.countsFilesFromBefore},
		step{"bytes are bounded", q.boundsBytes},
		step{"files are bounded", q.boundsFiles},
		step{"neighbours are not", q.sparesNeighbours},
		step{"a raised limit holds at once", q.raises},
		step{"the daemon's own user is measured", q.measuresRoot},
		step{"a directory changes hands", q.handsOver},
		step{"a limit is taken away", q.clears},
		step{"nothing is left of what was removed", q.removes},
		step{"what it costs a start", q.isCheap},
		step{"what seccomp must prevent", q.canBeLeft},
		step{"a tenant of a daemon", boundsATenant},
		step{"nothing is left of what was purged", purgesRecords},
	)
}

type quotas struct{ *disk.Root }

// give makes id's directory and bounds it; it wants the bound to be kept like this.
func (q *quotas) give(t *testing.T, id tenement.InstanceID, uid int, limit tenement.Bytes, want disk.Enforcement) string {
	t.Helper()
	dir, err := q.Make(t.Context(), id, uid)
	if err != nil {
		t.Fatal(err)
	}
	how, err := q.Limit(t.Context(), id, uid, limit)
	if err != nil || how != want {
		t.Fatalf("bounded by %q, %v, want %q", how, err, want)
	}
	// A tenant finds its directory by a mount of its own.
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// as runs a shell as a user, in the directory of alice or bob, and gives what it said.
func as(t *testing.T, uid int, dir, script string) (string, bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	return said.String(), err == nil
}

// exceeds wants the script to meet the limit.
func exceeds(t *testing.T, uid int, dir, script string) {
	t.Helper()
	if said, ok := as(t, uid, dir, script); ok || !strings.Contains(said, "Disk quota exceeded") {
		t.Errorf("%s: succeeded %v: %s", script, ok, said)
	}
}

func succeeds(t *testing.T, uid int, dir, script string) {
	t.Helper()
	if said, ok := as(t, uid, dir, script); !ok {
		t.Errorf("%s: %s", script, said)
	}
}

func (q *quotas) storage(t *testing.T, id tenement.InstanceID, uid int) disk.Storage {
	t.Helper()
	s, err := q.Storage(t.Context(), id, uid, true, 8*mebibyte)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// isMeasured: the file system counts for projects, and enforces nothing: it is mounted
// without prjquota. With it on, as a mount with that option has it, it does.
func (q *quotas) isMeasured(t *testing.T) {
	dir := q.give(t, alice, aliceUID, 8*mebibyte, disk.Measured)
	if s := q.storage(t, alice, aliceUID); s.Enforcement != disk.Measured {
		t.Errorf("%+v", s)
	}
	succeeds(t, aliceUID, dir, "mkdir -p deep/deeper && dd if=/dev/zero of=deep/deeper/before bs=1M count=3 && ln -s before deep/link && mkfifo deep/fifo")
	if err := quotactl(0x800002, 4, nil); err != nil { // Q_QUOTAON, QFMT_VFS_V1
		t.Fatal(err)
	}
	if s, err := q.Storage(t.Context(), bob, 0, true, mebibyte); err != nil || s.Enforcement != disk.Project {
		t.Errorf("of a directory that is yet to be made: %+v, %v", s, err)
	}
}

// quotactl is about project quotas of the root file system.
func quotactl(command, id int, address unsafe.Pointer) error {
	dir, err := os.Open("/")
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, _, number := unix.Syscall6(unix.SYS_QUOTACTL_FD, dir.Fd(), uintptr(command<<8|2), uintptr(id), uintptr(address), 0, 0); number != 0 {
		return number
	}
	return nil
}

// recorded lists the ids that the kernel keeps a record of, from first on.
func recorded(t *testing.T, first int) []int {
	t.Helper()
	var list []int
	for id := first; ; id++ {
		var record struct { // struct if_nextdqblk
			_     [8]uint64
			valid uint32
			id    uint32
		}
		err := quotactl(0x800009, id, unsafe.Pointer(&record)) // Q_GETNEXTQUOTA
		if err == unix.ENOENT || err == unix.ESRCH {           //nolint:errorlint // as quotactl gives it
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		id = int(record.id)
		list = append(list, id)
	}
}

func (q *quotas) countsFilesFromBefore(t *testing.T) {
	q.give(t, alice, aliceUID, 8*mebibyte, disk.Project)
	s := q.storage(t, alice, aliceUID)
	if s.Enforcement != disk.Project || s.Limit != disk.LimitOf(8*mebibyte) || s.Use.Bytes < 3*mebibyte || s.Use.Bytes > 4*mebibyte {
		t.Errorf("%+v", s)
	}
	measured, err := q.Measure(t.Context(), alice, disk.Limit{})
	if err != nil || measured.Bytes != s.Use.Bytes || measured.Files != s.Use.Files+2 { // the link and the FIFO
		t.Errorf("the kernel counts %+v, and a look finds %+v, %v", s.Use, measured, err)
	}
	if kept, err := q.Bounded(alice, aliceUID); err != nil || !kept {
		t.Errorf("an adopting daemon finds no limit: %v", err)
	}
}

func (q *quotas) boundsBytes(t *testing.T) {
	dir := filepath.Join(quotaDir, "api", "alice")
	succeeds(t, aliceUID, dir, "mkdir new")
	exceeds(t, aliceUID, dir, "dd if=/dev/zero of=deep/big bs=1M count=64")
	exceeds(t, aliceUID, dir, "dd if=/dev/zero of=new/big bs=1M count=64")
	exceeds(t, aliceUID, dir, "fallocate -l 100M new/space")
	if s := q.storage(t, alice, aliceUID); s.Use.Bytes > 8*mebibyte || s.Use.Bytes < 7*mebibyte {
		t.Errorf("%+v", s)
	}
	succeeds(t, aliceUID, dir, "rm -r deep/big new && dd if=/dev/zero of=again bs=64k count=16")
}

func (q *quotas) boundsFiles(t *testing.T) {
	dir := filepath.Join(quotaDir, "api", "alice")
	exceeds(t, aliceUID, dir, "mkdir many; i=0; while [ $i -lt 2000 ]; do : >many/$i || exit 1; i=$((i+1)); done")
	if s := q.storage(t, alice, aliceUID); s.Use.Files != s.Limit.Files {
		t.Errorf("%+v", s)
	}
	succeeds(t, aliceUID, dir, "rm -r many")
}

func (q *quotas) sparesNeighbours(t *testing.T) {
	exceeds(t, aliceUID, filepath.Join(quotaDir, "api", "alice"), "dd if=/dev/zero of=big bs=1M count=64")
	dir := q.give(t, bob, bobUID, 8*mebibyte, disk.Project)
	succeeds(t, bobUID, dir, "dd if=/dev/zero of=file bs=64k count=64")
	if s := q.storage(t, bob, bobUID); s.Use.Bytes < 4*mebibyte || s.Use.Bytes > 5*mebibyte {
		t.Errorf("%+v", s)
	}
}

func (q *quotas) raises(t *testing.T) {
	dir := q.give(t, alice, aliceUID, 16*mebibyte, disk.Project)
	succeeds(t, aliceUID, dir, "dd if=/dev/zero of=more bs=64k count=64")
	exceeds(t, aliceUID, dir, "dd if=/dev/zero of=more bs=1M count=64")
	succeeds(t, aliceUID, dir, "rm more big")
}

// measuresRoot: project quotas do not bind who has CAP_SYS_RESOURCE.
func (q *quotas) measuresRoot(t *testing.T) {
	id := tenement.InstanceID{Service: "api", Name: "root"}
	q.give(t, id, 0, mebibyte, disk.Measured)
	if s, err := q.Storage(t.Context(), id, 0, false, mebibyte); err != nil || s.Enforcement != disk.Measured {
		t.Errorf("%+v, %v", s, err)
	}
}

func (q *quotas) handsOver(t *testing.T) {
	before := q.storage(t, alice, aliceUID).Use
	if _, err := q.Limit(t.Context(), alice, aliceUID, 0); err != nil { // as a deletion without purge does
		t.Fatal(err)
	}
	dir := q.give(t, alice, laterUID, 8*mebibyte, disk.Project)
	// The link and the FIFO are older than the quota, and never counted.
	if after := q.storage(t, alice, laterUID).Use; after != before {
		t.Errorf("%+v became %+v", before, after)
	}
	exceeds(t, laterUID, dir, "dd if=/dev/zero of=big bs=1M count=64")
	if said, ok := as(t, aliceUID, dir, "ls"); ok {
		t.Errorf("the user of before still sees %s", said)
	}
}

func (q *quotas) clears(t *testing.T) {
	dir := q.give(t, alice, laterUID, 0, disk.Unbounded)
	succeeds(t, laterUID, dir, "dd if=/dev/zero of=big bs=64k count=320")
	if s, err := q.Storage(t.Context(), alice, laterUID, true, 0); err != nil || s.Enforcement != disk.Unbounded || s.Use.Bytes < 20*mebibyte {
		t.Errorf("%+v, %v", s, err)
	}
}

func (q *quotas) removes(t *testing.T) {
	if err := q.Remove(alice, laterUID); err != nil {
		t.Fatal(err)
	}
	if err := q.Remove(bob, bobUID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the kernel's records are gone", func() bool { return len(recorded(t, aliceUID)) == 0 })
}

// isCheap prints what a start pays for a directory that is as it should be.
func (q *quotas) isCheap(t *testing.T) {
	q.give(t, bob, bobUID, 8*mebibyte, disk.Project)
	for what, limit := range map[string]tenement.Bytes{"with a quota": 8 * mebibyte, "without": 0} {
		const times = 300
		begin := time.Now()
		for range times {
			if _, err := q.Make(t.Context(), bob, bobUID); err != nil {
				t.Fatal(err)
			}
			if _, err := q.Limit(t.Context(), bob, bobUID, limit); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%s: %s for each start", what, time.Since(begin)/times)
	}
}

// canBeLeft shows that the owner of a file may take it out of its project: who bounds a
// tenant must refuse it that call.
func (q *quotas) canBeLeft(t *testing.T) {
	dir := q.give(t, bob, bobUID, 8*mebibyte, disk.Project)
	succeeds(t, bobUID, dir, "dd if=/dev/zero of=file bs=64k count=64")
	before := q.storage(t, bob, bobUID).Use
	succeeds(t, bobUID, dir, "chattr -p 0 file")
	if after := q.storage(t, bob, bobUID).Use; after.Bytes >= before.Bytes {
		t.Errorf("%s became %s: this kernel keeps a file in its project, and decision 18 asks for too much", before, after)
	}
}

// boundsATenant goes through a whole daemon: the tenant meets the limit, cannot leave its
// project, and goes on serving.
func boundsATenant(t *testing.T) {
	dir := "/srv/whole"
	text := must(os.ReadFile(filepath.Join(payload, "notes")))
	write(t, program, string(text), 0o755)
	write(t, dir+"/tenement.toml", `[settings]
domain = "localhost"
data_dir = "`+dir+`/data"

[service.notes]
command = "sh -c 'cd $DATA_DIR; dd if=/dev/zero of=big bs=1M count=64; chattr -p 0 big; rm big; exec `+program+`'"
health = "/health"
isolation = "namespace"
egress = "deny"
readable = ["/srv/notes"]
startup_timeout = 120
storage_quota_mb = 8

[service.notes.env]
DATA_DIR = "{data_dir}/{id}"
`, 0o600)
	const config = "--config=/srv/whole/tenement.toml"
	// With the capabilities that the unit leaves it.
	daemon := exec.CommandContext(t.Context(), "setpriv", "--no-new-privs", "--bounding-set=-all,"+unitCapabilities, payload+"/ten", "serve", config)
	daemon.Cancel = func() error { return daemon.Process.Signal(syscall.SIGTERM) }
	var said bytes.Buffer
	daemon.Stdout, daemon.Stderr = &said, &said
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(daemon.Process.Signal(syscall.SIGTERM), daemon.Wait()); err != nil || t.Failed() {
			t.Errorf("the daemon: %v\n%s", err, said.String())
		}
	}()
	eventually(t, "the daemon serves", func() bool { return exists(dir + "/data/.tenement/ten.sock") })
	if out, hint, status := try(t, payload+"/ten", "spawn", "notes:alice", config); status != 0 {
		t.Fatalf("%s%s", out, hint)
	}
	writes(t, "with room again")
	remembers(t, "with room again")
	logs := run(t, payload+"/ten", "logs", "notes:alice", config)
	for _, want := range []string{"Disk quota exceeded", "Operation not permitted"} {
		if !strings.Contains(logs, want) {
			t.Errorf("the tenant was not told %q:\n%s", want, logs)
		}
	}
	if shown := run(t, payload+"/ten", "inspect", "notes:alice", config); !strings.Contains(shown, "8.0 MiB, 1000 files (kept by the file system: project quota)") {
		t.Errorf("%s", shown)
	}
	uid := ownerOf(t, wholeData+"/alice")
	if !bounded(t, uid) {
		t.Error("the kernel does not know its bound")
	}
	run(t, payload+"/ten", "delete", "notes:alice", "--purge", config)
	if bounded(t, uid) {
		t.Error("the kernel still has a bound for what was purged")
	}
	run(t, payload+"/ten", "spawn", "notes:carol", config)
	if status, text, err := request(t, "127.0.0.1:8080", "carol.notes.localhost", "/health", patience); err != nil || status != http.StatusOK {
		t.Errorf("carol: %d %s %v", status, text, err)
	}
}

const wholeData = "/srv/whole/data/notes"

func ownerOf(t *testing.T, path string) int {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return int(stat.Uid)
}

// bounded reports whether the kernel has a bound for a project. To list what it has
// (Q_GETNEXTQUOTA) leaves some out, by their lower digits.
func bounded(t *testing.T, project int) bool {
	t.Helper()
	var record struct { // struct if_dqblk
		hardBytes uint64
		_         [7]uint64
		_         uint32
	}
	if err := quotactl(0x800007, project, unsafe.Pointer(&record)); err != nil { // Q_GETQUOTA
		t.Fatal(err)
	}
	return record.hardBytes > 0
}

// purgesRecords: an uninstall takes away the limits of instances that were not deleted.
func purgesRecords(t *testing.T) {
	uid := ownerOf(t, wholeData+"/carol")
	if !bounded(t, uid) {
		t.Fatal("the kernel has no bound that could be left")
	}
	run(t, payload+"/ten", "uninstall", "--purge", "--yes", "--config=/srv/whole/tenement.toml")
	if bounded(t, uid) {
		t.Error("the kernel still has a bound for what was purged")
	}
}
