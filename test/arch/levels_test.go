// Package arch holds the tests of the repository's shape: who may import whom.
package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "tenement"

// levels is the table of ARCHITECTURE.md: a package imports only packages of
// lower levels. Packages that do not exist yet are listed where they will be.
var levels = map[string]int{
	"":               0, // the vocabulary
	"internal/fault": 0, // where the others may be made to crash

	"internal/api":       1,
	"internal/certs":     1,
	"internal/cgroup":    1,
	"internal/config":    1,
	"internal/disk":      1,
	"internal/legible":   1,
	"internal/listening": 1,
	"internal/logs":      1,
	"internal/memory":    1,
	"internal/network":   1,
	"internal/probe":     1,
	"internal/replica":   1,
	"internal/rootless":  1,
	"internal/route":     1,
	"internal/secrets":   1,
	"internal/store":     1,
	"internal/telemetry": 1,
	"internal/tracing":   1,

	"internal/agenda":    2,
	"internal/alert":     2,
	"internal/dashboard": 2,
	"internal/proxy":     2,
	"internal/runtime":   2,
	"internal/slum":      2,
	"internal/top":       2,

	"internal/runtime/runtimetest": 3,
	"internal/supervisor":          3,

	"internal/daemon": 4,

	"bench":         5,
	"bench/tenant":  3,
	"bench/peers":   2,
	"bench/load":    1,
	"bench/measure": 1,
	"bench/report":  1,

	"cmd/ten": 5,

	// Programs of their own, as a user would write them: they know nothing of tenement.
	"examples/notes":           standalone,
	"bench/tenant/static":      standalone,
	"bench/peers/reverseproxy": standalone,
}

// standalone marks a package that imports no other of this module.
const standalone = 0

// testTrees hold tests that look at the whole, and nothing that a program imports.
var testTrees = []string{"test"}

// modules lists who may import which third-party module: the packages by their
// path in this module, where "..." at the end stands for what lies below, and
// "*" for every package but the root. A module that is not listed may not be
// imported at all; a new one is added here together with its reason in
// docs/decisions.
var modules = map[string][]string{
	"charm.land/bubbles/v2":                  {"internal/top"},
	"charm.land/bubbletea/v2":                {"internal/top"},
	"charm.land/lipgloss/v2":                 {"internal/top"},
	"filippo.io/age":                         {"internal/secrets"},
	"github.com/chromedp/chromedp":           {"bench"}, // how soon the dashboard can be used
	"github.com/cilium/ebpf":                 {"internal/listening"},
	"github.com/coder/websocket":             {"internal/runtime/runtimetest", "bench/tenant/static"}, // the tenant programs echo
	"github.com/coreos/go-systemd/v22":       {"internal/daemon"},                                     // activation and sd_notify
	"github.com/danielgtaylor/huma/v2":       {"internal/api"},
	"github.com/dustin/go-humanize":          {"cmd/ten"},
	"github.com/google/nftables":             {"internal/network"},
	"github.com/elastic/go-seccomp-bpf":      {"internal/runtime"}, // its tables of system calls
	"github.com/moby/profiles/seccomp":       {"internal/runtime"},
	"github.com/netresearch/go-cron":         {"internal/config"}, // its parser and its calendar
	"github.com/opencontainers/runtime-spec": {"internal/runtime"},
	"github.com/pelletier/go-toml/v2":        {"internal/config", "cmd/ten"}, // `ten config` prints it
	"github.com/prometheus/client_golang":    {"internal/telemetry"},
	"github.com/prometheus/common":           {"internal/telemetry"}, // its encoder
	"github.com/spf13/cobra":                 {"cmd/ten"},
	"github.com/vishvananda/netlink":         {"internal/network"},
	"github.com/tsenart/vegeta/v12":          {"bench/load"},
	"golang.org/x/net":                       {"internal/proxy", "internal/runtime"}, // the latter: BPF
	"golang.org/x/sync":                      {"*"},
	"golang.org/x/sys":                       {"*"},
	"golang.org/x/term":                      {"cmd/ten"},
	"modernc.org/sqlite":                     {"internal/store", "internal/logs", "examples/notes"},
	"mvdan.cc/sh/v3":                         {"internal/config"},

	"go.opentelemetry.io/otel":                                        {"internal/tracing"},
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace":               {"internal/tracing"},
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp": {"internal/tracing"},
	"go.opentelemetry.io/otel/sdk":                                    {"internal/tracing"},
	"go.opentelemetry.io/otel/trace":                                  {"internal/tracing"},
	"github.com/standard-webhooks/standard-webhooks/libraries":        {"internal/alert"},
}

// platforms are those whose files are looked at: a build tag hides imports.
var platforms = []string{"linux", "darwin"}

// listedPackage is the part of `go list -json` that the tests read.
type listedPackage struct {
	ImportPath string
	Name       string
	Doc        string
	GoFiles    []string
	Imports    []string
	Standard   bool
	Module     *struct{ Path string }
}

// rel is the package's path within the module; "" for the root.
func (p listedPackage) rel() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func (p listedPackage) ours() bool { return p.Module != nil && p.Module.Path == module }

