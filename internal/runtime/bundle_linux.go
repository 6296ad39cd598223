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
	bundleEmpty  = "empty" // in the place of what is hidden
)

// sentryUID is whom the host sees in a sandbox's own processes: the root of a user
// namespace in which there is only one other user, the tenant. It is far from those of
// all tenants.
func sentryUID(uid int) int { return uid + 100_000_000 }

// writeBundle makes the bundle of one start in dir, a new directory.
func writeBundle(dir string, s Spec, c command, v view, hidden []string) error {
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
	empty := filepath.Join(dir, bundleEmpty)
	if err := os.WriteFile(empty, nil, 0o400); err != nil {
		return err
	}
	spec := newSpec(s, c)
	spec.Mounts = newMounts(ownBinds(s, v), v.binds, hidden, empty)
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, bundleConfig), text, 0o600)
}

func newSpec(s Spec, c command) *specs.Spec {
	uid := uint32(s.UID)
	ids := []specs.LinuxIDMapping{
		{ContainerID: 0, HostID: uint32(sentryUID(s.UID)), Size: 1},
		{ContainerID: uid, HostID: uid, Size: 1},
	}
	spec := &specs.Spec{
		Version:  specs.Version,
		Hostname: s.Instance.Name,
		Root:     &specs.Root{Path: bundleRoot, Readonly: true},
		Process: &specs.Process{
			User: specs.User{UID: uid, GID: uid}, Args: c.args, Env: c.env, Cwd: c.dir,
			Capabilities: &specs.LinuxCapabilities{}, NoNewPrivileges: true,
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.MountNamespace}, {Type: specs.UserNamespace},
			},
			UIDMappings: ids, GIDMappings: ids,
		},
	}
	if n := c.openFiles; n > 0 {
		spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: uint64(n), Soft: uint64(n)}}
	}
	return spec
}

// ownBinds is what the root cannot show, because it lies where each process has a place
// of its own, parents first.
func ownBinds(s Spec, v view) []bind {
	own := append(slices.Clone(v.late), bind{path: s.DataDir, source: s.DataDir, writable: true})
	slices.SortStableFunc(own, func(a, b bind) int { return strings.Compare(a.path, b.path) })
	return own
}

// newMounts is what is mounted on the root. To the sandbox the root is one file system,
// which is read-only: what is writable in it is mounted once more.
func newMounts(own, shown []bind, hidden []string, empty string) []specs.Mount {
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777", "size=" + privateBytes}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777", "size=" + privateBytes}},
	}
	for _, b := range slices.Concat(own, shown) {
		switch {
		case b.writable:
			list = append(list, specs.Mount{Destination: b.path, Type: "bind", Source: b.source, Options: []string{"rbind", "rw"}})
		case private(b.path):
			list = append(list, specs.Mount{Destination: b.path, Type: "bind", Source: b.source, Options: []string{"rbind", "ro"}})
		}
	}
	for _, path := range hidden {
		if slices.ContainsFunc(list, func(m specs.Mount) bool { return m.Type == "bind" && within(m.Destination, path) }) {
			list = append(list, specs.Mount{Destination: path, Type: "bind", Source: empty, Options: []string{"bind", "ro"}})
		}
	}
	slices.SortStableFunc(list, func(a, b specs.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	return list
}

// mountBundle makes the calling thread, which its caller throws away, see the root in the
// bundle at dir, and nobody else.
func mountBundle(dir string, s Spec, t *template) error {
	tree, err := t.openRoot()
	if err != nil {
		return fmt.Errorf("copy the template: %w", err)
	}
	defer unix.Close(tree)
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts from the host: %w", err)
	}
	unix.Umask(0)
	root := filepath.Join(dir, bundleRoot)
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
	covers := []string{"/tmp", "/run"}
	if !private(s.Service.DataDir) {
		covers = append(covers, s.Service.DataDir)
	}
	for _, path := range covers {
		if err := unix.Mount("tenement", root+path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size=64k,nr_inodes=1k"); err != nil {
			return &os.PathError{Op: "mount at", Path: path, Err: err}
		}
	}
	if err := makeBindPlaces(root, ownBinds(s, t.view)); err != nil {
		return err
	}
	if err := os.Mkdir(root+"/run/tenement", 0o755); err != nil {
		return err
	}
	return writeFiles(root+"/run/tenement", ownFileTexts(s))
}

// makeBindPlaces makes what the sandbox could not: it is a stranger below root.
func makeBindPlaces(root string, binds []bind) error {
	for _, b := range binds {
		info, err := os.Stat(b.source)
		if err != nil {
			return err
		}
		if err := makePlace(root+b.path, info.IsDir()); err != nil {
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
