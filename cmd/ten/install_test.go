package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

// lab is a machine that is only a directory, and notes what is run and told.
type lab struct {
	*machine
	t     *testing.T
	runs  []string
	told  []string
	fails string // a command that has this in it fails
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t}
	l.machine = &machine{
		root: t.TempDir(),
		run: func(_ context.Context, command ...string) (string, error) {
			line := strings.Join(command, " ")
			l.runs = append(l.runs, line)
			if l.fails != "" && strings.Contains(line, l.fails) {
				return "", errors.New("it failed")
			}
			if _, err := os.ReadFile(l.path(unitDir + "/" + socketUnit)); err == nil && line == "systemctl daemon-reload" {
				t.Error("systemd reads the units before they are gone again")
			}
			if strings.Contains(line, "ControlGroup") {
				return "/system.slice/tenement.service\n", nil
			}
			return "", nil
		},
		user: func(string) (int, int, error) { return os.Getuid(), os.Getgid(), nil },
		tell: func(what, name string) { l.told = append(l.told, what+" "+name) },
		removeLeft: func(dataDir string) error {
			l.runs = append(l.runs, "remove what is left of "+dataDir)
			return nil
		},
	}
	for _, dir := range []string{unitDir, "/usr/local/bin", "/var/lib"} {
		l.mkdir(dir)
	}
	return l
}

