package config

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"

	"tenement"
)

// recipe is a service while it is read.
type recipe struct {
	*tenement.Service
	program []tenement.Template // the words of command
	args    []tenement.Template
}

// wakeSlack is how much longer than its start a request may wait by default: for
// its turn among other starts, and for one back-off.
const wakeSlack = 30 * time.Second

func (d *draft) readServices(v value) {
	for _, item := range v.items {
		if err := tenement.CheckServiceName(item.key); err != nil {
			d.fault(item.keyAt, "", err)
		}
		if _, ok := d.accept(recipes, "service."+shorten(item.key), item); ok {
			d.readService(item)
		}
	}
}

func (d *draft) readService(n *node) {
	d.service = &recipe{Service: &tenement.Service{
		Name:      n.key,
		Env:       map[string]tenement.Template{},
		Workdir:   tenement.MustTemplate(plain(d.dir)),
		Isolation: d.isolation,
		Egress:    tenement.EgressAllow,
		Listen:    tenement.ListenPort,
		Ready:     tenement.ReadyProbe,
		Timeouts: tenement.Timeouts{
			Idle: 300 * time.Second, Startup: 10 * time.Second, Request: 30 * time.Second,
			Drain: 10 * time.Second, Stop: 10 * time.Second,
		},
		Restart: tenement.RestartPolicy{Mode: tenement.RestartOnFailure},
		Create:  tenement.CreateExplicit,
		Wake:    defaultWake(),
		Persist: true,
	}}
	said := d.walk(serviceKeys(), "service."+shorten(n.key), n)
	if _, ok := said["command"]; !ok {
		d.mistake(n.keyAt, `such as command = "python3 app.py"`, "service %s has no command", quote(n.key))
	}
	d.service.Command = append(d.service.program, d.service.args...)
	d.chooseWake(said)
	d.checkFreeze(said)
	d.checkIsolation(said)
	d.config.Services[n.key] = d.service.Service
}

// chooseWake fills in how long a request waits, or refuses what could never be met.
func (d *draft) chooseWake(said given) {
	t := &d.service.Timeouts
	switch wake := said["wake_timeout"]; {
	case t.Wake == 0:
		t.Wake = t.Startup + wakeSlack
	case t.Wake < t.Startup && !said.refused("startup_timeout"):
		d.mistake(wake.at, "a request that finds the instance asleep waits for its whole start",
			"wake_timeout is shorter than startup_timeout (%s)", t.Startup)
	}
}

// checkFreeze refuses what would never be frozen.
func (d *draft) checkFreeze(said given) {
	t := d.service.Timeouts
	if t.Idle > 0 && t.Freeze >= t.Idle && !said.refused("idle_timeout") {
		d.mistake(said["freeze_timeout"].at, "an instance is frozen on its way to sleep: shorten this, or raise idle_timeout (0 = it stays frozen)",
			"freeze_timeout is not shorter than idle_timeout (%s)", t.Idle)
	}
}

// finishServices fills in what the services have from [settings], which may
// stand below them.
func (d *draft) finishServices() {
	for name, service := range d.config.Services {
		mode := service.Restart.Mode
		service.Restart = d.restart
		service.Restart.Mode = mode
		service.Health.Interval = d.interval
		service.DataDir = filepath.Join(d.config.DataDir, name)
	}
}

// DefaultIsolation is that of a service that names none: the strongest that needs nothing
// but Linux and root.
func DefaultIsolation() tenement.Isolation {
	if runtime.GOOS == "linux" && os.Geteuid() == 0 {
		return tenement.IsolationNamespace
	}
	return tenement.IsolationProcess
}

