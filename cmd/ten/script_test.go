package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"tenement/internal/cgroup"
)

// scriptCondition knows system-config: this machine has a configuration that every
// command finds; systemd: it runs here; and cgroups: version 2 is mounted, at $CGROUPS.
func scriptCondition(name string) (bool, error) {
	if name == "cgroups" {
		_, err := cgroup.Mount()
		return err == nil, nil
	}
	path, ok := map[string]string{"system-config": systemConfig, "systemd": "/run/systemd/system"}[name]
	if !ok {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	_, err := os.Stat(path)
	return err == nil, nil
}

// statusCommand runs a program and checks its exit status, which ! cannot tell from
// another failure: status 2 ten strat. Output is checked with stdout and stderr.
func statusCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N program [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%s: %v", strings.Join(args[1:], " "), err)
	}
	if got != want {
		ts.Fatalf("%s: exit status %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}
