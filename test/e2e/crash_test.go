package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/fault"
	"tenement/internal/runtime/runtimetest"
)

// faulty is the path of a `ten` that crashes where it is told to.
var faulty = sync.OnceValues(func() (string, error) {
	err := errors.Join(build(), buildProgram("ten-faulty", "tenement/cmd/ten", "-tags", "faults"))
	return filepath.Join(root, "bin", "ten-faulty"), err
})

// Alice and Bob are awake before the accident and must keep their processes; it happens
// while something is done with Carol.
var (
	alice = tenement.InstanceID{Service: "notes", Name: "alice"}
	bob   = tenement.InstanceID{Service: "notes", Name: "bob"}
	carol = tenement.InstanceID{Service: "notes", Name: "carol"}
	dave  = tenement.InstanceID{Service: "notes", Name: "dave"} // nobody knows him before
)

// accident is how a daemon comes to pass a point, and what is true afterwards besides
// all that always is.
type accident struct {
	point fault.Name
	pass  int                            // 0 = 1
	do    func(d *daemon, c *api.Client) // its calls may fail: the daemon dies of them
	check func(d *daemon, c *api.Client) // before anything is woken
}

// accidents has one for every point that a daemon passes on its own: what happens in
// an upgrade is in upgradeAccidents, and the rest of the store's are tested there.
var accidents = []accident{
	{point: fault.Registered, do: spawnDave, check: isAsleep(dave)},
	{point: fault.Prepared, do: startCarol, check: isAsleep(carol)},
	{point: fault.PutProcessBefore, do: startCarol, check: isAsleep(carol)},
	{point: fault.PutProcessAfter, do: startCarol, check: isReady(carol)},
	{point: fault.PutProcessBefore, pass: 2, do: startCarol, check: isReady(carol)}, // ready, and not on record as such
	{point: fault.PutProcessAfter, pass: 2, do: startCarol, check: isReady(carol)},
	{point: fault.PutProcessBefore, pass: 3, do: stopCarol, check: isReady(carol)}, // to be stopped, and not on record as such
	{point: fault.PutProcessAfter, pass: 3, do: stopCarol, check: isAsleep(carol)},
	{point: fault.Told, do: stopCarol, check: isAsleep(carol)},
	{point: fault.Gone, do: stopCarol, check: isAsleep(carol)},
	{point: fault.Forgotten, do: stopCarol, check: isAsleep(carol)},
	{point: fault.SwitchedOff, do: suspendCarol, check: isSuspended},
	{point: fault.Gone, do: purgeCarol, check: purgeAgain},
	{point: fault.Forgotten, do: purgeCarol, check: purgeAgain},
	{point: fault.Purged, do: purgeCarol, check: purgeAgain},
	{point: fault.OutputTaken, do: startCarol, check: carolHasSaid},
	{point: fault.Adopted},
	{point: fault.Adopted, pass: 2},
	{point: fault.AdoptedAll},
	{point: fault.Swept},
	{point: fault.TookOver},
}

func spawnDave(d *daemon, c *api.Client) {
	_, _ = c.Spawn(d.t.Context(), dave, api.SpawnOptions{Wake: true})
}
func startCarol(d *daemon, c *api.Client) { _ = c.Start(d.t.Context(), carol) }
func stopCarol(d *daemon, c *api.Client) {
	startCarol(d, c)
	_ = c.Stop(d.t.Context(), carol)
}
func suspendCarol(d *daemon, c *api.Client) {
	startCarol(d, c)
	_ = c.Suspend(d.t.Context(), carol)
}
func purgeCarol(d *daemon, c *api.Client) {
	startCarol(d, c)
	_ = c.Delete(d.t.Context(), carol, true)
}

func isAsleep(id tenement.InstanceID) func(*daemon, *api.Client) { return comesTo(id, tenement.Asleep) }
func isReady(id tenement.InstanceID) func(*daemon, *api.Client)  { return comesTo(id, tenement.Ready) }

func comesTo(id tenement.InstanceID, want tenement.State) func(*daemon, *api.Client) {
	return func(d *daemon, c *api.Client) {
		runtimetest.Eventually(d.t, id.String()+" is "+want.String(), func() bool {
			st, err := c.Instance(d.t.Context(), id)
			return err == nil && st.State == want
		})
	}
}

func isSuspended(d *daemon, c *api.Client) {
	comesTo(carol, tenement.Suspended)(d, c)
	d.wantConsistent()
	if err := c.Resume(d.t.Context(), carol); err != nil {
		d.t.Error(err)
	}
}

