package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A bundle is what runsc is told about one sandbox (OCI runtime-spec, bundle.md): a
// directory with config.json and the root of what the tenant sees. runsc keeps its own
// state beside them. The root is empty here: it is mounted where nobody but runsc is.
const (
	bundleConfig = "config.json"
	bundleRoot   = "rootfs"
)

// sentryUID is whom the host sees in a sandbox's own processes: the root of a user
// namespace in which there is only one other user, the tenant. It is in the upper half of
// all uids, of which nobody else has one: tenants' are below 2^31, and so are those that
// systemd gives out (https://systemd.io/UIDS-GIDS).
func sentryUID(uid int) int { return uid + 1<<31 }

// writeBundle makes the bundle of one start in dir, a new directory.
func writeBundle(dir string, s Spec, c command, v view) error {
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	root := filepath.Join(dir, bundleRoot)
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(dir, 0o711), os.Chmod(root, 0o755)); err != nil { // whatever the umask
		return err
	}
	spec := newSpec(s, c)
	mounts, err := newMounts(root, slices.Concat(ownBinds(s, v), v.binds))
	if err != nil {
		return err
	}
	spec.Mounts = mounts
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, bundleConfig), text, 0o600)
}

const (
	// sandboxPIDs is how many threads a sandbox has for itself, about: gVisor ends when it is
	// refused one. Beside them, a process or thread of the program is two on the host.
	sandboxPIDs = 32

	// roomyPIDs is the least pids_limit that leaves the program enough to do without the others.
	roomyPIDs = 96
)

// processLimit has gVisor refuse the program a process before the cgroup refuses gVisor one.
// A smaller limit is the cgroup's alone to keep.
func processLimit(limit int) []specs.POSIXRlimit {
	if limit < roomyPIDs {
		return nil
	}
	left := uint64((limit - sandboxPIDs) / 2)
	return []specs.POSIXRlimit{{Type: "RLIMIT_NPROC", Hard: left, Soft: left}}
}

func newSpec(s Spec, c command) *specs.Spec {
	uid := uint32(s.UID)
	ids := []specs.LinuxIDMapping{
		{ContainerID: 0, HostID: uint32(sentryUID(s.UID)), Size: 1},
		{ContainerID: uid, HostID: uid, Size: 1},
	}
	return &specs.Spec{
		Version:  specs.Version,
		Hostname: s.Instance.Name,
		Root:     &specs.Root{Path: bundleRoot, Readonly: true},
		Process: &specs.Process{
			Terminal: s.Task != nil && s.Task.Terminal,
			User:     specs.User{UID: uid, GID: uid}, Args: c.args, Env: c.env, Cwd: c.dir,
			Capabilities: &specs.LinuxCapabilities{}, NoNewPrivileges: true,
			Rlimits: processLimit(s.Service.Limits.PIDs),
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.MountNamespace}, {Type: specs.UserNamespace},
			},
			UIDMappings: ids, GIDMappings: ids,
		},
	}
}

// ownBinds is what the template does not show: it lies where each process has a place of
// its own. Parents come first.
func ownBinds(s Spec, v view) []bind {
	source, err := filepath.EvalSymlinks(s.DataDir) // links on the way to it are the operator's
	if err != nil {
		source = s.DataDir // which cannot be opened either
	}
	own := append(slices.Clone(v.late), bind{path: s.DataDir, source: source, writable: true})
	slices.SortStableFunc(own, func(a, b bind) int { return strings.Compare(a.path, b.path) })
	return own
}

// newMounts is what is mounted on the root. To the sandbox the root is one file system,
// which is read-only and, so that it need not look at every file again, never changes.
// What is writable in it, and what is the service's own, is mounted once more.
func newMounts(root string, binds []bind) ([]specs.Mount, error) {
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777", "size=" + privateBytes}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777", "size=" + privateBytes}},
	}
	for _, b := range binds {
		if b.system() && !b.writable {
			continue
		}
		options, err := b.options()
		if err != nil {
			return nil, err
		}
		list = append(list, specs.Mount{Destination: b.path, Type: "bind", Source: root + b.path, Options: options})
	}
	slices.SortStableFunc(list, func(a, b specs.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	return list, nil
}

// options are those that the file system of b has and runsc could not take away, and
// those of openTree.
func (b bind) options() ([]string, error) {
	var has unix.Statfs_t
	if err := unix.Statfs(b.source, &has); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: b.source, Err: err}
	}
	options := []string{"rbind", "nosuid", "nodev", "rw"}
	if !b.writable || has.Flags&unix.ST_RDONLY != 0 {
		options[3] = "ro"
	}
	if has.Flags&unix.ST_NOEXEC != 0 {
		options = append(options, "noexec")
	}
	return options, nil
}

