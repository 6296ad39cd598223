package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/network"
)

// tenantPort is where every isolated tenant listens: each has all ports to itself.
const tenantPort = 8080

// Namespace is the "namespace" runtime: each process has a user id, a file system, a
// network, System V IPC and a host name of its own, and no rights beyond those of a user
// without any.
type Namespace struct {
	host    *Host
	network *network.Pool
	hidden  []string
	base    string // an empty directory

	mu        sync.Mutex
	templates map[string]*template // by what they show
}

// NewNamespace makes the runtime; it shares with host what both have to do alike. dir is
// made if need be, and for nothing else. Hidden are files that no tenant sees, wherever
// they lie. CodeUnavailable: this kernel or this user cannot do it.
func NewNamespace(host *Host, pool *network.Pool, dir string, hidden ...string) (*Namespace, error) {
	if err := CheckNamespaces(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory to build tenants' roots on: %w", err)
	}
	return &Namespace{host: host, network: pool, hidden: hidden, base: dir, templates: make(map[string]*template)}, nil
}

// CheckNamespaces is nil if processes can be isolated by namespaces here. CodeUnavailable
// names the one thing that is missing.
func CheckNamespaces() error {
	unavailable := func(err error, hint string) error {
		return &tenement.Error{Code: tenement.CodeUnavailable, Op: `isolate with "namespace"`, Err: err, Hint: hint}
	}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS); err != nil {
			return unavailable(fmt.Errorf("unshare: %w", err), `run as root, or set isolation = "process"`)
		}
		tree, err := openTree("/usr", false)
		if err != nil {
			return unavailable(err, `run on Linux 5.12 or newer, without a filter on open_tree(2) and mount_setattr(2), or set isolation = "process"`)
		}
		return unix.Close(tree)
	})
	if err != nil {
		return err
	}
	if _, err := syscallFilter(); err != nil {
		return unavailable(err, `set isolation = "process"`)
	}
	return nil
}

// Close lets go of what is kept ready. What runs goes on.
func (n *Namespace) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.forget()
}

func (n *Namespace) forget() error {
	var err error
	for _, t := range n.templates {
		err = errors.Join(err, t.namespace.Close())
	}
	clear(n.templates)
	return err
}

// Start implements [Runtime].
func (n *Namespace) Start(ctx context.Context, s Spec) (Process, error) {
	if s.UID <= 0 {
		return nil, &tenement.Error{Code: tenement.CodeInternal, Op: "start " + s.Instance.String(), Err: errors.New("it has no user id of its own")}
	}
	net, err := n.network.Take(ctx, s.Service.Egress)
	if err != nil {
		return nil, err
	}
	return n.host.startAt(ctx, s, n.place(s, net))
}

// Adopt implements [Runtime].
func (n *Namespace) Adopt(ctx context.Context, s Spec, ref tenement.Ref) (Process, error) {
	found, err := adopt(ref)
	if err != nil {
		return nil, err
	}
	in, lost, err := n.findNetwork(found, ref)
	switch {
	case err != nil:
		found.close()
		return nil, err
	case lost != nil:
		nowhere := place{leave: func() error { return nil }}
		return n.host.adoptAt(ctx, s, ref, found, nowhere, lost)
	}
	return n.host.adoptAt(ctx, s, ref, found, n.place(s, in), nil)
}

// findNetwork looks for the network of what was found; lost says why it cannot be had
// any more, err that nothing is known.
func (n *Namespace) findNetwork(found *handle, ref tenement.Ref) (in *network.Namespace, lost, err error) {
	control := found.control(func(pidfd int) { in, err = n.network.Adopt(pidfd, ref.Slot) })
	err = errors.Join(control, err)
	if tenement.CodeOf(err) == tenement.CodeUnavailable {
		return nil, err, nil
	}
	return in, nil, err
}