// checkIsolation refuses what nobody would enforce, and what cannot be passed on.
func (d *draft) checkIsolation(said given) {
	s := d.service
	if s.Isolation == tenement.IsolationProcess && s.Egress == tenement.EgressDeny {
		d.mistake(said["egress"].at, `set isolation = "namespace" or "sandbox"`, "egress = \"deny\" is not possible with isolation = \"process\"")
	}
	if s.Isolation == tenement.IsolationSandbox && s.Ready == tenement.ReadyNotify {
		d.mistake(said["ready"].at, `leave it away, or set isolation = "namespace"`, "ready = \"notify\" is not possible with isolation = \"sandbox\": nothing of this machine can be reached from a sandbox")
	}
	if s.Isolation == tenement.IsolationSandbox && s.Listen == tenement.ListenFD {
		d.mistake(said["listen"].at, `let the program listen on PORT, or set isolation = "namespace"`, "listen = \"fd\" is not possible with isolation = \"sandbox\": a socket of this machine's kernel is of no use to gVisor's")
	}
}

func (d *draft) readPaths(key string, v value, into *[]string) {
	for _, item := range v.items {
		path, ok := d.accept(directory, "an element of "+key, item)
		if ok && d.absolute(path.text) == "/" {
			d.mistake(path.at, "name the directories and files that it needs", "%s = \"/\" would show the whole machine", key)
			continue
		}
		if ok {
			*into = append(*into, d.absolute(path.text))
		}
	}
}

func (d *draft) readArgs(v value) {
	for _, item := range v.items {
		if arg, ok := d.template(anyString, "an element of args", item); ok {
			d.service.args = append(d.service.args, arg)
		}
	}
}

// template reads n as a kind of text with variables, or notes why it cannot be.
func (d *draft) template(k kind, label string, n *node) (tenement.Template, bool) {
	v, ok := d.accept(k, label, n)
	if !ok {
		return tenement.Template{}, false
	}
	return d.parseTemplate(v.at, label, v.text)
}

func (d *draft) parseTemplate(at int, label, text string) (tenement.Template, bool) {
	template, err := tenement.ParseTemplate(text)
	if err != nil {
		d.fault(at, label+": ", err)
	}
	return template, err == nil
}

// readWorkdir makes the directory absolute unless it begins with {data_dir},
// which is.
func (d *draft) readWorkdir(v value) {
	workdir, ok := d.parseTemplate(v.at, "workdir", v.text)
	if !ok {
		return
	}
	if !filepath.IsAbs(workdir.Expand(anyVars)) {
		workdir = tenement.MustTemplate(filepath.Join(plain(d.dir), v.text))
	}
	d.service.Workdir = workdir
}

// anyVars has values of the same form as those of a start: {data_dir} alone is a
// path.
var anyVars = tenement.Vars{
	tenement.VarName: "name", tenement.VarID: "id", tenement.VarPort: "1", tenement.VarDataDir: "/data",
}

// plain is a template that expands to s.
func plain(s string) string { return strings.ReplaceAll(s, "{", "{{") }

func (d *draft) readEnv(v value) {
	for _, item := range v.items {
		if !d.checkVariable(item) {
			continue
		}
		d.readVariable(item)
	}
}

func (d *draft) readVariable(n *node) {
	v, ok := d.accept(scalar, shorten(n.key), n)
	if !ok {
		return
	}
	// A number is written as it is, so that 1.10 does not become 1.1; TOML's
	// underscores are its own.
	text := strings.ReplaceAll(v.raw, "_", "")
	if v.kind == unstable.String {
		text = v.text
	}
	if template, ok := d.parseTemplate(v.at, shorten(n.key), text); ok {
		d.service.Env[n.key] = template
	}
}

// checkVariable accepts the portable names (POSIX.1-2024, XBD 8.1, and lower
// case) that are not the daemon's own.
func (d *draft) checkVariable(n *node) bool {
	switch {
	case !isVariable(n.key):
		d.mistake(n.keyAt, "letters, digits and _, not beginning with a digit", "%s is not a valid name of an environment variable", quote(n.key))
	case n.key == "PORT", n.key == "NOTIFY_SOCKET",
		slices.Contains([]string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}, n.key), strings.HasPrefix(n.key, "TENEMENT_"):
		d.mistake(n.keyAt, "choose another name; its value may be a template such as {port}", "%s is set by the daemon", n.key)
	default:
		return true
	}
	return false
}

func isVariable(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if digit := '0' <= c && c <= '9'; !letter && (!digit || i == 0) {
			return false
		}
	}
	return s != ""
}