// purgeAgain: a deletion that was not acknowledged can be asked for again, and then the
// next one of that name has nothing of the one before.
func purgeAgain(d *daemon, c *api.Client) {
	if err := c.Delete(d.t.Context(), carol, true); err != nil {
		d.t.Errorf("the deletion cannot be finished: %v", err)
	}
	if _, err := os.Stat(filepath.Join(d.dataDir, "notes", "carol")); err == nil {
		d.t.Error("the directory is left")
	}
	if _, err := c.Spawn(d.t.Context(), carol, api.SpawnOptions{}); err != nil {
		d.t.Error(err)
	}
	if lines := logsOf(d, c, carol); len(lines) > 0 {
		d.t.Errorf("she has logs before she was ever started: %v", lines)
	}
	d.post("carol.notes.localhost", "/notes", kept["carol"]) // which is looked for
	if got := d.get(http.StatusOK, "carol.notes.localhost", "/notes").body; strings.Count(got, kept["carol"]) != 1 {
		d.t.Errorf("there are old notes: %s", got)
	}
}

// carolHasSaid: what was stored and not removed is there once more, but not lost.
func carolHasSaid(d *daemon, c *api.Client) {
	runtimetest.Eventually(d.t, "her line is in the log", func() bool {
		n := strings.Count(strings.Join(logsOf(d, c, carol), "\n"), "notes listens on")
		if n > 1+2 { // the first is of her earlier process
			d.t.Fatalf("her line is in the log %d times", n)
		}
		return n > 1
	})
}

func logsOf(d *daemon, c *api.Client, id tenement.InstanceID) (lines []string) {
	d.t.Helper()
	list, err := c.Logs(d.t.Context(), api.LogOptions{Instance: id})
	if err != nil {
		d.t.Fatal(err)
	}
	for _, l := range list {
		lines = append(lines, l.Text)
	}
	return lines
}

// kept are the notes that were acknowledged, by the name of the instance.
var kept = map[string]string{"alice": "written by alice", "bob": "written by bob", "carol": "written by carol"}

// populate makes the tenants of an accident.
func (d *daemon) populate() {
	d.t.Helper()
	client := d.api()
	for name, note := range kept {
		id := tenement.InstanceID{Service: "notes", Name: name}
		if _, err := client.Spawn(d.t.Context(), id, api.SpawnOptions{}); err != nil {
			d.t.Fatal(err)
		}
		d.post(name+".notes.localhost", "/notes", note)
		runtimetest.Eventually(d.t, name+" is in the log", func() bool { return len(logsOf(d, client, id)) > 0 })
	}
	if err := client.Stop(d.t.Context(), carol); err != nil {
		d.t.Fatal(err)
	}
}

// launchFaulty starts a daemon that is to crash.
func launchFaulty(t *testing.T, config, dataDir string, point fault.Name, pass int) *daemon {
	t.Helper()
	ten, err := faulty()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(ten)
	cmd.Env = append(os.Environ(), crashAt(point, pass))
	return launch(t, cmd, config, dataDir, "127.0.0.1:0")
}

func crashAt(point fault.Name, pass int) string {
	return fmt.Sprintf("%s=%s:%d", fault.Variable, point, max(pass, 1))
}

// waitCrashed waits until the daemon that the test has started is dead, and checks that
// it died at the point.
func (d *daemon) waitCrashed(point fault.Name) {
	d.t.Helper()
	d.serving, d.killed = 0, true
	runtimetest.Eventually(d.t, "the daemon crashes at "+string(point), func() bool {
		return d.output.count("crashed at "+string(point)) == 1
	})
	waitGone(d.t, d.process.Pid)
}

// wantKilled waits for the end of the daemon that the test has started, and of any other
// that has its output, and checks how it ended.
func (d *daemon) wantKilled() {
	d.t.Helper()
	d.waitReaped()
	err := runtimetest.Within(d.t, "the end of the daemon", d.ended)
	d.ended <- err
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		d.t.Errorf("it ended with %v", err)
	}
}

// TestCrashes kills a daemon at each point that it passes, and starts another one.
func TestCrashes(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	requireCgroups(t)
	if _, err := faulty(); err != nil {
		t.Fatal(err)
	}
	for _, a := range accidents {
		t.Run(fmt.Sprintf("%s:%d", a.point, max(a.pass, 1)), func(t *testing.T) {
			t.Parallel()
			first := start(t, "notes")
			first.populate()
			if a.do == nil { // then there is more to find: a process that nobody knows
				startCarol(first, first.api())
			}
			pids := first.pids()
			first.kill()
			if a.do == nil {
				delete(pids, carol)
				changeRecord(t, first.dataDir, "DELETE FROM processes WHERE name = 'carol'")
			}
			second := launchFaulty(t, first.config, first.dataDir, a.point, a.pass)
			if a.do != nil {
				second.waitServing()
				a.do(second, second.api())
			}
			second.waitCrashed(a.point)
			second.wantKilled()

			third := startConfig(t, first.config, first.dataDir)
			third.wantPIDs(pids)
			if a.check != nil {
				a.check(third, third.api())
			}
			third.wantSound(kept)
		})
	}
}

// wantPIDs checks that no tenant was restarted.
func (d *daemon) wantPIDs(want map[tenement.InstanceID]int) {
	d.t.Helper()
	got := d.pids()
	maps.DeleteFunc(got, func(id tenement.InstanceID, _ int) bool { return want[id] == 0 })
	if len(want) != 2 || !maps.Equal(got, want) {
		d.t.Errorf("processes %v, before %v", got, want)
	}
}

