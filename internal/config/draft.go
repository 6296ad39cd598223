package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"tenement"
)

// draft is a configuration in the making.
type draft struct {
	src      *source
	root     *node
	dir      string // of the file: what relative paths in it are relative to
	config   *Config
	mistakes Mistakes

	// Tables that can be judged only when all of the file is known; nil when absent.
	settings, instances, routing *node
	services                     map[string]*node

	interval time.Duration
	restart  tenement.RestartPolicy

	service *tenement.Service   // the one being read
	args    []tenement.Template // its args
}

func newDraft(src *source, path string, root *node) *draft {
	dir := filepath.Dir(path)
	return &draft{
		src: src, root: root, dir: dir,
		services: make(map[string]*node),
		config: &Config{
			Path: path, DataDir: filepath.Join(dir, "data"), Domain: "localhost", Listen: "127.0.0.1:8080",
			MaxWaiting: 10_000, Services: make(map[string]*tenement.Service),
			Routing: Routing{Subdomain: make(map[string]string), Path: make(map[string]string)},
		},
		interval: 10 * time.Second,
		restart: tenement.RestartPolicy{
			Max: 3, Window: 5 * time.Minute, BackoffBase: time.Second, BackoffMax: time.Minute,
		},
	}
}

// wrong notes a mistake at a byte offset of the file.
func (d *draft) wrong(offset int, hint, format string, args ...any) {
	d.mistakes = append(d.mistakes, d.src.mistake(offset, fmt.Sprintf(format, args...), hint))
}

// wrongCode notes err, which a check of the vocabulary returned.
func (d *draft) wrongCode(offset int, err error) {
	message := err.Error()
	if e, ok := err.(*tenement.Error); ok && e.Err != nil { //nolint:errorlint // the outermost has the hint
		message = e.Err.Error()
	}
	d.wrong(offset, tenement.HintOf(err), "%s", message)
}

func (d *draft) readFile() { d.walk(inFile, "", d.root) }

// walk reads a table whose keys the schema knows.
func (d *draft) walk(section, title string, n *node) *node {
	rows := rowsOf(section)
	for _, item := range n.items {
		index := slices.IndexFunc(rows, func(k key) bool { return k.name == item.key })
		if index < 0 {
			d.unknownKey(rows, title, item)
			continue
		}
		row := rows[index]
		if row.apply == nil {
			d.wrong(item.keyAt, "leave it out until then", "%s is not supported yet", item.key)
			continue
		}
		if v := (value{node: item}); d.fits(row.kind, &v) {
			row.apply(d, v)
		}
	}
	return n
}

// fits reads v as kind says, or notes that it cannot.
func (d *draft) fits(k kind, v *value) bool {
	if k.read(v.node, v) {
		return true
	}
	d.wrong(v.at, k.hint, "%s must be %s, not %s", v.key, k.what, v.shown())
	return false
}

func (d *draft) unknownKey(rows []key, title string, item *node) {
	names := make([]string, len(rows))
	for i, row := range rows {
		names[i] = row.name
	}
	where := "the file"
	if title != "" {
		where = "[" + title + "]"
	}
	hint := ""
	if best := nearest(item.key, names); best != "" {
		hint = "did you mean " + best + "?"
	}
	d.wrong(item.keyAt, hint, "unknown key %q in %s", item.key, where)
}

// absolute resolves a path of the file.
func (d *draft) absolute(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(d.dir, path)
}

// override puts the flags in. A wrong one is a mistake without a line.
func (d *draft) override(o Overrides) {
	flag := func(name, text string, k kind) bool {
		v := value{node: &node{kind: stringNode, text: text}}
		if text == "" || k.read(v.node, &v) {
			return text != ""
		}
		d.mistakes = append(d.mistakes, Mistake{File: name, Message: fmt.Sprintf("%q is not %s", text, k.what), Hint: k.hint})
		return false
	}
	if flag("--domain", o.Domain, hostName) {
		d.config.Domain = o.Domain
	}
	if flag("--listen", o.Listen, hostPort) {
		d.config.Listen = o.Listen
	}
	if o.DataDir == "" {
		return
	}
	path, err := filepath.Abs(o.DataDir)
	if err != nil {
		d.mistakes = append(d.mistakes, Mistake{File: "--data-dir", Message: err.Error()})
		return
	}
	d.config.DataDir = path
}

// finish fills in what follows from the file as a whole and checks what only then
// can be checked.
func (d *draft) finish() {
	if len(d.services) == 0 {
		d.wrong(len(d.src.text), "add one:  [service.api]  with  command = \"…\"", "there is no service")
	}
	if d.restart.BackoffMax < d.restart.BackoffBase {
		d.wrong(d.placeOf(d.settings, "backoff_max_ms", "backoff_base_ms"), "",
			"backoff_max_ms (%d) is less than backoff_base_ms (%d)",
			d.restart.BackoffMax.Milliseconds(), d.restart.BackoffBase.Milliseconds())
	}
	for _, name := range slices.Sorted(maps.Keys(d.config.Services)) {
		d.finishService(d.config.Services[name], d.services[name])
	}
	d.readInstances()
	d.readRouting()
	d.finishAdminHost()
}

// placeOf is where the first of names stands in table that does.
func (d *draft) placeOf(table *node, names ...string) int {
	if table == nil {
		return 0
	}
	for _, name := range names {
		if item := table.index[name]; item != nil {
			return item.keyAt
		}
	}
	return table.at
}

func (d *draft) finishService(s *tenement.Service, n *node) {
	mode := s.Restart.Mode
	s.Restart = d.restart
	s.Restart.Mode = mode
	s.Health.Interval = d.interval
	s.DataDir = filepath.Join(d.config.DataDir, s.Name)
	if n.index["command"] == nil {
		d.wrong(n.at, `such as command = "python3 app.py"`, "[service.%s] has no command", s.Name)
	}
	if s.Timeouts.Wake == 0 {
		s.Timeouts.Wake = s.Timeouts.Startup + wakeMargin
	} else if s.Timeouts.Wake < s.Timeouts.Startup {
		d.wrong(d.placeOf(n, "wake_timeout"), "a request would give up before the start it waits for may",
			"wake_timeout (%s) is less than startup_timeout (%s)", s.Timeouts.Wake, s.Timeouts.Startup)
	}
}
