package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A template is a mount namespace that no process is in. Each start gets a copy of it, to
// which only what is the instance's own has to be added. Its root is an empty directory
// with two others: the root of tenants, who are kept in it by chroot(2), and the place for
// what is one tenant's own.
//
// The kernel makes no user namespace for a process that is below the root of its mount
// namespace (current_chrooted() in fs/namespace.c), whichever way it asks: so a tenant
// never gets capabilities in one, although clone3(2) hides its flags from seccomp.
type template struct {
	namespace *os.File
	view      view
	identity  string // of what it shows
}

const (
	tenantRoot  = "/root"
	privateRoot = "/private"
)

// What a process needs of its own, at these places of the private file system.
const (
	privateTmp   = privateRoot + "/tmp"
	privateShm   = privateRoot + "/shm"
	privateRun   = privateRoot + "/run"
	privateData  = privateRoot + "/data"
	privateCover = privateRoot + "/cover"
)

// ownFiles are made for each process, below /run/tenement; /etc has links to them.
var ownFiles = []string{"passwd", "group", "hosts"}

// newTemplate builds one for v. Whatever v shows of the data directory, in which serviceDir
// is, and of the hidden files is covered.
func (n *Namespace) newTemplate(v view, serviceDir string) (*template, error) {
	t := &template{view: v}
	err := onThread(func() (err error) {
		if t.identity, err = v.identity(); err != nil {
			return err
		}
		thread, err := unix.Open("/proc/thread-self/ns", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) // of a /proc that knows this thread
		if err != nil {
			return err
		}
		defer closeAllFDs([]int{thread})
		if err := n.leaveHost(); err != nil {
			return err
		}
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make a mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("keep mounts from the host: %w", err)
		}
		unix.Umask(0)
		b := builder{base: n.base, root: n.base + tenantRoot, ownProc: n.host.within == nil}
		if err := b.build(v, serviceDir, n.hidden); err != nil {
			return err
		}
		own, err := unix.Openat(thread, "mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open the template: %w", err)
		}
		t.namespace = os.NewFile(uintptr(own), "template")
		return nil
	})
	return t, err
}

// identity changes when a path of v comes to lead to another file, when something else
// was put into /etc, and when this machine gets other name servers.
func (v *view) identity() (string, error) {
	var text strings.Builder
	for _, b := range slices.Concat(v.binds, v.late) {
		var stat unix.Stat_t
		if err := unix.Lstat(b.source, &stat); err != nil {
			return "", &os.PathError{Op: "lstat", Path: b.source, Err: err}
		}
		fmt.Fprintf(&text, "%d:%d ", stat.Dev, stat.Ino)
	}
	for _, path := range []string{"/etc", "/etc/resolv.conf"} {
		var stat unix.Stat_t
		if err := unix.Stat(path, &stat); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", &os.PathError{Op: "stat", Path: path, Err: err}
		}
		fmt.Fprintf(&text, "%d.%d ", stat.Mtim.Sec, stat.Mtim.Nsec)
	}
	return text.String(), nil
}

// builder mounts one template. It works in a mount namespace of its own, where every
// mistake goes away with the thread.
type builder struct {
	base    string // becomes the root of the namespace
	root    string // becomes the root of tenants
	ownProc bool   // that /proc here is not the one for tenants
}