// list gives the packages that `go list` knows on goos, by import path: those of
// this module and all they depend on. What cannot be resolved is listed without a
// module, and so found at fault.
func list(t *testing.T, goos string) map[string]listedPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps",
		"-json=ImportPath,Name,Doc,GoFiles,Imports,Standard,Module", module+"/...")
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list for %s: %v\n%s", goos, err, stderr.String())
	}
	packages := make(map[string]listedPackage)
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
	if _, ok := packages[module]; !ok {
		t.Fatalf("go list for %s names no package %q", goos, module)
	}
	return packages
}

// TestImportLevels holds every import of this module against the tables above.
func TestImportLevels(t *testing.T) {
	t.Parallel()
	for _, goos := range platforms {
		t.Run(goos, func(t *testing.T) {
			t.Parallel()
			for _, fault := range faults(list(t, goos)) {
				t.Error(fault)
			}
		})
	}
}

// TestPackageDocs demands one sentence of every package, so that a reader knows
// what it is for before the first file.
func TestPackageDocs(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "linux") {
		if p.ours() && len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("package %s has no doc comment", p.ImportPath)
		}
	}
}

// faults names every import that the tables do not allow, in order.
func faults(packages map[string]listedPackage) []string {
	var found []string
	for _, p := range packages {
		if !p.ours() || inTestTree(p) {
			continue
		}
		if _, listed := levels[p.rel()]; !listed {
			found = append(found, fmt.Sprintf("%s is in no level: give it one in ARCHITECTURE.md and here", p.ImportPath))
			continue
		}
		for _, imported := range p.Imports {
			if reason := judge(p, imported, packages); reason != "" {
				found = append(found, fmt.Sprintf("%s imports %s: %s", p.ImportPath, imported, reason))
			}
		}
	}
	slices.Sort(found)
	return found
}

// judge says why p may not import the package; "" when it may.
func judge(p listedPackage, imported string, packages map[string]listedPackage) string {
	target, known := packages[imported]
	switch {
	case imported == "C":
		return "the product is built without cgo"
	case known && target.Standard, imported == "unsafe":
		return ""
	case !known:
		return "go list does not know it"
	case target.ours():
		return judgeOurs(p, target)
	default:
		return judgeModule(p, target)
	}
}

func judgeOurs(p, target listedPackage) string {
	from, to := levels[p.rel()], levels[target.rel()]
	if to < from {
		return ""
	}
	return fmt.Sprintf("level %d imports only lower levels, and that is level %d", from, to)
}

func judgeModule(p, target listedPackage) string {
	if p.rel() == "" {
		return "the vocabulary imports only the standard library"
	}
	if target.Module == nil {
		return "it belongs to no module"
	}
	for _, pattern := range modules[target.Module.Path] {
		below, tree := strings.CutSuffix(pattern, "/...")
		if pattern == "*" || pattern == p.rel() || tree && strings.HasPrefix(p.rel()+"/", below+"/") {
			return ""
		}
	}
	return fmt.Sprintf("module %s is not allowed here", target.Module.Path)
}

// inTestTree reports whether p lies where only tests are; one with code that
// others could import is not excused.
func inTestTree(p listedPackage) bool {
	top, _, _ := strings.Cut(p.rel(), "/")
	return slices.Contains(testTrees, top) && len(p.GoFiles) == 0
}

// TestFaultsAreFound shows that each rule can be broken, on made-up packages.
func TestFaultsAreFound(t *testing.T) {
	t.Parallel()
	type mod = struct{ Path string }
	ours, cobra, other := &mod{module}, &mod{"github.com/spf13/cobra"}, &mod{"example.org/other"}
	outside := map[string]listedPackage{
		"fmt":                    {ImportPath: "fmt", Standard: true},
		"github.com/spf13/cobra": {ImportPath: "github.com/spf13/cobra", Module: cobra},
		"example.org/other/sub":  {ImportPath: "example.org/other/sub", Module: other},
		"tenement":               {ImportPath: "tenement", Module: ours},
		"tenement/cmd/ten":       {ImportPath: "tenement/cmd/ten", Module: ours},
	}
	tests := []struct {
		name, rel, imports, want string
	}{
		{"standard library", "", "fmt", ""},
		{"downward", "internal/probe", "tenement", ""},
		{"listed module", "cmd/ten", "github.com/spf13/cobra", ""},
		{"upward", "internal/daemon", "tenement/cmd/ten", "only lower levels"},
		{"example knows the product", "examples/notes", "tenement", "only lower levels"},
		{"module in the root", "", "github.com/spf13/cobra", "only the standard library"},
		{"module elsewhere", "internal/proxy", "github.com/spf13/cobra", "not allowed here"},
		{"unknown module", "internal/proxy", "example.org/other/sub", "not allowed here"},
		{"unlisted package", "internal/util", "fmt", "in no level"},
		{"code in a test tree", "test/kit", "fmt", "in no level"},
		{"cgo", "internal/runtime", "C", "without cgo"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			packages := make(map[string]listedPackage, len(outside)+1)
			for importPath, p := range outside {
				packages[importPath] = p
			}
			subject := path.Join(module, test.rel)
			packages[subject] = listedPackage{
				ImportPath: subject, Module: ours,
				GoFiles: []string{"a.go"}, Imports: []string{test.imports},
			}
			found := strings.Join(faults(packages), "\n")
			if test.want == "" && found != "" || !strings.Contains(found, test.want) {
				t.Errorf("faults = %q, want %q", found, test.want)
			}
		})
	}
}
