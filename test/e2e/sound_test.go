package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // reads the registry beside the daemon

	"tenement"
	"tenement/internal/api"
	"tenement/internal/cgroup"
	"tenement/internal/runtime/runtimetest"
)

// wantSound checks the invariants of a daemon that serves: what the kernel shows, what
// is on record and what the API says are the same, at most one process per instance;
// everything registered can be woken and serves, and has the notes in kept; after a
// stop nothing of it is left.
func (d *daemon) wantSound(kept map[string]string) {
	d.t.Helper()
	d.wantConsistent()
	for id, st := range d.instances() {
		if st.State == tenement.Suspended {
			continue
		}
		host := id.Name + "." + id.Service + ".localhost"
		if got := d.get(http.StatusOK, host, "/notes").body; !strings.Contains(got, kept[id.Name]) {
			d.t.Errorf("%s has lost a note that was acknowledged: %s", id, got)
		}
	}
	d.wantConsistent()
	client := d.api()
	for id := range d.instances() {
		if err := client.Stop(d.t.Context(), id); err != nil {
			d.t.Error(err)
		}
	}
	d.wantConsistent()
	if left := d.observe(); len(left.processes)+len(left.records)+len(left.groups)+len(left.outputs) > 0 {
		d.t.Errorf("after all were stopped there is still %+v", left)
	}
}

// wantConsistent waits until what was under way when it is called has come to an end.
func (d *daemon) wantConsistent() {
	d.t.Helper()
	var flaws []string
	defer func() {
		if d.t.Failed() {
			d.t.Logf("flaws: %q", flaws)
		}
	}()
	runtimetest.Eventually(d.t, "all views of "+d.dataDir+" agree", func() bool {
		flaws = d.observe().flaws(d.t)
		return len(flaws) == 0
	})
}

// view is all there is of the tenants of a data directory, from every side.
type view struct {
	processes map[tenement.InstanceID][]int // in the kernel
	records   map[tenement.InstanceID]tenantRecord
	listed    map[tenement.InstanceID]api.Instance
	groups    []string // cgroups, of which each is in its place
	outputs   []string // FIFOs
}

type tenantRecord struct {
	pid                    int
	cgroup, stdout, stderr string
	state                  string
}

func (d *daemon) observe() view {
	d.t.Helper()
	v := view{listed: d.instances(), processes: tenants(d.t, d.dataDir), records: d.records()}
	outputs, err := filepath.Glob(filepath.Join(d.files(), ".tenement", "output", "*"))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, path := range outputs {
		v.outputs = append(v.outputs, strings.TrimPrefix(path, d.mounts))
	}
	v.groups = d.groups()
	return v
}

// flaws is what does not fit together. Two processes of an instance are a fault at any
// time; all else may be under way.
func (v view) flaws(t *testing.T) (list []string) {
	t.Helper()
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	var groups, outputs []string
	for id, pids := range v.processes {
		if len(pids) > 1 {
			t.Fatalf("%s has %d processes: %v", id, len(pids), pids)
		}
		if r := v.records[id]; r.pid != pids[0] {
			say("%s: process %d, on record is %d", id, pids[0], r.pid)
		}
		if now, err := cgroup.Of(pids[0]); err != nil || now != v.records[id].cgroup {
			say("%s: in cgroup %s (%v), on record is %s", id, now, err, v.records[id].cgroup)
		}
	}
	for id, r := range v.records {
		groups, outputs = append(groups, r.cgroup), append(outputs, r.stdout, r.stderr)
		if st := v.listed[id]; st.PID != r.pid || st.State.String() != r.state {
			say("%s: on record %s with process %d, observed %s with %d", id, r.state, r.pid, st.State, st.PID)
		}
		if v.processes[id] == nil {
			say("%s: process %d is on record and does not live", id, r.pid)
		}
	}
	for id, st := range v.listed {
		if st.State.HasProcess() != (v.processes[id] != nil) {
			say("%s: %s, processes %v", id, st.State, v.processes[id])
		}
	}
	for what, both := range map[string][2][]string{"cgroups": {v.groups, groups}, "FIFOs": {v.outputs, outputs}} {
		if slices.Sort(both[1]); !slices.Equal(both[0], both[1]) {
			say("%s: %v, on record %v", what, both[0], both[1])
		}
	}
	return list
}