func (b *builder) build(v view, serviceDir string, hidden []string) error {
	trees, err := openTrees(v.binds) // before the base covers anything
	if err != nil {
		return err
	}
	defer closeAllFDs(trees)
	if err := b.mountRoots(); err != nil {
		return err
	}
	dataDir, covered := filepath.Dir(serviceDir), private(serviceDir)
	ours := []string{"/"}
	if !covered {
		ours = append(ours, dataDir)
	}
	for i, bind := range v.binds {
		if !covered && bind.path > dataDir {
			covered = true
			if err := b.coverData(dataDir); err != nil {
				return err
			}
		}
		if err := b.attach(trees[i], bind.path); err != nil {
			return err
		}
	}
	places := []string{"/tmp", "/run"}
	if !private(serviceDir) {
		places = append(places, serviceDir)
	}
	if !covered {
		if err := b.coverData(dataDir); err != nil {
			return err
		}
	}
	for _, step := range []func() error{
		func() error { return b.makePlaces(places...) },
		func() error { return b.link(v.links) },
		func() error { return b.writeResolver(v.resolver) },
		b.mountProc,
		b.makeDevices,
		func() error { return b.hide(hidden) },
		func() error { return b.finish(ours...) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// coverData mounts an empty directory in the place of all tenants' data.
func (b *builder) coverData(dataDir string) error {
	if err := makePlace(b.root, dataDir, true); err != nil {
		return err
	}
	return unix.Mount("tenement", b.root+dataDir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, "mode=0755,size=64k,nr_inodes=1k")
}

func (b *builder) mountRoots() error {
	const quiet = unix.MS_NOSUID | unix.MS_NOEXEC
	err := unix.Mount("tenement", b.base, "tmpfs", quiet|unix.MS_NODEV, "mode=0755,size=64k,nr_inodes=16")
	if err != nil {
		return fmt.Errorf("mount an empty root: %w", err)
	}
	if err := errors.Join(os.Mkdir(b.root, 0o755), os.Mkdir(b.base+privateRoot, 0o755)); err != nil {
		return err
	}
	if err := unix.Mount("tenement", b.root, "tmpfs", quiet, "mode=0755,size=1m,nr_inodes=4k"); err != nil {
		return fmt.Errorf("mount a root: %w", err)
	}
	return nil
}

func openTrees(binds []bind) (trees []int, err error) {
	for _, b := range binds {
		tree, err := openSource(b)
		if err != nil {
			closeAllFDs(trees)
			return nil, err
		}
		trees = append(trees, tree)
	}
	return trees, nil
}

func closeAllFDs(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // of what nobody writes to
	}
}

// openSource takes what b shows. Its source was found without links; where one is now, a
// tenant has just put it there.
func openSource(b bind) (tree int, err error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, b.source, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: b.source, Err: err}
	}
	defer func() { _ = unix.Close(fd) }() // a path
	tree, err = openTreeAt(fd, "", b.writable)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", b.source, err)
	}
	return tree, nil
}

// openTree takes a file or directory of the host, with all that is mounted below it.
func openTree(path string, writable bool) (fd int, err error) {
	return openTreeAt(unix.AT_FDCWD, path, writable)
}

