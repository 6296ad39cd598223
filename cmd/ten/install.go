package main

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/cgroup"
	"tenement/internal/config"
	"tenement/internal/daemon"
)

const (
	serviceUnit = "tenement.service"
	tenantsUnit = "tenement-tenants.service"
	sliceUnit   = "tenement.slice"
	socketUnit  = "tenement.socket"
	unitDir     = "/etc/systemd/system"

	daemonUser   = "tenement" // the account that install makes when it is asked for
	systemBinary = "/usr/local/bin/ten"
)

//go:embed units
var unitFiles embed.FS

var unitTemplates = template.Must(template.ParseFS(unitFiles, "units/*.tmpl"))

// installation is what one `ten install` makes; the templates of the units see it.
type installation struct {
	User         string
	Binary       string // absolute path of ten, for the unit
	Config       string // absolute
	DataDir      string // absolute
	ListenStream string // as systemd.socket(5) writes it
	FrontName    string
	SliceCgroup  string // absolute path of the directory; "" without cgroups of version 2

	text    []byte // of a first configuration
	program []byte // to be copied to Binary; nil when it is there
	flags   string // beside --config, that the daemon needs
}

// Root reports whether the daemon is root.
func (i *installation) Root() bool { return i.User == "root" }

// Slice is what daemon and tenants share of the machine.
func (i *installation) Slice() string { return sliceUnit }

// Cgroup is the directory of the tenants' unit; "" without cgroups of version 2.
func (i *installation) Cgroup() string {
	if i.SliceCgroup == "" {
		return ""
	}
	return filepath.Join(i.SliceCgroup, tenantsUnit)
}

// Flags are those of the daemon and its upgrade.
func (i *installation) Flags() string { return "--config " + i.Config + i.flags }

func (a *app) installCommand() *cobra.Command {
	var owner string
	var dry bool
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Run the daemon under systemd, now and after every boot",
		Long: "Run the daemon under systemd, now and after every boot. Repeat it to bring the units up to date;\n" +
			"what runs is then not disturbed. The first admin token alone goes to standard output.",
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			i, err := a.planInstall(owner)
			if err != nil {
				return err
			}
			if dry {
				for _, s := range i.plan(false) {
					s.describe(a.stdout)
				}
				return nil
			}
			return a.install(cmd.Context(), i)
		},
	}
	cmd.Flags().StringVar(&owner, "user", "", "`user` the daemon runs as: root, so that tenants are isolated, or one that they all share; "+daemonUser+" is made (default: that of the unit that is there, else root)")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print every file and command, and change nothing")
	return cmd
}

// planInstall finds out what the installation is to be, and changes nothing.
func (a *app) planInstall(owner string) (*installation, error) {
	i := &installation{User: chooseUser(owner, "/"), Config: a.systemConfigPath(), FrontName: daemon.FrontName}
	var err error
	if i.Config, err = filepath.Abs(i.Config); err != nil {
		return nil, err
	}
	cfg, err := config.Load(i.Config, config.Overrides{DataDir: a.givenDataDir()})
	if tenement.CodeOf(err) == tenement.CodeNotFound {
		i.text = []byte(config.Example("api", "python3 app.py"))
		cfg, err = config.Parse(i.Config, i.text, config.Overrides{DataDir: a.givenDataDir()})
	}
	if err != nil {
		return nil, err
	}
	i.DataDir = cfg.DataDir
	if a.givenDataDir() != "" {
		i.flags = " --data-dir " + cfg.DataDir
	}
	if i.ListenStream, err = listenStream(cfg.Listen); err != nil {
		return nil, err
	}
	if err := i.chooseBinary(); err != nil {
		return nil, err
	}
	if mount, err := cgroup.Mount(); err == nil {
		i.SliceCgroup = filepath.Join(mount, sliceUnit)
	}
	for _, word := range []string{i.User, i.Binary, i.Config, i.DataDir} {
		if !unitWord.MatchString(word) {
			return nil, installError(tenement.CodeInvalid, fmt.Errorf("%q cannot be written into a unit as it is", word),
				"use letters, digits and . _ - + @ : only")
		}
	}
	return i, nil
}

// chooseUser is whom the daemon is to run as: who was given, else who the unit below root
// has, because an install for a new address must not make another user of it.
func chooseUser(given, root string) string { return cmp.Or(given, unitSetting(root, "User"), "root") }

