package main

import (
	"context"
	"maps"
	"slices"
	"strings"

	"tenement"
	"tenement/internal/runtime"
)

// checkSandbox says whether sandboxes can be made, which matters to services that ask
// for them.
func checkSandbox(_ context.Context, e *examination) []finding {
	var wanted []string
	if e.config != nil {
		for _, name := range slices.Sorted(maps.Keys(e.config.Services)) {
			if e.config.Services[name].Isolation == tenement.IsolationSandbox {
				wanted = append(wanted, name)
			}
		}
	}
	path, err := runtime.FindRunsc()
	switch {
	case err == nil:
		return found(verdictOK, path+", version "+runtime.RunscVersion+", platform "+runtime.RunscPlatform, "")
	case len(wanted) == 0:
		return found(verdictOK, "none can be made, and no service asks for one: "+err.Error(), tenement.HintOf(err))
	}
	return found(verdictFail, strings.Join(wanted, ", ")+" cannot start: "+err.Error(), tenement.HintOf(err))
}