// instances is what the daemon says.
func (d *daemon) instances() map[tenement.InstanceID]api.Instance {
	d.t.Helper()
	page, err := d.api().Instances(d.t.Context(), api.ListOptions{Limit: api.MaxInstances})
	if err != nil {
		d.t.Fatal(err)
	}
	list := make(map[tenement.InstanceID]api.Instance)
	for _, i := range page.Instances {
		list[i.ID] = i
	}
	return list
}

// tenants are the live processes that were given a directory below dataDir, whichever
// daemon started them.
func tenants(t *testing.T, dataDir string) map[tenement.InstanceID][]int {
	t.Helper()
	found := make(map[tenement.InstanceID][]int)
	for pid, environment := range allProcesses(t, "environ") {
		for variable := range bytes.SplitSeq(environment, []byte{0}) {
			path, ok := strings.CutPrefix(string(variable), "DATA_DIR="+dataDir+"/")
			if service, name, two := strings.Cut(path, "/"); ok && two {
				id := tenement.InstanceID{Service: service, Name: name}
				found[id] = append(found[id], pid)
			}
		}
	}
	return found
}

// daemons are the live processes that serve dataDir.
func daemons(t *testing.T, dataDir string) (pids []int) {
	t.Helper()
	for pid, line := range allProcesses(t, "cmdline") {
		words := strings.Split(string(line), "\x00")
		if slices.Contains(words, "serve") && slices.Contains(words, dataDir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// allProcesses reads one file of each process; it is empty for a zombie.
func allProcesses(t *testing.T, file string) map[int][]byte {
	t.Helper()
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	texts := make(map[int][]byte)
	for _, dir := range dirs {
		pid, err := strconv.Atoi(dir.Name())
		if err != nil {
			continue
		}
		if text, err := os.ReadFile(filepath.Join("/proc", dir.Name(), file)); err == nil { // it may just have ended
			texts[pid] = text
		}
	}
	return texts
}

// records reads the registry while the daemon uses it.
func (d *daemon) records() (found map[tenement.InstanceID]tenantRecord) {
	d.t.Helper()
	path := filepath.Join(d.files(), ".tenement", "state.db")
	runtimetest.Eventually(d.t, "the registry is readable", func() bool {
		from, err := path, error(nil)
		if d.mounts != "" { // SQLite takes /proc/PID/root for an ordinary link
			from = filepath.Join(d.t.TempDir(), "state.db")
			err = errors.Join(copyFile(path, from), copyFile(path+"-wal", from+"-wal"))
		}
		if err == nil {
			found, err = readRecords(d.t.Context(), from)
		}
		if err != nil {
			d.t.Log(err) // a copy may be torn
		}
		return err == nil
	})
	return found
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}

func readRecords(ctx context.Context, path string) (_ map[tenement.InstanceID]tenantRecord, err error) {
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: "mode=rw&_pragma=query_only(ON)&_pragma=busy_timeout(5000)"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(ctx, "SELECT service, name, pid, cgroup, stdout, stderr, state FROM processes")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := make(map[tenement.InstanceID]tenantRecord)
	for rows.Next() {
		var id tenement.InstanceID
		var r tenantRecord
		if err := rows.Scan(&id.Service, &id.Name, &r.pid, &r.cgroup, &r.stdout, &r.stderr, &r.state); err != nil {
			return nil, err
		}
		found[id] = r
	}
	return found, rows.Err()
}

// groups are the cgroups in the subtree of the data directory.
func (d *daemon) groups() (paths []string) {
	d.t.Helper()
	parent, err := cgroup.Of(os.Getpid()) // that the daemon has inherited
	if err != nil {
		d.t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(d.dataDir))
	tree := filepath.Join(parent, "tenement-"+hex.EncodeToString(sum[:6]))
	entries, err := os.ReadDir(tree)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			paths = append(paths, filepath.Join(tree, entry.Name()))
		}
	}
	return paths
}
