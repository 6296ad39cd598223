package runtime

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/network"
)

// view is what isolated processes of one service find in their file system, besides what
// each has of its own: its data directory, /tmp, /dev/shm and /run. What is not named is
// not there.
type view struct {
	binds    []bind
	late     []bind            // below a place of the process's own: mounted there at each start
	covered  string            // whatever shows this shows nothing below it: all tenants' data is there
	resolver string            // text of /etc/resolv.conf
	links    map[string]string // by path, as the host has them: /bin is usr/bin on most
}

// bind shows a file or a directory of the host.
type bind struct {
	path     string
	source   string // where path leads to
	writable bool
}

// What every program may read. Of /etc it is what libraries look up: nothing that is about
// this machine, its users or its services.
var (
	systemPaths = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"}
	systemFiles = []string{
		"alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "debian_version", "fonts", "gai.conf", "host.conf",
		"java*", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "locale.conf", "localtime", "magic", "magic.mime",
		"mime.types", "nsswitch.conf", "os-release", "perl", "pki", "protocols", "python3*", "rpc", "services", "ssl", "timezone",
	}
)

// newView says what processes of a service see, of which own are the paths that its
// command names. A path of `readable` or `writable` that is missing is CodeUnavailable.
func newView(service *tenement.Service, own []string) (view, error) {
	v := view{links: make(map[string]string), covered: filepath.Dir(service.DataDir)}
	for _, path := range systemPaths {
		v.addSystem(path)
	}
	for _, name := range systemFiles {
		matches, _ := filepath.Glob("/etc/" + name) // fails only on a bad pattern
		for _, path := range matches {
			v.addSystem(path)
		}
	}
	tenants, err := placesOfTenants(service)
	if err != nil {
		return view{}, err
	}
	for _, path := range own {
		if err := v.add(path, false, tenants); err != nil {
			continue // an argument that only looks like a path, or a start that fails by itself
		}
	}
	for key, paths := range map[string][]string{"readable": service.Readable, "writable": service.Writable} {
		for _, path := range paths {
			if err := v.add(path, key == "writable", tenants); err != nil {
				return view{}, &tenement.Error{
					Code: tenement.CodeUnavailable, Op: "show " + path + " to " + service.Name, Err: err,
					Hint: "make it, or take it from `" + key + "` of [service." + service.Name + "]",
				}
			}
		}
	}
	v.simplify()
	v.resolver, err = resolver(service.Egress)
	return v, err
}

// resolver is a resolv.conf(5) for those who reach the name servers of this machine.
func resolver(egress tenement.Egress) (string, error) {
	if egress == tenement.EgressDeny {
		return "", nil
	}
	servers, err := network.Nameservers()
	if err != nil {
		return "", fmt.Errorf("find the name servers of this machine: %w", err)
	}
	var text strings.Builder
	for _, server := range servers {
		text.WriteString("nameserver " + server.String() + "\n")
	}
	return text.String(), nil
}

// addSystem shows a path as it is, a link as a link if it leads to /usr. Not every system
// has every path.
func (v *view) addSystem(path string) {
	source, err := filepath.EvalSymlinks(path)
	if err != nil {
		return
	}
	if target, err := os.Readlink(path); err == nil && within("/usr", source) {
		v.links[path] = target
		return
	}
	v.binds = append(v.binds, bind{path: path, source: source})
}

// add shows a path, and what it leads to at its own place: a program finds its files by
// either.
func (v *view) add(path string, writable bool, tenants []string) error {
	source, err := resolve(path, tenants)
	if err != nil {
		return err
	}
	v.binds = append(v.binds, bind{path, source, writable}, bind{source, source, writable})
	return nil
}