// unitSetting is one of the daemon's unit below root; "" without a unit.
func unitSetting(root, name string) string {
	text, err := os.ReadFile(filepath.Join(root, unitDir, serviceUnit))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// unitWord is what needs no quoting in a unit (systemd.syntax(7)) and is no
// specifier (systemd.unit(5)).
var unitWord = regexp.MustCompile(`^[A-Za-z0-9/_.+@:][A-Za-z0-9/_.+@:-]*$`)

// systemConfigPath is the configuration of the service: unlike other commands it does
// not look in the working directory.
func (a *app) systemConfigPath() string {
	return cmp.Or(a.config, os.Getenv("TENEMENT_CONFIG"), systemConfig)
}

func installError(code tenement.Code, err error, hint string) error {
	return &tenement.Error{Code: code, Op: "install", Err: err, Hint: hint}
}

// listenStream is the address as a socket unit has it: numbers, because names are not
// known yet when the machine boots.
func listenStream(listen string) (string, error) {
	address, err := net.ResolveTCPAddr("tcp", listen)
	if err != nil {
		return "", installError(tenement.CodeInvalid, err, "set settings.listen to an address of this machine")
	}
	switch {
	case address.Port == 0:
		return "", installError(tenement.CodeInvalid, errors.New("settings.listen has port 0, and a socket unit needs one of its own"),
			`choose a port, as in listen = "127.0.0.1:8080"`)
	case address.IP == nil:
		return fmt.Sprint(address.Port), nil // IPv6 and IPv4, as with Go
	}
	return address.String(), nil
}

// chooseBinary takes this program where it lies if nobody but root can replace it
// there and everybody can run it; otherwise a copy, for a file in a home directory or
// below /tmp is at somebody's mercy.
func (i *installation) chooseBinary() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return err
	}
	if settled(self) {
		i.Binary = self
		return nil
	}
	i.Binary = systemBinary
	i.program, err = os.ReadFile(self)
	return err
}

// settled reports whether path and all above it belong to root, are written by nobody
// else, and are open to all.
func settled(path string) bool {
	for {
		info, err := os.Lstat(path)
		if err != nil || info.Mode().Perm()&0o022 != 0 || info.Mode().Perm()&0o005 != 0o005 {
			return false
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); !ok || owner.Uid != 0 {
			return false
		}
		if path == filepath.Dir(path) {
			return true
		}
		path = filepath.Dir(path)
	}
}

// plan is every change, in order. Undoing it does not end a service that runs already.
func (i *installation) plan(running bool) []step {
	var plan []step
	if i.User == daemonUser {
		plan = append(plan, runCommand{command: []string{
			"systemd-sysusers", "--inline", fmt.Sprintf(`u %s - "tenement and its tenants" %s`, daemonUser, i.DataDir),
		}})
	}
	if i.program != nil {
		plan = append(plan, writeFile{path: i.Binary, mode: 0o755, text: i.program, from: "this program"})
	}
	if i.text != nil {
		plan = append(plan, makeDir{path: filepath.Dir(i.Config), mode: 0o755, owner: "root"},
			writeFile{path: i.Config, mode: 0o640, group: i.User, text: i.text, keep: true})
	}
	// To enable is also to reload the units (systemctl(1)).
	start := runCommand{
		command: []string{"systemctl", "enable", "--now", socketUnit, serviceUnit},
		undo:    []string{"systemctl", "disable", "--now", socketUnit, serviceUnit, tenantsUnit},
		hint:    "see what it said: journalctl -n 30 -u tenement.service -u tenement.socket",
	}
	if running {
		start.undo = nil
	}
	return append(plan,
		makeDir{path: i.DataDir, mode: 0o700, owner: i.User},
		runCommand{undo: []string{"systemctl", "daemon-reload"}}, // once the units are as they were
		writeFile{path: filepath.Join(unitDir, socketUnit), mode: 0o644, text: i.unit(socketUnit)},
		writeFile{path: filepath.Join(unitDir, tenantsUnit), mode: 0o644, text: i.unit(tenantsUnit)},
		writeFile{path: filepath.Join(unitDir, serviceUnit), mode: 0o644, text: i.unit(serviceUnit)},
		start,
	)
}

func (i *installation) unit(name string) []byte {
	var text strings.Builder
	if err := unitTemplates.ExecuteTemplate(&text, name+".tmpl", i); err != nil {
		panic(err) // the templates are part of the program, and a test runs each
	}
	return []byte(text.String())
}

