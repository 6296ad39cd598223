package main

import "runtime/debug"

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version = "dev"

// programVersion is what the linker or, failing that, the build says.
func programVersion() string {
	info, ok := debug.ReadBuildInfo()
	if version != "dev" || !ok {
		return version
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	revision := settings["vcs.revision"]
	if revision == "" {
		return version
	}
	v := version + "-" + revision[:min(len(revision), 12)]
	if settings["vcs.modified"] == "true" {
		v += "-modified"
	}
	return v
}