func openTreeAt(dir int, path string, writable bool) (fd int, err error) {
	fd, err = unix.OpenTree(dir, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if !writable {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return -1, errors.Join(&os.PathError{Op: "mount_setattr", Path: path, Err: err}, unix.Close(fd))
	}
	return fd, nil
}

// attach mounts a tree at a path below the root, which it makes if need be.
func (b *builder) attach(tree int, path string) error { return attach(tree, b.root, path) }

func attach(tree int, root, path string) error {
	var stat unix.Stat_t
	if err := unix.Fstat(tree, &stat); err != nil {
		return err
	}
	if err := makePlace(root, path, stat.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	return attachAt(tree, root, path)
}

// attachAt mounts a tree below root. It follows no link on the way: some may be a
// tenant's.
func attachAt(tree int, root, path string) error {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer closeAllFDs([]int{dir})
	place, err := unix.Openat2(dir, strings.TrimPrefix(path, "/"), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return &os.PathError{Op: "open the place for", Path: path, Err: err}
	}
	defer closeAllFDs([]int{place})
	if err := unix.MoveMount(tree, "", place, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move_mount", Path: path, Err: err}
	}
	return nil
}

// makePlace makes an empty directory or file to mount on, unless there is one. It follows
// no link on the way: some may be a tenant's, and lead to where it could not make anything.
func makePlace(root, path string, dir bool) error {
	at, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer func() { _ = unix.Close(at) }() // a path
	parents, name := filepath.Split(strings.Trim(path, "/"))
	for parent := range strings.FieldsFuncSeq(parents, func(r rune) bool { return r == '/' }) {
		if err := unix.Mkdirat(at, parent, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return &os.PathError{Op: "mkdir", Path: path, Err: err}
		}
		next, err := unix.Openat(at, parent, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
		_ = unix.Close(at) // a path
		at = next
	}
	if dir {
		err = unix.Mkdirat(at, name, 0o755)
	} else {
		err = unix.Mknodat(at, name, unix.S_IFREG|0o444, 0)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return &os.PathError{Op: "make the place for", Path: path, Err: err}
	}
	return nil
}

func (b *builder) link(links map[string]string) error {
	all := map[string]string{"/var/tmp": "/tmp", "/var/run": "/run"}
	for path, target := range links {
		all[path] = target
	}
	for _, name := range ownFiles {
		all["/etc/"+name] = "/run/tenement/" + name
	}
	for path, target := range all {
		if err := os.MkdirAll(filepath.Dir(b.root+path), 0o755); err != nil {
			return err
		}
		err := os.Symlink(target, b.root+path)
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.EROFS) { // the service was given what is there
			return err
		}
	}
	return nil
}

// writeResolver writes resolv.conf, unless the service was given that of the machine.
func (b *builder) writeResolver(text string) error {
	if _, err := os.Lstat(b.root + "/etc/resolv.conf"); err == nil {
		return nil
	}
	return writeFiles(b.root+"/etc", map[string]string{"resolv.conf": text})
}

// What of /proc is about the machine and not about a process: other runtimes keep the
// same entries from containers (config-linux.md of the OCI, maskedPaths, readonlyPaths).
var (
	maskedProc   = []string{"acpi", "asound", "interrupts", "kcore", "key-users", "keys", "latency_stats", "locks", "sched_debug", "scsi", "timer_list", "timer_stats"}
	readOnlyProc = []string{"bus", "fs", "irq", "sys", "sysrq-trigger"}
)

// mountProc shows each process those that it may trace: those of its own uid.
func (b *builder) mountProc() error {
	proc := b.root + "/proc"
	if err := os.Mkdir(proc, 0o755); err != nil {
		return err
	}
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	var err error
	if b.ownProc {
		err = unix.Mount("proc", proc, "proc", quiet, "hidepid=invisible")
	} else { // only who is in a pid namespace can mount the /proc of it
		err = unix.Mount("/proc", proc, "", unix.MS_BIND, "")
	}
	if err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, name := range readOnlyProc {
		if err := b.cover("/proc/"+name, b.root+"/proc/"+name); err != nil {
			return err
		}
	}
	return b.hide(prefixed("/proc/", maskedProc))
}

// cover mounts source, read-only, over a path below the root, if both are there.
func (b *builder) cover(path, source string) error {
	tree, err := openTree(source, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer closeAllFDs([]int{tree})
	return attachAt(tree, b.root, path)
}

// hide covers what is there of some paths with nothing.
func (b *builder) hide(paths []string) error {
	empty := b.base + "/empty"
	if err := os.Mkdir(empty, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, path := range paths {
		info, err := os.Lstat(b.root + path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case info.IsDir():
			err = b.cover(path, empty)
		default:
			err = b.cover(path, "/dev/null")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var (
	devices     = []string{"null", "zero", "full", "random", "urandom", "tty"}
	deviceLinks = map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}
)

func (b *builder) makeDevices() error {
	dev := b.root + "/dev/"
	err := errors.Join(os.MkdirAll(dev+"pts", 0o755), os.Mkdir(dev+"shm", 0o755))
	for _, name := range devices { // those of the machine: not everybody may make any
		err = errors.Join(err, unix.Mknod(dev+name, unix.S_IFREG, 0), unix.Mount("/dev/"+name, dev+name, "", unix.MS_BIND, ""))
	}
	for name, target := range deviceLinks {
		err = errors.Join(err, os.Symlink(target, dev+name))
	}
	if err != nil {
		return fmt.Errorf("make devices: %w", err)
	}
	return nil
}

// makePlaces makes what is mounted on at each start.
func (b *builder) makePlaces(paths ...string) error {
	for _, path := range paths {
		if err := makePlace(b.root, path, true); err != nil {
			return err
		}
	}
	return nil
}

// finish makes mounts of ours unchangeable, and the base the root of the namespace.
func (b *builder) finish(ours ...string) error {
	for _, path := range ours {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(unix.AT_FDCWD, b.root+path, 0, &attr); err != nil {
			return fmt.Errorf("make %s read-only: %w", path, err)
		}
	}
	if err := unix.Chdir(b.base); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the root of the host: %w", err)
	}
	return unix.Chdir("/")
}

func prefixed(prefix string, names []string) []string {
	var paths []string
	for _, name := range names {
		paths = append(paths, prefix+name)
	}
	return paths
}