func (n *Namespace) place(s Spec, in *network.Namespace) place {
	return place{
		isolation: tenement.IsolationNamespace,
		port:      tenantPort,
		network:   in.Cookie(),
		slot:      in.Slot(),
		within:    in.Do,
		uid:       s.UID,
		spawn: func(c command, files []*os.File, attr *syscall.SysProcAttr) (h *handle, err error) {
			t, err := n.template(s, c)
			if err != nil {
				return nil, err
			}
			attr.Credential = &syscall.Credential{Uid: uint32(s.UID), Gid: uint32(s.UID)}
			err = onThread(func() (err error) {
				if err := n.enter(s, t, in, files); err != nil {
					return &tenement.Error{Code: tenement.CodeUnavailable, Op: "isolate " + s.Instance.String(), Err: err}
				}
				h, err = spawn(c, files, attr)
				return err
			})
			return h, err
		},
		dial:   func(ctx context.Context) (net.Conn, error) { return in.Dial(ctx, tenantPort) },
		leave:  in.Close,
		detach: in.Detach,
	}
}

// maxTemplates bounds the templates: a service has one, unless its working directory or
// its arguments name another file for each instance.
const maxTemplates = 256

// template is the one for s, made anew when what it shows has been replaced.
func (n *Namespace) template(s Spec, c command) (*template, error) {
	if s.Task != nil { // which sees what the service's program does
		var err error
		if c, err = s.own().command(tenantPort); err != nil {
			return nil, err
		}
	}
	own := ownPaths(s, c)
	key := strings.Join(slices.Concat([]string{s.Service.DataDir}, own, []string{""}, s.Service.Readable, []string{""}, s.Service.Writable), "\x00")
	n.mu.Lock()
	defer n.mu.Unlock()
	if t := n.templates[key]; t != nil {
		if now, err := t.view.identity(); err == nil && now == t.identity {
			return t, nil
		}
		delete(n.templates, key)
		_ = t.namespace.Close() // a namespace that nobody is in
	}
	v, err := newView(s.Service, own)
	if err != nil {
		return nil, err
	}
	t, err := n.newTemplate(v, s.Service.DataDir)
	if err != nil {
		return nil, &tenement.Error{Code: tenement.CodeUnavailable, Op: "make a root for " + s.Instance.Service, Err: err}
	}
	if len(n.templates) >= maxTemplates {
		n.host.warn("close templates", n.forget())
	}
	n.templates[key] = t
	return t, nil
}