// install makes the installation on this machine.
func (a *app) install(ctx context.Context, i *installation) error {
	if err := underSystemd("install"); err != nil {
		return err
	}
	if err := i.checkOwner(); err != nil {
		return err
	}
	renewed := map[string]bool{}
	m := &machine{root: "/", run: runProgram, user: lookUser, tell: func(what, name string) {
		renewed[name] = true
		fmt.Fprintf(a.stderr, "%s %s\n", what, name)
	}}
	_, inactive := m.run(ctx, "systemctl", "is-active", "--quiet", serviceUnit)
	running := inactive == nil
	if err := m.apply(ctx, i.plan(running)); err != nil {
		return installError(tenement.CodeOf(err), err, tenement.HintOf(err))
	}
	if running {
		a.adviseRenewal(i, renewed)
	}
	return a.welcome(ctx, i)
}

// underSystemd refuses where units cannot be installed.
func underSystemd(op string) error {
	_, booted := os.Lstat("/run/systemd/system") // sd_booted(3)
	_, found := exec.LookPath("systemctl")
	switch {
	case booted != nil || found != nil:
		return &tenement.Error{
			Code: tenement.CodeUnavailable, Op: op, Err: errors.New("systemd does not run here"),
			Hint: "see what it would do with --dry-run; without systemd, run: ten serve",
		}
	case os.Geteuid() != 0:
		return &tenement.Error{
			Code: tenement.CodeForbidden, Op: op, Err: errors.New("only root may change the units of this machine"),
			Hint: "sudo ten " + op + "; see first what it would do with --dry-run",
		}
	}
	return nil
}

// checkOwner refuses a data directory that the daemon's user could not write to: it
// may be full of files, so its owner is not changed here.
func (i *installation) checkOwner() error {
	info, err := os.Stat(i.DataDir)
	if err != nil || i.Root() {
		return nil //nolint:nilerr // it is not there, and will be made
	}
	uid, _, err := lookUser(i.User)
	owner, ok := info.Sys().(*syscall.Stat_t)
	if i.User == daemonUser && tenement.CodeOf(err) == tenement.CodeNotFound {
		uid, err = -1, nil // the account will be made, and owns nothing yet
	}
	if err != nil || !ok || int(owner.Uid) == uid {
		return err
	}
	return installError(tenement.CodeConflict, fmt.Errorf("%s belongs to another user than %s", i.DataDir, i.User),
		fmt.Sprintf("give it over, with all that is in it (chown -R %s %s), or name its owner with --user", i.User, i.DataDir))
}

// adviseRenewal says what a service that runs does not know yet. It is not restarted
// unasked: that would put every tenant to sleep.
func (a *app) adviseRenewal(i *installation, renewed map[string]bool) {
	switch {
	case renewed[filepath.Join(unitDir, tenantsUnit)]:
		fmt.Fprintln(a.stderr, "next: systemctl restart "+tenantsUnit+", for the new unit; it ends the tenants and the daemon, and starts the daemon anew")
	case renewed[filepath.Join(unitDir, socketUnit)]:
		fmt.Fprintln(a.stderr, "next: systemctl restart "+socketUnit+" "+serviceUnit+", for the new address")
	case renewed[filepath.Join(unitDir, serviceUnit)]:
		fmt.Fprintln(a.stderr, "next: systemctl restart "+serviceUnit+", for the new unit")
	case renewed[i.Binary]:
		fmt.Fprintln(a.stderr, "next: systemctl reload "+serviceUnit+", for the new program")
	default:
		fmt.Fprintln(a.stderr, "the units are up to date")
	}
}

// answerTimeout is how long a daemon that said it is ready may take to answer.
const answerTimeout = 30 * time.Second

// welcome waits until the daemon answers and gives the first admin token. The
// installation stands if that fails: what is left to do is said.
func (a *app) welcome(ctx context.Context, i *installation) error {
	client, err := api.NewClient(api.Target{Socket: daemon.SocketPath(i.DataDir)})
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if _, err := client.DaemonHealth(ctx); err != nil {
		return &tenement.Error{Code: tenement.CodeOf(err), Op: "wait for the daemon", Err: err, Hint: "journalctl -n 30 -u " + serviceUnit}
	}
	fmt.Fprintf(a.stderr, "tenement serves %s; its configuration is %s\n", i.ListenStream, i.Config)
	if !i.Root() {
		fmt.Fprintf(a.stderr, "all tenants run as %s and are not isolated; for isolation: ten install --user root\n", i.User)
	}
	_, err = os.Stat(filepath.Join(daemon.StateDir(i.DataDir), "api_token"))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	t, err := client.CreateToken(ctx, api.TokenOptions{})
	if err != nil {
		return &tenement.Error{Code: tenement.CodeOf(err), Op: "make the first admin token", Err: err, Hint: "try again with: ten token-gen"}
	}
	a.remarkOn(t)
	fmt.Fprintln(a.stdout, t.Secret)
	return nil
}