// placesOfTenants are the directories, without links, in which tenants make files, and so
// links to whatever they like.
func placesOfTenants(service *tenement.Service) ([]string, error) {
	var places []string
	for _, path := range append([]string{filepath.Dir(service.DataDir)}, service.Writable...) {
		place, err := filepath.EvalSymlinks(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		places = append(places, place)
	}
	return places, nil
}

// resolve is where path leads to, without any link: [filepath.EvalSymlinks], but for links
// that lie in a place of tenants, which are an error. They would show their maker whatever
// on this machine they name.
func resolve(path string, tenants []string) (string, error) {
	at, rest := "/", strings.Split(filepath.Clean(path), "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		target, err := os.Readlink(filepath.Join(at, name))
		if errors.Is(err, unix.EINVAL) { // no link
			at = filepath.Join(at, name)
			continue
		}
		if err != nil {
			return "", err
		}
		for _, place := range tenants {
			if within(place, at) {
				return "", fmt.Errorf("%s is a link that a tenant may have made", filepath.Join(at, name))
			}
		}
		if links++; links > maxLinks {
			return "", &os.PathError{Op: "resolve", Path: path, Err: unix.ELOOP}
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// ownPaths is what the command names: the working directory, the program with every link
// on the way to it, and arguments that are absolute paths, such as a script's. A program
// of a Python virtual environment comes with all of that. What lies in the data directory
// is there anyhow, and its tenant's: a link there leads nowhere from here. Nor is shown
// what the data directory lies in, "/" first of all.
func ownPaths(s Spec, c command) []string {
	var paths []string
	if !within(s.DataDir, c.dir) && !within(c.dir, s.DataDir) {
		paths = append(paths, c.dir)
	}
	for _, word := range c.args[1:] {
		path := filepath.Clean(word)
		if filepath.IsAbs(path) && !within(path, s.DataDir) && !within(filepath.Dir(s.Service.DataDir), path) {
			paths = append(paths, path)
		}
	}
	for path := filepath.Clean(c.path); !within(s.DataDir, path); {
		paths = append(paths, path)
		prefix := filepath.Dir(filepath.Dir(path))
		if _, err := os.Stat(filepath.Join(prefix, "pyvenv.cfg")); err == nil {
			paths = append(paths, prefix)
		}
		target, err := os.Readlink(path)
		if err != nil || len(paths) > maxLinks {
			return paths
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return paths
}

// maxLinks bounds the links on the way to a program, as the kernel does
// (path_resolution(7)).
const maxLinks = 40

// simplify sorts the binds, parents first, and leaves out what is shown already.
func (v *view) simplify() {
	slices.SortStableFunc(v.binds, func(a, b bind) int {
		if n := cmp.Compare(a.path, b.path); n != 0 {
			return n
		}
		if a.writable == b.writable {
			return 0
		}
		if a.writable {
			return -1
		}
		return 1
	})
	var kept []bind
	for _, b := range v.binds {
		switch {
		case v.shown(kept, b) || v.shown(v.late, b):
		case private(b.path):
			v.late = append(v.late, b)
		default:
			kept = append(kept, b)
		}
	}
	v.binds = kept
}

// private reports whether path lies where each process has a place of its own.
func private(path string) bool { return within("/tmp", path) || within("/run", path) }

// shown reports whether b needs no place of its own: it lies in what another bind shows,
// be it as a link to a place that has its own, or behind a link.
func (v *view) shown(kept []bind, b bind) bool {
	for link := range v.links {
		if within(link, b.path) {
			return true
		}
	}
	for _, k := range slices.Backward(kept) {
		if within(k.path, v.covered) && within(v.covered, b.path) && b.path != v.covered {
			continue
		}
		if within(k.path, b.path) {
			return k.path == b.path || b.path != b.source || k.writable == b.writable
		}
	}
	return false
}

// within reports whether path is dir or lies below it. Both are clean and absolute.
func within(dir, path string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// visibleFirst moves those directories to the front that an isolated program sees, in
// which it would find another one itself. The rest may be its operator's own: of these it
// is shown one program, and not what that may need beside it.
func visibleFirst(search []string, service *tenement.Service) []string {
	seen := slices.Concat(systemPaths, service.Readable, service.Writable)
	visible := func(dir string) bool {
		return slices.ContainsFunc(seen, func(path string) bool { return within(path, filepath.Clean(dir)) })
	}
	var first, rest []string
	for _, dir := range search {
		if visible(dir) {
			first = append(first, dir)
		} else {
			rest = append(rest, dir)
		}
	}
	return append(first, rest...)
}
