package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/cgroup"
	"tenement/internal/config"
	"tenement/internal/daemon"
	"tenement/internal/disk"
)

func (a *app) uninstallCommand() *cobra.Command {
	var purge, yes, dry bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "End the daemon and remove its systemd units; data and configuration stay",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			plan := removal("/")
			if purge {
				remains, err := a.remains()
				if err != nil {
					return err
				}
				plan = append(plan, remains...)
			}
			if dry || purge && !yes {
				for _, s := range plan {
					s.describe(a.stdout)
				}
			}
			switch {
			case dry:
				return nil
			case purge && !yes:
				err := usage(cmd, errors.New("all of that would be gone for good"))
				err.Hint = "if that is meant, add --yes"
				return err
			}
			return a.uninstall(cmd.Context(), plan, purge)
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "remove the data directory and the configuration as well, for good")
	cmd.Flags().BoolVar(&yes, "yes", false, "with --purge: that is meant")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print what would be removed, and change nothing")
	return cmd
}

func (a *app) uninstall(ctx context.Context, plan []step, purge bool) error {
	if err := underSystemd("uninstall"); err != nil {
		return err
	}
	m := &machine{root: "/", run: runProgram, user: lookUser, removeLeft: daemon.RemoveLeft, tell: func(what, name string) {
		fmt.Fprintf(a.stderr, "%s %s\n", what, name)
	}}
	if err := m.apply(ctx, plan); err != nil {
		e := &tenement.Error{Code: tenement.CodeOf(err), Op: "uninstall", Err: err, Hint: tenement.HintOf(err)}
		if e.Hint == "" {
			e.Hint = "when that is mended, do it again: what is gone already is no error"
		}
		return e
	}
	if !purge {
		fmt.Fprintln(a.stderr, "data and configuration stay; remove them for good with: ten uninstall --purge --yes")
	}
	return nil
}

// removal takes back what install did to systemd below root. The account stays, for its number
// must go to nobody else while files of its own may be about; so does the program.
func removal(root string) []step {
	plan := []step{stopUnits{}}
	if dataDir := unitSetting(root, "ReadWritePaths"); dataDir != "" && chooseUser("", root) == "root" {
		plan = append(plan, removeLeft{dataDir: dataDir})
	}
	return append(plan,
		removeFile{path: filepath.Join(unitDir, serviceUnit)},
		removeFile{path: filepath.Join(unitDir, tenantsUnit)},
		removeFile{path: filepath.Join(unitDir, socketUnit)},
		runCommand{command: []string{"systemctl", "daemon-reload"}},
	)
}

// remains is what --purge removes besides.
func (a *app) remains() ([]step, error) {
	path, err := filepath.Abs(a.systemConfigPath())
	if err != nil {
		return nil, err
	}
	dataDir := a.givenDataDir()
	if dataDir == "" {
		cfg, err := config.Load(path, config.Overrides{})
		if err != nil {
			return nil, &tenement.Error{Code: tenement.CodeOf(err), Op: "find the data directory", Err: err, Hint: "name it with --data-dir"}
		}
		dataDir = cfg.DataDir
	}
	if dataDir, err = filepath.Abs(dataDir); err != nil {
		return nil, err
	}
	return []step{purgeDir{path: dataDir}, removeFile{path: path}, removeFile{path: filepath.Dir(systemConfig), dir: true}}, nil
}

// stopUnits ends daemon and tenants, and sees to it that none starts again.
type stopUnits struct{}

func (stopUnits) describe(w io.Writer) {
	fmt.Fprintf(w, "run systemctl disable --now %s %s %s\n", socketUnit, serviceUnit, tenantsUnit)
	fmt.Fprintf(w, "run systemctl stop %s\n", sliceUnit)
}

func (stopUnits) do(ctx context.Context, m *machine) (func() error, error) {
	var units []string
	for _, unit := range []string{socketUnit, serviceUnit, tenantsUnit} {
		if _, err := os.Lstat(m.path(filepath.Join(unitDir, unit))); err == nil {
			units = append(units, unit)
		}
	}
	if units == nil {
		return nil, nil
	}
	group, err := m.run(ctx, "systemctl", "show", "--property=ControlGroup", "--value", serviceUnit)
	if err != nil {
		return nil, err
	}
	if _, err := m.run(ctx, append([]string{"systemctl", "disable", "--now"}, units...)...); err != nil {
		return nil, err
	}
	m.tell("stopped", strings.Join(units, ", "))
	// systemd keeps the slice, and so its cgroup. One that is not there cannot be stopped.
	_, _ = m.run(ctx, "systemctl", "stop", sliceUnit)
	if group = strings.TrimSpace(group); group == "" {
		return nil, nil
	}
	// The daemon put its tenants to sleep, unless it was killed: systemd leaves them be.
	left := cgroup.At(m.path(filepath.Join("/sys/fs/cgroup", group)))
	populated, err := left.Populated()
	if err != nil || !populated {
		return nil, err
	}
	m.tell("killed", "what the daemon left running")
	return nil, left.Kill()
}