// upgradeAccident is where the old or the new daemon crashes in an upgrade.
type upgradeAccident struct {
	old, fresh fault.Name // "" = that one does not
	pass       int        // of the old one
	survives   string     // "old", "new", or "" for neither
}

var upgradeAccidents = []upgradeAccident{
	{old: fault.SuccessorReady},
	{old: fault.GivenUp},
	{old: fault.GoSent, survives: "new"},
	{old: fault.Replaced, survives: "new"},
	{fresh: fault.GoHeard, survives: "old"},
	{fresh: fault.Adopted, survives: "old"},
	{fresh: fault.AdoptedAll, survives: "old"},
	{fresh: fault.Swept, survives: "old"},
	{fresh: fault.TookOver, survives: "old"},
	{fresh: fault.Serves, survives: "old"},
	{fresh: fault.ServesTold},
	{fresh: fault.GoHeard, old: fault.Swept, pass: 2}, // while it takes everything back
}

// TestCrashesInAnUpgrade: the other daemon serves on, with the same processes; or, when
// both are gone, the next one does.
func TestCrashesInAnUpgrade(t *testing.T) {
	t.Parallel()
	requireLinux(t)
	requireCgroups(t)
	if _, err := faulty(); err != nil {
		t.Fatal(err)
	}
	for _, a := range upgradeAccidents {
		t.Run(strings.Trim(string(a.old+" "+a.fresh), " "), func(t *testing.T) {
			t.Parallel()
			d := a.startOld(t)
			d.populate()
			pids := d.pids()
			_, upgraded := d.api().Upgrade(t.Context())
			if a.old != "" {
				d.waitCrashed(a.old)
			}
			if crashed := d.output.count("crashed at " + string(a.fresh)); a.fresh != "" && a.survives != "" && crashed != 1 {
				t.Errorf("the new daemon crashed %d times at %s; the upgrade ended with %v", crashed, a.fresh, upgraded)
			}
			switch a.survives {
			case "old":
				if upgraded == nil || !strings.Contains(upgraded.Error(), "signal: killed") {
					t.Errorf("the upgrade ended with %v", upgraded)
				}
			case "new":
				d.serving = d.onlyDaemon()
			default:
				d = a.startNext(d)
			}
			if got := d.onlyDaemon(); got != d.serving {
				t.Errorf("the daemon is %d, want %d", got, d.serving)
			}
			d.wantPIDs(pids)
			d.wantSound(kept)
		})
	}
}

// startOld serves with a program whose file is the new daemon's.
func (a upgradeAccident) startOld(t *testing.T) *daemon {
	t.Helper()
	dir := t.TempDir()
	program, good := filepath.Join(dir, "ten"), filepath.Join(root, "bin", "ten-faulty")
	if err := os.Link(good, program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	if a.old != "" {
		cmd.Env = append(os.Environ(), crashAt(a.old, a.pass))
	}
	d := launch(t, cmd, filepath.Join(root, "examples", "notes", "tenement.toml"), t.TempDir(), "127.0.0.1:0")
	d.waitServing()
	d.ten = good // for the next one
	variable := "-u " + fault.Variable
	if a.fresh != "" {
		variable = crashAt(a.fresh, 1)
	}
	replace(t, program, fmt.Sprintf("#!/bin/sh\nexec env %s %s \"$@\"\n", variable, good))
	return d
}

// startNext waits until no daemon is left and starts the next one.
func (a upgradeAccident) startNext(d *daemon) *daemon {
	d.t.Helper()
	d.killed = true // or ended by itself, served out
	runtimetest.Eventually(d.t, "both daemons are gone", func() bool { return len(daemons(d.t, d.dataDir)) == 0 })
	if a.old != "" {
		d.wantKilled()
	}
	d.waitReaped()
	d.serving = 0
	if a.fresh != "" && d.output.count("crashed at "+string(a.fresh)) != 1 {
		d.t.Errorf("the new daemon did not crash at %s", a.fresh)
	}
	return d.again()
}

// onlyDaemon waits until one daemon serves the data directory and no other is left.
func (d *daemon) onlyDaemon() int {
	d.t.Helper()
	var pids []int
	runtimetest.Eventually(d.t, "one daemon is left, and it serves", func() bool {
		if pids = daemons(d.t, d.dataDir); len(pids) != 1 {
			return false
		}
		_, err := d.api().DaemonHealth(d.t.Context())
		return err == nil
	})
	return pids[0]
}

// TestAllCrashPointsAreWalked: those of the store are its own tests'.
func TestAllCrashPointsAreWalked(t *testing.T) {
	t.Parallel()
	var walked []fault.Name
	for _, a := range accidents {
		walked = append(walked, a.point)
	}
	for _, a := range upgradeAccidents {
		walked = append(walked, a.old, a.fresh)
	}
	for _, point := range fault.Points {
		if !strings.HasPrefix(string(point), "store.") && !slices.Contains(walked, point) {
			t.Errorf("nothing crashes at %s: add it to accidents", point)
		}
	}
}
