// Package vm runs the product in a machine of its own, with Debian's kernel and
// systemd, which the machine that tests may not have.
package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	tenementruntime "tenement/internal/runtime"
)

// The bounds are for a busy machine without hardware virtualisation.
const (
	bootTimeout  = 15 * time.Minute // one life of the machine, its tests included
	buildTimeout = 10 * time.Minute // of a machine that was never built here
)

//go:embed build.sh
var recipe []byte

// needs are the programs of the lane; all come from the packages of install.
var needs = []string{"qemu-system-x86_64", "cpio", "debootstrap", "mke2fs", "apt-get"}

const install = "apt-get install qemu-system-x86 cpio debootstrap e2fsprogs"

// require skips where the lane cannot run, or fails there if TENEMENT_REQUIRE lists
// qemu.
func require(t *testing.T) {
	t.Helper()
	why := ""
	for _, program := range needs {
		if _, err := exec.LookPath(program); err != nil {
			why = program + " is missing: on Debian, as root, " + install
		}
	}
	switch {
	case runtime.GOARCH != "amd64":
		why = "the machine is an amd64 one, and its kernel comes from this machine's packages"
	case why == "" && os.Getuid() != 0:
		why = "only root can build a root file system: run the tests of test/vm as root"
	}
	if why != "" {
		missing(t, "qemu", why)
	}
}

// missing skips, or fails where TENEMENT_REQUIRE lists what is missing.
func missing(t *testing.T, what, why string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), what) {
		t.Fatal(why)
	}
	t.Skip(why)
}

// TestUnderSystemd takes one machine through its life with the product: see the tests
// of package guest, which run in it, one after each boot.
func TestUnderSystemd(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a minute; leave -short away")
	}
	require(t)
	takesThrough(t, lives, nil)
}

// TestLimitsUnderSystemd does so in a machine of its own, at the same time.
func TestLimitsUnderSystemd(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a minute; leave -short away")
	}
	require(t)
	takesThrough(t, []life{{"TestLimits", "poweroff -ff"}}, nil)
}

// TestSandboxUnderSystemd is the machine with runsc, which is too large to be unpacked in
// each life of the others.
func TestSandboxUnderSystemd(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a minute; leave -short away")
	}
	require(t)
	runsc, err := tenementruntime.FindRunsc()
	if err != nil {
		missing(t, "runsc", err.Error()+": run tools/runsc.sh, and put the directory that it prints into PATH")
	}
	takesThrough(t, []life{{"TestSandbox", "poweroff -ff"}}, map[string]string{"runsc": runsc})
}

// takesThrough runs the lives of one machine in turn, with more programs than it always has.
func takesThrough(t *testing.T, lives []life, more map[string]string) {
	t.Helper()
	image := machine(t)
	dir := t.TempDir()
	programs := build(t, dir)
	maps.Copy(programs, more)
	disk := filepath.Join(dir, "root.img")
	command(t, time.Minute, "cp", "--sparse=always", filepath.Join(image, "root.img"), disk)
	for _, l := range lives {
		if !t.Run(l.test, func(t *testing.T) { l.run(t, image, disk, programs) }) {
			return // the next one would only repeat the complaint
		}
	}
}

// life is what happens between two boots: a test of package guest, and the command
// that ends it if the test passed.
type life struct{ test, ending string }

var lives = []life{
	{"TestFirstBoot", "systemctl reboot"},
	{"TestAfterReboot", "echo b >/proc/sysrq-trigger"}, // as if the power was cut
	{"TestAfterPowerCut", "poweroff -ff"},
}

// machine gives the directory of kernel, initrd and root.img. They are built once for
// each recipe and kept outside of the checkout.
func machine(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "tenement")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(recipe)
	dir := filepath.Join(cache, "vm-"+hex.EncodeToString(sum[:6]))
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close() // and so unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	began := time.Now()
	fresh := dir + ".new" // what an interrupted build left in it goes
	if err := errors.Join(os.RemoveAll(fresh), os.Mkdir(fresh, 0o755)); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "build.sh")
	if err := os.WriteFile(script, recipe, 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, buildTimeout, "sh", script, fresh)
	if err := os.Rename(fresh, dir); err != nil {
		t.Fatal(err)
	}
	t.Logf("built %s in %s", dir, time.Since(began).Round(time.Second))
	return dir
}

