package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"

	"tenement"
)

// draft is a configuration while its file is read: the values so far, and what
// is wrong so far. A mistake never ends the reading, so that all are found.
type draft struct {
	source   *source
	root     *node
	dir      string // of the file, absolute
	config   *Config
	mistakes Mistakes

	interval time.Duration          // between health checks, for every service
	restart  tenement.RestartPolicy // for every service, except its Mode
	service  *recipe                // the one being read

	isolation tenement.Isolation // of a service that names none

	settings  given
	routing   given
	instances *node // nil without that table
}

// given has what a section says, by key; nil for a value that was refused.
type given map[string]*node

// refused reports whether the key is there with a value that cannot be used.
// Nothing that follows from it should be complained about.
func (g given) refused(name string) bool {
	n, ok := g[name]
	return ok && n == nil
}

func newDraft(src *source, path string, root *node) *draft {
	dir := filepath.Dir(path)
	return &draft{
		source: src, root: root, dir: dir,
		config: &Config{
			Path:       path,
			DataDir:    "/var/lib/tenement",
			Domain:     "localhost",
			Listen:     "127.0.0.1:8080",
			MaxWaiting: 10_000,

			LogInstance:  16 * bytesPerMB,
			LogTotal:     1024 * bytesPerMB,
			LogRetention: 14 * 24 * time.Hour,

			Alerts: defaultAlerts(),

			Services: map[string]*tenement.Service{},
			Routing:  Routing{Subdomain: map[string]string{}, Path: map[string]string{}},
		},
		interval: 10 * time.Second,
		restart: tenement.RestartPolicy{
			Max: 3, Window: 300 * time.Second,
			BackoffBase: time.Second, BackoffMax: time.Minute,
		},
	}
}

// mistake notes what is wrong at a byte offset of the file.
func (d *draft) mistake(offset int, hint, format string, args ...any) {
	d.mistakes = append(d.mistakes, d.source.mistake(offset, fmt.Sprintf(format, args...), hint))
}

// fault notes an error of the vocabulary's own checks.
func (d *draft) fault(offset int, label string, err error) {
	hint := tenement.HintOf(err)
	var e *tenement.Error
	if errors.As(err, &e) && e.Err != nil {
		err = e.Err // without the operation: the place says more
	}
	d.mistake(offset, hint, "%s%s", label, err)
}

// absolute is a path of the file as it is from anywhere.
func (d *draft) absolute(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(d.dir, path)
}

func (d *draft) readFile() {
	said := d.walk(sections(), "", d.root)
	service := said["service"]
	switch {
	case said.refused("service"):
	case service == nil:
		d.mistake(0, noServiceHint, "there is no service")
	case len(service.items) == 0:
		d.mistake(service.keyAt, noServiceHint, "there is no service")
	}
}

const noServiceHint = "add a section [service.NAME] with a command; `ten init` writes an example"

// walk applies the rows of a section to its table; label is what messages call
// the section, empty for the file itself.
func (d *draft) walk(rows []key, label string, n *node) given {
	said := given{}
	for _, item := range n.items {
		i := slices.IndexFunc(rows, func(row key) bool { return row.name == item.key })
		switch {
		case i < 0:
			d.unknown(rows, label, item)
		case rows[i].apply == nil:
			d.mistake(item.keyAt, "remove it: nothing would act on it", "%s is not supported yet", item.key)
		default:
			said[item.key] = nil
			if v, ok := d.accept(rows[i].kind, item.key, item); ok {
				said[item.key] = item
				rows[i].apply(d, v)
			}
		}
	}
	return said
}

// accept reads n as a kind, or notes why it cannot be; label is what it is called.
func (d *draft) accept(k kind, label string, n *node) (value, bool) {
	v := value{node: n}
	if strings.Contains(n.text, "\x00") {
		d.mistake(n.at, "no path, argument or variable can carry it", "%s contains the character U+0000", label)
		return v, false
	}
	if !k.read(n, &v) {
		d.mistake(n.at, k.hint, "%s must be %s, not %s", label, k.what, n.shown())
		return v, false
	}
	return v, true
}

// unknown notes a key that the section does not have.
func (d *draft) unknown(rows []key, label string, item *node) {
	names := make([]string, len(rows))
	for i, row := range rows {
		names[i] = row.name
	}
	hint := didYouMean(item.key, names)
	if hint == "" {
		hint = belongsIn(item.key)
	}
	if label == "" {
		d.mistake(item.keyAt, hint, "unknown section or key %s", quote(item.key))
		return
	}
	d.mistake(item.keyAt, hint, "unknown key %s in [%s]", quote(item.key), label)
}

// override puts in what the command line says instead of the file.
func (d *draft) override(o Overrides) {
	flag := func(name, text string, k kind, set func(string)) {
		switch {
		case text == "":
		case k.read(&node{kind: unstable.String, text: text}, &value{}):
			set(text)
		default:
			d.mistakes = append(d.mistakes, Mistake{
				File: name, Message: "must be " + k.what + ", not " + quote(text), Hint: k.hint,
			})
		}
	}
	flag("--data-dir", o.DataDir, directory, func(s string) {
		d.config.DataDir = s
		// Without a working directory there is nothing better than the file's.
		if path, err := filepath.Abs(s); err == nil {
			d.config.DataDir = path
		}
	})
	flag("--domain", o.Domain, domainName, func(s string) { d.config.Domain = s })
	flag("--listen", o.Listen, hostPort, func(s string) { d.config.Listen = s })
	flag("--admin-listen", o.AdminListen, hostPort, func(s string) { d.config.AdminListen = s })
}

// finish makes the checks that need more than one value, and what depends on
// other values.
func (d *draft) finish() {
	d.checkBackoff()
	d.chooseAdminHost()
	d.finishServices()
	d.readInstances()
	d.checkAwake()
	d.readRouting()
}

func (d *draft) checkBackoff() {
	base, most := d.settings["backoff_base_ms"], d.settings["backoff_max_ms"]
	switch {
	case d.restart.BackoffBase <= d.restart.BackoffMax:
	case d.settings.refused("backoff_base_ms"), d.settings.refused("backoff_max_ms"):
	case most != nil:
		d.mistake(most.at, "", "backoff_max_ms is less than backoff_base_ms (%d)", d.restart.BackoffBase.Milliseconds())
	case base != nil:
		d.mistake(base.at, "", "backoff_base_ms is more than backoff_max_ms (%d)", d.restart.BackoffMax.Milliseconds())
	}
}

// checkAwake: what is kept awake must be allowed to be.
func (d *draft) checkAwake() {
	most, kept := d.config.MaxAwake, len(d.config.Instances)
	if most > 0 && kept > most {
		d.mistake(d.settings["max_awake"].at, "raise it, with some places for those who wake on request, or shorten [instances]",
			"max_awake = %d is less than the %d instances that are to be kept awake", most, kept)
	}
}

// stderrWord stands for the daemon's own standard error where a file could be named.
const stderrWord = "stderr"

func (d *draft) readAccessLog(v value) {
	if d.config.AccessLog = v.text; v.text != stderrWord {
		d.config.AccessLog = d.absolute(v.text)
	}
}

func (d *draft) readProxies(v value) {
	for _, item := range v.items {
		if v, ok := d.accept(network, "an element of trusted_proxies", item); ok {
			prefix, _ := readNetwork(v.text) // accept has read it
			d.config.TrustedProxies = append(d.config.TrustedProxies, prefix)
		}
	}
}
