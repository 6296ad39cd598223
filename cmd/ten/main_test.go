package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"tenement/internal/cgroup"
)

// TestMain lets scripts run this test binary as ten, main function and all.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ten": main})
}

// scriptCommands are what scripts may use beside testscript's own commands.
var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"status": statusCommand,
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		Cmds:               scriptCommands,
		Condition:          scriptCondition,
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			mount, _ := cgroup.Mount() // "" without one, which scripts have a condition for
			e.Setenv("CGROUPS", mount)
			return nil
		},
	})
}
