package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tenement/internal/runtime/runtimetest"
)

// startAs serves a configuration as an ordinary user's daemon; for another one at its
// address, listen is that.
func startAs(t *testing.T, user *runtimetest.User, ten, listen string) *daemon {
	t.Helper()
	d := launch(t, user.Command(ten), filepath.Join(user.Dir, "tenement.toml"), filepath.Join(user.Dir, "data"), listen)
	d.ten, d.as = ten, user.Command
	d.waitServing()
	return d
}

// newUser makes a user who has our programs and a configuration; in that, %s is where the
// notes program is.
func newUser(t *testing.T, config string) (user *runtimetest.User, ten string) {
	t.Helper()
	runtimetest.RequireUser(t)
	if err := build(); err != nil {
		t.Fatal(err)
	}
	user = runtimetest.NewUser(t)
	notes := user.Install(t, filepath.Join(root, "bin", "notes"))
	if err := os.WriteFile(filepath.Join(user.Dir, "tenement.toml"), fmt.Appendf(nil, config, notes), 0o644); err != nil {
		t.Fatal(err)
	}
	return user, user.Install(t, filepath.Join(root, "bin", "ten"))
}

// processes lists those in the user's cgroups.
func processes(t *testing.T, user *runtimetest.User) (pids []int) {
	t.Helper()
	err := filepath.WalkDir(user.Cgroup, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.Name() != "cgroup.procs" {
			return err
		}
		text, err := os.ReadFile(path)
		for word := range strings.FieldsSeq(string(text)) {
			pid, _ := strconv.Atoi(word)
			pids = append(pids, pid)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

// TestNamespacesWithoutRoot: an ordinary user's tenants have user ids of their own and
// outlive the daemon, and nothing is left after its stop.
func TestNamespacesWithoutRoot(t *testing.T) {
	t.Parallel()
	user, ten := newUser(t, `
[service.notes]
command = "%[1]s"
isolation = "namespace"
egress = "deny"
health = "/health"

[service.plain]
command = "%[1]s"
health = "/health"
`)
	first := startAs(t, user, ten, "127.0.0.1:0")
	first.command("spawn", "notes:alice")
	first.command("spawn", "plain:bob")
	first.post("alice.notes.localhost", "/notes", "of the first daemon")
	first.post("bob.plain.localhost", "/notes", "of the first daemon")
	alice, bob := first.pid("notes:alice"), first.pid("plain:bob")
	if uids := strings.Fields(status(t, alice, "Uid")); uids[0] != uids[1] || len(uids[0]) != len("200000") {
		t.Errorf("alice's program has the uids %s", uids)
	}
	if seen := strings.Fields(status(t, alice, "NSpid")); len(seen) != 2 {
		t.Errorf("alice's program is in no pid namespace: %s", seen)
	}
	if uid := strings.Fields(status(t, bob, "Uid"))[0]; uid != strconv.Itoa(runtimetest.UserID) {
		t.Errorf("bob's program, not isolated, has the uid %s", uid)
	}
	for _, pid := range []int{alice, bob} {
		if rights := status(t, pid, "CapEff"); strings.Trim(rights, "0") != "" {
			t.Errorf("process %d has the capabilities %s", pid, rights)
		}
	}

	first.kill()
	second := startAs(t, user, ten, strings.TrimPrefix(first.base, "http://"))
	second.post("alice.notes.localhost", "/notes", "of the second daemon")
	second.upgrade()
	second.post("alice.notes.localhost", "/notes", "of the third daemon")
	if text := second.get(200, "alice.notes.localhost", "/notes").body; strings.Count(text, "daemon") != 3 {
		t.Errorf("alice's notes are %s", text)
	}
	if now := second.pid("notes:alice"); now != alice {
		t.Errorf("alice's process is %d and was %d", now, alice)
	}
	if now := second.pid("plain:bob"); now != bob {
		t.Errorf("bob's process is %d and was %d", now, bob)
	}
	second.stop()
	for _, pid := range processes(t, user) { // the keeper's end may take a moment
		waitGone(t, pid)
	}
}

// TestWhatOnlyRootCan: what an ordinary user's daemon cannot do is an error that says what
// would help.
func TestWhatOnlyRootCan(t *testing.T) {
	t.Parallel()
	user, ten := newUser(t, `
[service.notes]
command = "%[1]s"
isolation = "namespace"

[service.untrusted]
command = "%[1]s"
isolation = "sandbox"
`)
	refused := func(d *daemon, id string, hints ...string) {
		t.Helper()
		out, err := d.tryCommand("spawn", id)
		if err == nil {
			t.Errorf("spawned %s", id)
		}
		for _, hint := range hints {
			if !strings.Contains(out, hint) {
				t.Errorf("spawning %s did not speak of %s:\n%s", id, hint, out)
			}
		}
	}
	user.Give(t, 0)
	without := startAs(t, user, ten, "127.0.0.1:0")
	refused(without, "notes:alice", "/etc/subuid", "usermod --add-subuids", `isolation = "process"`)
	refused(without, "untrusted:mallory", "/etc/subuid", "usermod --add-subuids", "as root")
	without.stop()
	user.Give(t, runtimetest.UserIDs)
	within := startAs(t, user, ten, "127.0.0.1:0")
	refused(within, "notes:alice", `egress = "deny"`, "as root")
	refused(within, "untrusted:mallory", `isolation = "namespace"`, "as root")
}