// build makes the programs that go into the machine; they need no library.
func build(t *testing.T, dir string) map[string]string {
	t.Helper()
	programs := map[string]string{}
	for name, arguments := range map[string][]string{
		"ten":   {"build", "tenement/cmd/ten"},
		"notes": {"build", "tenement/examples/notes"},
		"guest": {"test", "-c", "tenement/test/vm/guest"},
		// The suites, for what only this machine's kernel can do; the latter is a tenant, too.
		"cgroup.test":  {"test", "-c", "tenement/internal/cgroup"},
		"runtime.test": {"test", "-c", "tenement/internal/runtime"},
	} {
		programs[name] = filepath.Join(dir, name)
		arguments = slices.Insert(arguments, len(arguments)-1, "-ldflags=-s -w", "-o", programs[name])
		command(t, buildTimeout, "env", slices.Concat([]string{"CGO_ENABLED=0", "go"}, arguments)...)
	}
	return programs
}

// command runs a program to its end, which is soon.
func command(t *testing.T, limit time.Duration, name string, arguments ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if out, err := exec.CommandContext(ctx, name, arguments...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arguments, " "), err, out)
	}
}

// run boots the machine for one life. QEMU's own exit status says nothing: the machine
// passes if the last line about that says so.
func (l life) run(t *testing.T, image, disk string, programs map[string]string) {
	t.Helper()
	verdict := "verdict " + rand.Text() + ":"
	payload := filepath.Join(t.TempDir(), "payload.tar")
	script := fmt.Sprintf(`#!/bin/sh
if ./guest -test.v -test.run '^%s$'; then
	sync
	echo "%s pass"
	stty -F /dev/ttyS0 -echo # returns when that has left the machine
	%s
else
	echo "%[2]s fail"
	poweroff -ff
fi
`, l.test, verdict, l.ending)
	if err := writePayload(payload, script, programs); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	// timeout(1) ends QEMU even if the test itself is killed.
	cmd := exec.CommandContext(t.Context(), "timeout", "--kill-after=10", fmt.Sprint(bootTimeout.Seconds()), "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024",
		"-kernel", filepath.Join(image, "kernel"), "-initrd", filepath.Join(image, "initrd"),
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off systemd.unified_cgroup_hierarchy=1 systemd.show_status=0",
		"-drive", "file="+disk+",format=raw,if=virtio,cache=unsafe",
		"-drive", "file="+payload+",format=raw,if=virtio,readonly=on",
		"-display", "none", "-serial", "stdio", "-no-reboot", "-monitor", "none", "-nic", "none")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // which it passes on
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	err := cmd.Run()
	last := ""
	for line := range strings.Lines(console.String()) {
		if _, word, ok := strings.Cut(line, verdict); ok {
			last = strings.TrimSpace(word)
		}
	}
	if err != nil || last != "pass" {
		t.Fatalf("QEMU: %v; verdict %q; the machine's console:\n%s", err, last, strings.ReplaceAll(console.String(), "\r", ""))
	}
	t.Logf("%s, with %s of CPU time; the steps:\n%s", time.Since(began).Round(time.Second),
		cmd.ProcessState.UserTime().Round(time.Second), strings.Join(stepTimes.FindAllString(console.String(), -1), "\n"))
}

// stepTimes are the lines of the guest's log that say how long each step took, and what
// was measured in it.
var stepTimes = regexp.MustCompile(`    --- PASS: .*\)|measured: .*`)

// writePayload makes the archive that is the machine's second drive.
func writePayload(path, script string, programs map[string]string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(file)
	contents := map[string][]byte{"run": []byte(script)}
	for name, program := range programs {
		if contents[name], err = os.ReadFile(program); err != nil {
			return err
		}
	}
	for name, content := range contents {
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}); err != nil {
			return err
		}
		if _, err := io.Copy(archive, bytes.NewReader(content)); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), file.Close())
}