// removeLeft removes what the daemon has left of its tenants, if it was killed: interfaces
// and nftables rules of their networks, what it had switched on for them, and what
// sandboxes were made from.
type removeLeft struct{ dataDir string }

func (removeLeft) describe(w io.Writer) {
	fmt.Fprintln(w, "remove what a daemon that was killed has left of tenants: interfaces and rules of networks, and files of sandboxes in /run/tenement")
}

func (r removeLeft) do(_ context.Context, m *machine) (func() error, error) {
	return nil, m.removeLeft(r.dataDir)
}

// removeFile is one file, or one directory if it is empty. One that is not there is
// no error.
type removeFile struct {
	path string // absolute
	dir  bool
}

func (r removeFile) describe(w io.Writer) {
	empty := ""
	if r.dir {
		empty = ", if it is empty"
	}
	fmt.Fprintf(w, "remove %s%s\n", r.path, empty)
}

func (r removeFile) do(_ context.Context, m *machine) (func() error, error) {
	if r.dir {
		entries, err := os.ReadDir(m.path(r.path))
		if errors.Is(err, fs.ErrNotExist) || len(entries) > 0 {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	err := os.Remove(m.path(r.path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		m.tell("removed", r.path)
	}
	return nil, err
}

// purgeDir is the data directory with all that is in it. Nothing outside of it is
// touched, wherever links and mounts in it lead.
type purgeDir struct{ path string }

func (p purgeDir) describe(w io.Writer) { fmt.Fprintf(w, "remove %s and everything in it\n", p.path) }

func (p purgeDir) do(_ context.Context, m *machine) (func() error, error) {
	path := m.path(p.path)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := p.check(m, info); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path) // removes links, and follows none out of it
	if err != nil {
		return nil, err
	}
	defer root.Close()
	state := filepath.Base(daemon.StateDir(path))
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if entry.Name() != state {
			err = errors.Join(err, removeInstances(path, entry), root.RemoveAll(entry.Name()))
		}
	}
	// Last, for it is by this one that a directory is known to be ours.
	if err == nil {
		err = root.RemoveAll(state)
	}
	if err != nil {
		return nil, err
	}
	m.tell("removed", p.path)
	if p.mounted(m, p.path) {
		return nil, nil // a volume of its own: emptied is all it can be
	}
	return nil, os.Remove(path)
}

// removeInstances removes those of a service, with the limits that the kernel keeps for
// their users. What is none of ours goes with the directory.
func removeInstances(dataDir string, service fs.DirEntry) error {
	if !service.IsDir() { // but a file, or a link
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(dataDir, service.Name()))
	if err != nil {
		return err
	}
	root, err := disk.Open(dataDir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, entry := range entries {
		info, failed := entry.Info()
		if failed != nil || !info.IsDir() {
			continue
		}
		owner, _ := info.Sys().(*syscall.Stat_t)
		failed = root.Remove(tenement.InstanceID{Service: service.Name(), Name: entry.Name()}, int(owner.Uid))
		if tenement.CodeOf(failed) != tenement.CodeInvalid { // which is no name of an instance
			err = errors.Join(err, failed)
		}
	}
	return err
}

// check refuses what is not plainly a data directory and nothing else.
func (p purgeDir) check(m *machine, info fs.FileInfo) error {
	refuse := func(why string) error {
		return &tenement.Error{
			Code: tenement.CodeConflict, Err: fmt.Errorf("%s is not removed: %s", p.path, why),
			Hint: "see to that, or remove it by hand",
		}
	}
	if !info.IsDir() {
		return refuse("it is no directory, but a link or a file")
	}
	if state, err := os.Lstat(daemon.StateDir(m.path(p.path))); err != nil || !state.IsDir() {
		return refuse("no daemon has kept its state in it")
	}
	for _, mount := range m.mounts() {
		if strings.HasPrefix(mount, p.path+"/") {
			return refuse("something else is mounted at " + mount)
		}
	}
	return nil
}

func (p purgeDir) mounted(m *machine, path string) bool { return slices.Contains(m.mounts(), path) }

// mounts are the mount points of this machine (proc_pid_mountinfo(5)), none where the
// kernel does not say.
func (m *machine) mounts() []string {
	text, err := os.ReadFile(m.path("/proc/self/mountinfo"))
	if err != nil {
		return nil
	}
	var points []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			points = append(points, unescapeMount.Replace(fields[4]))
		}
	}
	return points
}

// unescapeMount undoes the kernel's own escapes of what would break a line into words.
var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
