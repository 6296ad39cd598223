package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"tenement"
)

// inherited are the only variables of the daemon's environment that a tenant sees.
var inherited = []string{"PATH", "HOME", "LANG", "TZ"}

// command is a Spec with its variables put in, ready to be executed.
type command struct {
	path string // absolute, of the program
	args []string
	env  []string
	dir  string

	openFiles int  // the bound on its descriptors; 0 = the one that the daemon was started with
	passed    bool // it is given its listening socket
}

// socketFD is the descriptor that a listening socket is passed as, and passedName what
// it is called (sd_listen_fds(3)).
const (
	socketFD   = 3
	passedName = "http"
)

// command puts the values of one start into the service's templates and finds the
// program. A program that is missing or may not be run is CodeUnavailable.
func (s Spec) command(port int) (command, error) {
	vars := tenement.Vars{
		tenement.VarName:    s.Instance.Service,
		tenement.VarID:      s.Instance.Name,
		tenement.VarPort:    strconv.Itoa(port),
		tenement.VarDataDir: s.Service.DataDir,
	}
	env := s.environment(port, vars)
	c := command{dir: s.Service.Workdir.Expand(vars), openFiles: s.Service.Limits.OpenFiles, passed: s.passed()}
	if c.dir == "" || s.Task != nil {
		c.dir = s.DataDir
	}
	c.args = s.arguments(vars)
	search := filepath.SplitList(env["PATH"])
	if s.UID != 0 {
		search = visibleFirst(search, s.Service)
	}
	path, err := findProgram(c.args[0], search, c.dir)
	if err != nil && s.Task != nil {
		return command{}, &tenement.Error{Code: tenement.CodeNotFound, Op: "run a command in " + s.Instance.String(), Err: err}
	}
	if err != nil {
		return command{}, &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "start " + s.Instance.String(), Err: err,
			Hint: fmt.Sprintf("install %s, or correct `command` of [service.%s]", c.args[0], s.Instance.Service),
		}
	}
	c.path = path
	for _, name := range slices.Sorted(maps.Keys(env)) {
		c.env = append(c.env, name+"="+env[name])
	}
	return c, nil
}

// passed reports whether the program is given its listening socket.
func (s Spec) passed() bool { return s.Task == nil && s.Service.Listen == tenement.ListenFD }

// notifies reports whether the process says of itself how it does.
func (s Spec) notifies() bool {
	return s.Task == nil && s.Service != nil && s.Service.Ready == tenement.ReadyNotify
}

// prepared does what only the process itself can before it is its program, by a shell
// that becomes the program, without the variables that shells add (bash still leaves _):
// it lowers its own bound on descriptors, which needs no rights and leaves that of the
// daemon as it is, and says for whom the listening socket is. CodeUnavailable: the daemon
// itself may not have so many descriptors.
func (c command) prepared() (command, error) {
	if c.openFiles == 0 && !c.passed {
		return c, nil
	}
	if err := c.checkOpenFiles(); err != nil {
		return command{}, err
	}
	script := "unset PWD OLDPWD SHLVL; "
	if c.openFiles > 0 {
		script += `ulimit -n "$0" && `
	}
	if c.passed {
		script += "export LISTEN_PID=$$ && "
	}
	c.args = append([]string{"sh", "-c", script + `exec "$@"`, strconv.Itoa(c.openFiles), c.path}, c.args[1:]...)
	c.path = "/bin/sh"
	return c, nil
}

func (c command) checkOpenFiles() error {
	var own syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own); err != nil {
		return fmt.Errorf("read the bound on open files: %w", err)
	}
	if uint64(c.openFiles) > own.Max {
		return &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "set open_files_limit", Err: fmt.Errorf("%d is more than this daemon may have, %d", c.openFiles, own.Max),
			Hint: "lower open_files_limit, or raise LimitNOFILE= of the daemon's unit",
		}
	}
	return nil
}

// environment is everything a tenant finds in its environment.
func (s Spec) environment(port int, vars tenement.Vars) map[string]string {
	env := make(map[string]string)
	for _, name := range inherited {
		if value, ok := os.LookupEnv(name); ok {
			env[name] = value
		}
	}
	if s.UID != 0 {
		env["HOME"] = s.DataDir // the daemon's own is not there for it
	}
	env["PORT"] = strconv.Itoa(port)
	env["DATA_DIR"] = s.DataDir
	env["TENEMENT_SERVICE"] = s.Instance.Service
	env["TENEMENT_INSTANCE"] = s.Instance.Name
	env["PYTHONUNBUFFERED"] = "1"
	if s.passed() {
		env["LISTEN_FDS"] = "1"
		env["LISTEN_FDNAMES"] = passedName
	}
	for name, value := range s.Service.Env {
		env[name] = value.Expand(vars)
	}
	for name, value := range s.Secrets {
		env[name] = string(value)
	}
	return env
}

// FindProgram resolves the program of service the way a start would, for checks
// that run before any start. The error is that of the start.
func FindProgram(service *tenement.Service) (string, error) {
	s := Spec{
		Instance: tenement.InstanceID{Service: service.Name, Name: "doctor"},
		Service:  service,
		DataDir:  service.DataDir,
	}
	if service.Isolation != tenement.IsolationProcess {
		s.UID = 1 // any of its own
	}
	c, err := s.command(0)
	return c.path, err
}

// findProgram looks a program up as execvp(3) does, except that a relative name
// with a slash counts from dir, where the program will run.
func findProgram(name string, search []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	for _, entry := range search {
		if !filepath.IsAbs(entry) {
			continue // a tenant's program never depends on where the daemon stands
		}
		candidate := filepath.Join(entry, name)
		if executable(candidate) == nil {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("%s: not found in PATH", name)
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: no such file", path)
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s: is a directory", path)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s: not executable", path)
	}
	return nil
}