func (l *lab) mkdir(dir string) {
	l.t.Helper()
	if err := os.MkdirAll(l.path(dir), 0o755); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) write(path, text string) {
	l.t.Helper()
	l.mkdir(filepath.Dir(path))
	if err := os.WriteFile(l.path(path), []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) exists(path string) bool {
	_, err := os.Lstat(l.path(path))
	return err == nil
}

// tree is every file below the root with its content, every directory with its mode.
func (l *lab) tree() map[string]string {
	l.t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(l.root), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		files[path] = info.Mode().String()
		if entry.Type().IsRegular() {
			text, err := os.ReadFile(filepath.Join(l.root, path))
			files[path] += " " + string(text)
			return err
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return files
}

func sample() *installation {
	return &installation{
		User: daemonUser, Binary: systemBinary, Config: systemConfig, DataDir: "/var/lib/tenement",
		ListenStream: "127.0.0.1:8080", FrontName: "http", SliceCgroup: "/sys/fs/cgroup/tenement.slice",
		text: []byte("# a first configuration\n"), program: []byte("the program"),
	}
}

func TestInstallWritesWhatItSays(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if err := l.apply(t.Context(), sample().plan(false)); err != nil {
		t.Fatal(err)
	}
	tree := l.tree()
	for path, want := range map[string]string{
		"usr/local/bin/ten":                   "-rwxr-xr-x the program",
		"etc/tenement":                        "drwxr-xr-x",
		"etc/tenement/tenement.toml":          "-rw-r----- # a first configuration\n",
		"var/lib/tenement":                    "drwx------",
		"etc/systemd/system/tenement.service": "-rw-r--r-- " + string(sample().unit(serviceUnit)),
		"etc/systemd/system/tenement.socket":  "-rw-r--r-- " + string(sample().unit(socketUnit)),
		"etc/systemd/system/" + tenantsUnit:   "-rw-r--r-- " + string(sample().unit(tenantsUnit)),
	} {
		if diff := cmp.Diff(want, tree[path]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	want := []string{
		`systemd-sysusers --inline u tenement - "tenement and its tenants" /var/lib/tenement`,
		"systemctl enable --now tenement.socket tenement.service",
	}
	if diff := cmp.Diff(want, l.runs); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
}

func TestSecondInstallWritesOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if err := l.apply(t.Context(), sample().plan(false)); err != nil {
		t.Fatal(err)
	}
	l.write(systemConfig, "# the operator's own\n")
	before := l.tree()
	l.told = nil
	if err := l.apply(t.Context(), sample().plan(true)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, l.tree()); diff != "" || l.told != nil {
		t.Errorf("%q, and changed:\n%s", l.told, diff)
	}
	moved := sample()
	moved.ListenStream = "127.0.0.1:9090"
	if err := l.apply(t.Context(), moved.plan(true)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"renewed " + unitDir + "/" + socketUnit}; !slices.Equal(l.told, want) {
		t.Errorf("told %q, want %q", l.told, want)
	}
}

// TestFailedInstallLeavesNothing: whichever step fails, all is as it was.
func TestFailedInstallLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, fails string
		obstacle    string // a directory where a file is to be written
		running     bool
		want        []string // of the commands that take back
	}{
		{name: "account", fails: "sysusers"},
		{name: "first unit", obstacle: unitDir + "/" + socketUnit},
		{name: "second unit", obstacle: unitDir + "/" + serviceUnit, want: []string{"systemctl daemon-reload"}},
		{name: "start", fails: "enable", want: []string{"systemctl disable --now tenement.socket tenement.service tenement-tenants.service", "systemctl daemon-reload"}},
		{name: "start of what runs", fails: "enable", running: true, want: []string{"systemctl daemon-reload"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.write(unitDir+"/"+serviceUnit, "an older unit")
			if test.obstacle != "" {
				_ = os.Remove(l.path(test.obstacle))
				l.mkdir(test.obstacle)
			}
			before := l.tree()
			l.fails = test.fails
			if err := l.apply(t.Context(), sample().plan(test.running)); err == nil {
				t.Fatal("no error")
			}
			after := l.tree()
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
			undone := slices.DeleteFunc(slices.Clone(l.runs), func(line string) bool {
				return !strings.Contains(line, "disable") && !strings.Contains(line, "reload")
			})
			if test.want != nil && !slices.Equal(undone, test.want) {
				t.Errorf("taken back with %q, want %q", undone, test.want)
			}
		})
	}
}

// TestInstallKeepsTheUser: one that was named once need not be named again.
func TestInstallKeepsTheUser(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, test := range []struct{ given, want string }{{"", "root"}, {"", "root"}, {"tenement", "tenement"}, {"", "tenement"}, {"root", "root"}, {"", "root"}} {
		i := sample()
		i.User = chooseUser(test.given, l.root)
		if i.User != test.want {
			t.Errorf("with --user %q: %s, want %s", test.given, i.User, test.want)
		}
		if err := l.apply(t.Context(), i.plan(false)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestListenStream(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		"127.0.0.1:8080": "127.0.0.1:8080",
		"localhost:8080": "127.0.0.1:8080",
		":8080":          "8080",
		"0.0.0.0:80":     "0.0.0.0:80",
		"[::1]:8080":     "[::1]:8080",
		"127.0.0.1:0":    "",
	} {
		got, err := listenStream(listen)
		if got != want || (want == "") != (tenement.CodeOf(err) == tenement.CodeInvalid && err != nil) {
			t.Errorf("listenStream(%q) = %q, %v; want %q", listen, got, err, want)
		}
	}
}

func TestSettledProgram(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "ten")
	if err := os.WriteFile(program, nil, 0o755); err != nil { //nolint:gosec // a program is executable
		t.Fatal(err)
	}
	if settled(program) {
		t.Errorf("%s would stay where anybody may write", program)
	}
	if settled("/usr/bin/no-such-program") {
		t.Error("what is not there is settled")
	}
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if !settled(shell) {
		t.Errorf("%s would be copied", shell)
	}
}

// full is a machine on which the daemon was installed and had a tenant.
func full(t *testing.T) *lab {
	t.Helper()
	l := newLab(t)
	if err := l.apply(t.Context(), sample().plan(false)); err != nil {
		t.Fatal(err)
	}
	l.write("/var/lib/tenement/.tenement/state.db", "registry")
	l.write("/var/lib/tenement/notes/alice/app.db", "notes")
	l.write("/srv/precious/file", "not the daemon's")
	for link, target := range map[string]string{"notes/alice/link": "/srv/precious", "linked": "/srv/precious"} {
		if err := os.Symlink(l.path(target), l.path("/var/lib/tenement/"+link)); err != nil {
			t.Fatal(err)
		}
	}
	l.runs, l.told = nil, nil
	return l
}

func TestUninstallKeepsData(t *testing.T) {
	t.Parallel()
	l := full(t)
	l.write("/sys/fs/cgroup/system.slice/tenement.service/cgroup.events", "populated 1\n")
	l.write("/sys/fs/cgroup/system.slice/tenement.service/cgroup.kill", "")
	for range 2 { // once more is no error
		if err := l.apply(t.Context(), removal(l.root)); err != nil {
			t.Fatal(err)
		}
	}
	if l.exists(unitDir+"/"+serviceUnit) || l.exists(unitDir+"/"+socketUnit) || l.exists(unitDir+"/"+tenantsUnit) {
		t.Error("a unit is still there")
	}
	if !l.exists("/var/lib/tenement/notes/alice/app.db") || !l.exists(systemConfig) {
		t.Error("data or configuration are gone")
	}
	if killed, err := os.ReadFile(l.path("/sys/fs/cgroup/system.slice/tenement.service/cgroup.kill")); string(killed) != "1" {
		t.Errorf("what was left running was not ended: %q, %v", killed, err)
	}
	if slices.Contains(l.runs, "remove what is left of /var/lib/tenement") {
		t.Error("tenants who are the daemon's user left something")
	}
	if !slices.Contains(l.runs, "systemctl disable --now tenement.socket tenement.service tenement-tenants.service") {
		t.Errorf("not stopped: %q", l.runs)
	}
}

// TestUninstallRemovesNetworks: after the units have ended, those of a root daemon.
func TestUninstallRemovesNetworks(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	i := sample()
	i.User = "root"
	if err := errors.Join(l.apply(t.Context(), i.plan(false)), l.apply(t.Context(), removal(l.root))); err != nil {
		t.Fatal(err)
	}
	stop := slices.Index(l.runs, "systemctl disable --now tenement.socket tenement.service tenement-tenants.service")
	if remove := slices.Index(l.runs, "remove what is left of /var/lib/tenement"); stop < 0 || remove < stop {
		t.Errorf("ran %q", l.runs)
	}
	if l.exists(unitDir + "/" + serviceUnit) {
		t.Error("the unit is still there")
	}
}

func TestPurge(t *testing.T) {
	t.Parallel()
	const dataDir = "/var/lib/tenement"
	mount := func(point string) func(l *lab) {
		return func(l *lab) {
			l.write("/proc/self/mountinfo", fmt.Sprintf("1 2 8:1 / %s rw - ext4 /dev/sda rw\n", point))
		}
	}
	for _, test := range []struct {
		name    string
		prepare func(l *lab)
		refused string
		left    []string
	}{
		{name: "all of it", prepare: func(*lab) {}},
		{name: "a neighbour's mount", prepare: mount(dataDir + "-2/notes")},
		{name: "a volume of its own", prepare: mount(dataDir), left: []string{dataDir}},
		{name: "a mount inside", prepare: mount(dataDir + "/notes/alice/my\\040disk"), refused: "my disk"},
		{name: "a link", refused: "link", prepare: func(l *lab) {
			if err := errors.Join(os.Rename(l.path(dataDir), l.path("/srv/data")), os.Symlink(l.path("/srv/data"), l.path(dataDir))); err != nil {
				l.t.Fatal(err)
			}
		}},
		{name: "somebody else's directory", refused: "no daemon", prepare: func(l *lab) {
			if err := os.RemoveAll(l.path(dataDir + "/.tenement")); err != nil {
				l.t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := full(t)
			test.prepare(l)
			before := l.tree()
			_, err := purgeDir{path: dataDir}.do(t.Context(), l.machine)
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) {
					t.Errorf("error %v, want one with %q", err, test.refused)
				}
				if diff := cmp.Diff(before, l.tree()); diff != "" {
					t.Errorf("refused, and yet:\n%s", diff)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for path := range l.tree() {
				if path = "/" + path; path == dataDir || strings.HasPrefix(path, dataDir+"/") {
					left = append(left, path)
				}
			}
			if !slices.Equal(left, test.left) {
				t.Errorf("left: %q, want %q", left, test.left)
			}
			if !l.exists("/srv/precious/file") {
				t.Error("a link led out of the data directory")
			}
			if _, err := (purgeDir{path: dataDir}).do(t.Context(), l.machine); err != nil && test.left == nil {
				t.Errorf("once more: %v", err)
			}
		})
	}
}