// system reports whether b is shown to the tenants of all services.
func (b bind) system() bool {
	return within("/etc", b.path) || slices.ContainsFunc(systemPaths, func(path string) bool { return within(path, b.path) })
}

// mountBundle makes the calling thread, which its caller throws away, see the root in the
// bundle at dir, and nobody else.
func mountBundle(dir string, s Spec, t *template, hidden []string) error {
	own := ownBinds(s, t.view)
	trees, err := openTrees(own)
	if err != nil {
		return err
	}
	defer closeAllFDs(trees)
	tree, err := t.openRoot()
	if err != nil {
		return fmt.Errorf("copy the template: %w", err)
	}
	defer closeAllFDs([]int{tree})
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts from the host: %w", err)
	}
	unix.Umask(0)
	root := bundleTree(filepath.Join(dir, bundleRoot))
	if err := root.mount(tree); err != nil {
		return err
	}
	if err := root.addOwn(s, own, trees); err != nil {
		return err
	}
	return root.hide(hidden)
}

// bundleTree is the path of a root while it is being made, where only one thread sees it.
type bundleTree string

func (r bundleTree) mount(tree int) error {
	root := string(r)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, root, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move_mount", Path: root, Err: err}
	}
	// runsc makes it read-only once more where it can take no other flag away.
	flags := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NOEXEC}
	if err := unix.MountSetattr(unix.AT_FDCWD, root, 0, &flags); err != nil {
		return &os.PathError{Op: "mount_setattr", Path: root, Err: err}
	}
	if err := unix.Unmount(root+"/proc", unix.MNT_DETACH); err != nil { // the sandbox has its own
		return &os.PathError{Op: "unmount", Path: root + "/proc", Err: err}
	}
	return nil
}

// addOwn adds what no other process has.
func (r bundleTree) addOwn(s Spec, own []bind, trees []int) error {
	dataDir, covered := filepath.Dir(s.Service.DataDir), false
	places := []string{"/tmp", "/run"}
	if !private(s.Service.DataDir) { // the template has covered what is above
		places, covered = append(places, s.Service.DataDir), true
	}
	for _, path := range places {
		if err := r.cover(path); err != nil {
			return err
		}
	}
	for i, bind := range own {
		if !covered && bind.path > dataDir { // the instance's own at the latest
			covered = true
			if err := r.cover(dataDir); err != nil {
				return err
			}
		}
		if err := attach(trees[i], string(r), bind.path); err != nil {
			return err
		}
	}
	if err := os.Mkdir(string(r)+"/run/tenement", 0o755); err != nil {
		return err
	}
	return writeFiles(string(r)+"/run/tenement", ownFileTexts(s))
}

// cover mounts an empty directory, in which more can be mounted.
func (r bundleTree) cover(path string) error {
	if err := makePlace(string(r), path, true); err != nil {
		return err
	}
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("tenement", string(r)+path, "tmpfs", quiet, "mode=0755,size=64k,nr_inodes=1k"); err != nil {
		return &os.PathError{Op: "mount at", Path: path, Err: err}
	}
	return nil
}

// hide covers what the template could not, because it is shown only now.
func (r bundleTree) hide(hidden []string) error {
	for _, path := range hidden {
		if _, err := os.Lstat(string(r) + path); err != nil || !private(path) {
			continue
		}
		tree, err := openTree("/dev/null", false)
		if err != nil {
			return err
		}
		err = attachAt(tree, string(r), path)
		if err := errors.Join(err, unix.Close(tree)); err != nil {
			return err
		}
	}
	return nil
}

// openRoot takes a copy of the root of tenants that can be mounted elsewhere. It leaves
// the calling thread where it was.
func (t *template) openRoot() (int, error) {
	here, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return -1, err
	}
	defer here.Close()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return -1, err
	}
	if err := unix.Setns(int(t.namespace.Fd()), unix.CLONE_NEWNS); err != nil {
		return -1, err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, tenantRoot, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if back := unix.Setns(int(here.Fd()), unix.CLONE_NEWNS); back != nil {
		return -1, errors.Join(err, back)
	}
	return tree, err
}

// RemoveBundles removes the directory that a [Sandbox] had, with all that is in it, when
// nothing lives that has a bundle there. One that is not there is no error.
func RemoveBundles(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignoreMissing(err)
	}
	for _, entry := range entries {
		err = errors.Join(err, removeBundle(filepath.Join(dir, entry.Name())))
	}
	return errors.Join(err, ignoreMissing(os.Remove(dir)))
}

// removeBundle removes the files of a bundle. It goes into no directory: the only one is
// the root, which is empty, unless something is mounted there that never should be.
func removeBundle(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignoreMissing(err)
	}
	for _, entry := range entries {
		err = errors.Join(err, ignoreMissing(os.Remove(filepath.Join(dir, entry.Name()))))
	}
	return errors.Join(err, ignoreMissing(os.Remove(dir)))
}
