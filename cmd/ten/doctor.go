package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/config"
	"tenement/internal/daemon"
	"tenement/internal/runtime"
)

// verdict is what a check found, in a word.
type verdict string

const (
	verdictOK   verdict = "ok"
	verdictWarn verdict = "warn" // works, but less well than it could
	verdictFail verdict = "fail" // does not work
)

// finding is the outcome of one check, or of one part of it.
type finding struct {
	Check   string  `json:"check"`
	Verdict verdict `json:"verdict"`
	Detail  string  `json:"detail"`
	Hint    string  `json:"hint,omitempty"`
}

// check is one thing that must be right for tenants to be served.
type check struct {
	name string
	run  func(context.Context, *examination) []finding
}

// examination is what the checks look at.
type examination struct {
	app     *app
	config  *config.Config // nil when it could not be read
	dataDir string         // "" when it is not known
}

// checks is everything the doctor looks at, in order. Those of the kernel are the
// platform's.
var checks = append([]check{
	{"configuration", checkConfiguration},
	{"data directory", checkDataDir},
	{"registry", checkRegistry},
	{"daemon", checkDaemon},
	{"commands", checkCommands},
	{"host names", checkHostNames},
	{"storage quotas", checkStorageQuotas},
	{"memory", checkMemory},
	{"density", checkDensity},
}, platformChecks...)

func (a *app) doctorCommand() *cobra.Command {
	var restore string
	cmd := a.withJSON(&cobra.Command{
		Use:   "doctor",
		Short: "Check whether this machine can run the configuration; restore the registry",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("restore") {
				return a.restoreRegistry(cmd.Context(), restore)
			}
			return a.reportFindings(a.examine(cmd.Context()))
		},
	})
	cmd.Flags().StringVar(&restore, "restore", "", "put a `copy` of the registry in its place: --restore=NAME, or the newest good one; the daemon must not run, and what was there is kept")
	cmd.Flags().Lookup("restore").NoOptDefVal = newestCopy
	return cmd
}

func (a *app) reportFindings(findings []finding) error {
	if a.json {
		if err := a.printJSON(findings); err != nil {
			return err
		}
	} else {
		a.printFindings(findings)
	}
	if slices.ContainsFunc(findings, func(f finding) bool { return f.Verdict == verdictFail }) {
		return errReported
	}
	return nil
}

func (a *app) examine(ctx context.Context) []finding {
	e := &examination{app: a}
	var findings []finding
	for _, c := range checks {
		for _, f := range c.run(ctx, e) {
			f.Check = cmp.Or(f.Check, c.name)
			findings = append(findings, f)
		}
	}
	return findings
}

func (a *app) printFindings(findings []finding) {
	for _, f := range findings {
		fmt.Fprintf(a.stdout, "%-4s  %s: %s\n", f.Verdict, visible(f.Check), visibleLines(f.Detail))
		if f.Hint != "" {
			fmt.Fprintf(a.stdout, "      hint: %s\n", visibleLines(f.Hint))
		}
	}
}

// failed is the finding that err makes.
func failed(err error) []finding {
	return []finding{{Verdict: verdictFail, Detail: err.Error(), Hint: tenement.HintOf(err)}}
}

func found(v verdict, detail, hint string) []finding {
	return []finding{{Verdict: v, Detail: detail, Hint: hint}}
}

func checkConfiguration(_ context.Context, e *examination) []finding {
	e.dataDir = e.app.givenDataDir()
	cfg, err := e.app.loadConfig(config.Overrides{})
	if err != nil {
		return failed(err)
	}
	e.config, e.dataDir = cfg, cfg.DataDir
	return found(verdictOK, cfg.Path, "")
}