// enter makes the calling thread, which its caller throws away, what the process is to be
// in all but its user id.
func (n *Namespace) enter(s Spec, t *template, in *network.Namespace, files []*os.File) error {
	dataDir, err := filepath.EvalSymlinks(s.DataDir) // links on the way to it are the operator's
	if err != nil {
		return err
	}
	if err := n.leaveHost(); err != nil {
		return err
	}
	own := append(slices.Clone(t.view.late), bind{path: s.DataDir, source: dataDir, writable: true})
	slices.SortStableFunc(own, func(a, b bind) int { return cmp.Compare(a.path, b.path) })
	trees, err := openTrees(own)
	if err != nil {
		return err
	}
	defer closeAllFDs(trees)
	if err := unix.Unshare(unix.CLONE_NEWIPC | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Sethostname([]byte(s.Instance.Name)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := unix.Setns(int(t.namespace.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the template: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("copy the template: %w", err)
	}
	if err := addOwn(s, own, trees); err != nil {
		return err
	}
	if err := hideLate(n.hidden); err != nil {
		return err
	}
	if err := in.Enter(); err != nil {
		return err
	}
	writable := append([]string{s.DataDir, "/tmp", "/dev/shm"}, s.Service.Writable...)
	return confine(func() error {
		return landlock(writable, reopenable(files[1:socketFD]), s.notifies() || s.wishes(tenement.IsolationNamespace))
	})
}

// confine takes from the calling thread, which is in its namespaces, the host's root and
// every right that the program is not to have. Second is the wall behind the first.
func confine(second func() error) error {
	if err := errors.Join(unix.Chroot(tenantRoot), unix.Chdir("/")); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := dropRights(); err != nil {
		return err
	}
	if err := second(); err != nil {
		return err
	}
	return filterSyscalls()
}

// leaveHost gives the calling thread a root and a working directory of its own, so that it
// can change mount namespaces. That of an ordinary user's daemon goes to one whose mounts
// it may take, and has its children in the pid namespace that /proc there is about.
func (n *Namespace) leaveHost() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	within := n.host.within
	if within == nil {
		return nil
	}
	if err := unix.Setns(int(within.PID.Fd()), unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("enter the pid namespace: %w", err)
	}
	if err := unix.Setns(int(within.Mount.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the mount namespace: %w", err)
	}
	return nil
}

// privateBytes bounds what one process may have in /tmp and /dev/shm together. It is
// memory, counts as the instance's own and ends with the process.
const privateBytes = "256m"

// privateTerminals bounds the pseudo-terminals of one process: all processes of the
// machine share as many as kernel.pty.max says.
const privateTerminals = "64"

// addOwn mounts what no other process has.
func addOwn(s Spec, own []bind, trees []int) error {
	const quiet = unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("tenement", privateRoot, "tmpfs", quiet, "mode=0755,nr_inodes=64k,size="+privateBytes); err != nil {
		return fmt.Errorf("mount private files: %w", err)
	}
	umask := unix.Umask(0)
	defer unix.Umask(umask) // the process has the daemon's
	for _, dir := range []struct {
		path string
		mode uint32
	}{{privateTmp, 0o1777}, {privateShm, 0o1777}, {privateRun, 0o755}, {privateRun + "/tenement", 0o755}, {privateData, 0o755}, {privateCover, 0o755}} {
		if err := unix.Mkdir(dir.path, dir.mode); err != nil {
			return &os.PathError{Op: "mkdir", Path: dir.path, Err: err}
		}
	}
	if err := writeFiles(privateRun+"/tenement", ownFileTexts(s)); err != nil {
		return err
	}
	for _, place := range [][2]string{{privateTmp, "/tmp"}, {privateShm, "/dev/shm"}, {privateRun, "/run"}} {
		if err := bindPrivate(place[0], place[1]); err != nil {
			return err
		}
	}
	if err := unix.Mount("devpts", tenantRoot+"/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,max="+privateTerminals); err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	dataDir, covered := filepath.Dir(s.Service.DataDir), false
	for i, bind := range own {
		if !covered && bind.path > dataDir { // the instance's own at the latest
			covered = true
			if err := coverOwnData(s.Service.DataDir); err != nil {
				return err
			}
		}
		if err := attach(trees[i], tenantRoot, bind.path); err != nil {
			return err
		}
	}
	return nil
}

// hideLate covers what the template could not, because it was shown only now.
func hideLate(hidden []string) error {
	for _, path := range hidden {
		if _, err := os.Lstat(tenantRoot + path); err != nil || !private(path) {
			continue
		}
		tree, err := openTree(tenantRoot+"/dev/null", false)
		if err != nil {
			return err
		}
		err = attachAt(tree, tenantRoot, path)
		if err := errors.Join(err, unix.Close(tree)); err != nil {
			return err
		}
	}
	return nil
}

// coverOwnData shows nothing where the service has its instances' data, nor, where the
// template has not done so, where all services have.
func coverOwnData(serviceDir string) error {
	if private(serviceDir) {
		if err := bindPrivate(privateCover, filepath.Dir(serviceDir)); err != nil {
			return err
		}
	}
	return bindPrivate(privateData, serviceDir)
}

func bindPrivate(dir, path string) error {
	if err := makePlace(tenantRoot, path, true); err != nil {
		return err
	}
	if err := unix.Mount(dir, tenantRoot+path, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "mount at", Path: path, Err: err}
	}
	return nil
}

// ownFileTexts tell the process who it is.
func ownFileTexts(s Spec) map[string]string {
	uid, name := strconv.Itoa(s.UID), s.Instance.Name
	return map[string]string{
		"passwd": "root:x:0:0:root:/:/sbin/nologin\ntenant:x:" + uid + ":" + uid + "::" + s.DataDir + ":/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
		"group":  "root:x:0:\ntenant:x:" + uid + ":\nnogroup:x:65534:\n",
		"hosts":  "127.0.0.1 localhost " + name + "\n::1 localhost\n",
	}
}

// writeFiles has nobody fork meanwhile: a child holds what is open until it executes its
// program, and as long as a file is open for writing its mount cannot be made read-only.
func writeFiles(dir string, texts map[string]string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
