package measure

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Machine says where a run was: what figures depend on.
func Machine() map[string]string {
	return map[string]string{
		"kernel":       first("/proc/sys/kernel/osrelease"),
		"system":       unquote(field("/etc/os-release", "PRETTY_NAME", "=")),
		"processor":    field("/proc/cpuinfo", "model name", ":"),
		"cores":        fmt.Sprint(runtime.NumCPU()),
		"memory":       field("/proc/meminfo", "MemTotal", ":"),
		"architecture": runtime.GOARCH,
		"load before":  first("/proc/loadavg"),
		"hypervisor":   hypervisor(),
	}
}

func unquote(text string) string { return strings.Trim(text, `"`) }

// first is the first line of a file; "" if it cannot be read.
func first(path string) string {
	text, _ := os.ReadFile(path) // then it is not known
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// field is the value after name in a file of names and values.
func field(path, name, separator string) string {
	text, _ := os.ReadFile(path) // then it is not known
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(line, separator)
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func hypervisor() string {
	if strings.Contains(" "+field("/proc/cpuinfo", "flags", ":")+" ", " hypervisor ") {
		return "yes: a virtual machine"
	}
	return "no"
}