func checkDataDir(_ context.Context, e *examination) []finding {
	if e.dataDir == "" {
		return found(verdictWarn, "not known without a configuration", "")
	}
	info, err := os.Stat(e.dataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return checkParent(e.dataDir)
	case err != nil:
		return failed(err)
	case !info.IsDir():
		return found(verdictFail, e.dataDir+" is not a directory", "")
	case info.Mode().Perm()&0o022 != 0:
		return found(verdictFail, e.dataDir+" can be written by other users", "chmod go-w "+e.dataDir)
	}
	state := daemon.StateDir(e.dataDir)
	if info, err := os.Stat(state); err == nil && info.Mode().Perm()&0o077 != 0 {
		return found(verdictFail, state+" is open to other users", "chmod 700 "+state)
	}
	if err := tryWriting(e.dataDir); err != nil {
		return found(verdictFail, err.Error(), "run the daemon as the user that owns it, or change its owner")
	}
	return found(verdictOK, e.dataDir, "")
}

// checkParent looks at where a data directory that is not there yet will be made.
func checkParent(dir string) []finding {
	parent := filepath.Dir(dir)
	for {
		if _, err := os.Stat(parent); !errors.Is(err, fs.ErrNotExist) || parent == filepath.Dir(parent) {
			break
		}
		parent = filepath.Dir(parent)
	}
	if err := tryWriting(parent); err != nil {
		return found(verdictFail, err.Error(), "make "+dir+" for the daemon's user, or set settings.data_dir or --data-dir")
	}
	return found(verdictOK, dir+", which the daemon will make", "")
}

// tryWriting asks the file system itself: permissions are not all there is to it.
func tryWriting(dir string) error {
	probe, err := os.CreateTemp(dir, ".ten-doctor-*")
	if err != nil {
		return err
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// daemonTimeout is how long a healthy daemon may take to say so.
const daemonTimeout = 5 * time.Second

func checkDaemon(ctx context.Context, e *examination) []finding {
	client, err := e.app.client()
	if err != nil {
		return found(verdictWarn, "where it would be is not known: "+err.Error(), "")
	}
	ctx, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	health, err := client.DaemonHealth(ctx)
	switch {
	case tenement.CodeOf(err) == tenement.CodeUnreachable:
		return found(verdictWarn, "it does not run: "+err.Error(), "start it with: ten serve")
	case err != nil:
		return failed(err)
	}
	return daemonFinding(health, programVersion())
}

func daemonFinding(health api.Health, own string) []finding {
	switch health.Version {
	case "":
		return found(verdictOK, "it answers", "")
	case own:
		return found(verdictOK, "it answers, version "+own, "")
	}
	return found(verdictWarn, fmt.Sprintf("it answers, but has version %s, and this is %s", health.Version, own), "restart the daemon")
}

func checkCommands(_ context.Context, e *examination) []finding {
	if e.config == nil {
		return found(verdictWarn, "not known without a configuration", "")
	}
	var findings []finding
	for _, name := range slices.Sorted(maps.Keys(e.config.Services)) {
		f := finding{Check: "command of " + name, Verdict: verdictOK}
		path, err := runtime.FindProgram(e.config.Services[name])
		if err != nil {
			f.Verdict, f.Detail, f.Hint = verdictFail, err.Error(), tenement.HintOf(err)
		} else {
			f.Detail = path
		}
		findings = append(findings, f)
	}
	return findings
}

// lookupTimeout is how long a name may take; one on this machine takes none.
const lookupTimeout = 2 * time.Second

// checkHostNames asks only for names below localhost, which RFC 6761 §6.3 leaves to
// this machine. Other domains are looked up by clients elsewhere.
func checkHostNames(ctx context.Context, e *examination) []finding {
	if e.config == nil {
		return found(verdictWarn, "not known without a configuration", "")
	}
	domain := e.config.Domain
	if domain != "localhost" && !strings.HasSuffix(domain, ".localhost") {
		return found(verdictOK, "the names below "+domain+" are looked up where the clients are", "")
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", "ten-doctor.api."+domain)
	if err != nil {
		return found(verdictWarn, "names below "+domain+" are not resolved to this machine",
			"browsers and curl do that by themselves; for other programs name the hosts you need in /etc/hosts")
	}
	for _, addr := range addrs {
		if !addr.Unmap().IsLoopback() {
			return found(verdictWarn, fmt.Sprintf("names below %s are resolved to %v, which is elsewhere", domain, addr), "name the hosts you need in /etc/hosts")
		}
	}
	return found(verdictOK, "names below "+domain+" are resolved to this machine", "")
}
