package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"tenement"
)

// Settings is what one instance has of its own, over its service's.
type Settings struct {
	// Values are by the key of [service.NAME]: a number, or a text where the file takes one.
	Values  map[string]any
	Env     map[string]any // as [service.NAME.env]: texts, numbers, true and false
	Secrets []string       // the names of further variables, whose values are kept elsewhere

	// Cron is as [service.NAME.cron]. A line comes in the place of the service's of that
	// name; false does, too, and is none.
	Cron map[string]any
}

// settingKeys are those of a service that one instance may have otherwise.
var settingKeys = []string{
	"memory_limit_mb", "cpu_limit", "cpu_shares", "pids_limit", "open_files_limit", "storage_quota_mb",
	"freeze_timeout", "idle_timeout", "startup_timeout", "request_timeout", "stop_timeout",
}

// Bounds of an instance's variables. The kernel has them, too, for all together, and would
// refuse the start (execve(2), "Limits on size of arguments and environment").
const (
	maxVariables = 200
	maxVariable  = 64 << 10 // bytes
)

// Apply is service as an instance with s has it; service stays as it is. What the file
// could not say either is refused, with the same words: CodeInvalid, all mistakes at once.
func (s Settings) Apply(service *tenement.Service) (*tenement.Service, error) {
	own := *service
	own.Env = maps.Clone(service.Env)
	if own.Env == nil {
		own.Env = map[string]tenement.Template{}
	}
	d := &draft{source: newSource("", nil), service: &recipe{Service: &own}}
	said := d.walk(settingRows(), "settings", s.values(d))
	d.checkOwnFreeze(said)
	d.checkOwnStartup(said)
	d.readEnv(value{node: nodes(s.Env)})
	d.checkSecrets(s)
	return &own, d.settingsError(service.Name)
}

// CronLines are those of a service as an instance with s has them. What is refused is as
// with Apply, and left out.
func (s Settings) CronLines(service *tenement.Service) ([]tenement.CronLine, error) {
	lines := slices.DeleteFunc(slices.Clone(service.Cron), func(c tenement.CronLine) bool {
		_, own := s.Cron[c.Name]
		return own
	})
	own := nodes(s.Cron)
	own.items = slices.DeleteFunc(own.items, func(n *node) bool { return n.kind == unstable.Bool && n.raw == "false" })
	d := &draft{source: newSource("", nil)}
	lines = append(lines, d.cronLines("cron", own)...)
	for _, n := range own.items {
		if n.index["spread"] != nil {
			d.mistake(0, "leave it out", "cron line %s has a spread, and is of one instance, which is asked on time", quote(n.key))
		}
	}
	return slices.DeleteFunc(lines, func(c tenement.CronLine) bool { return c.Times == nil }), d.settingsError(service.Name)
}

func settingRows() []key {
	return slices.DeleteFunc(rowsOf(inService), func(row key) bool { return !slices.Contains(settingKeys, row.name) })
}

// values leaves out, and notes, what is no setting.
func (s Settings) values(d *draft) *node {
	table := nodes(s.Values)
	table.items = slices.DeleteFunc(table.items, func(n *node) bool {
		known := slices.Contains(settingKeys, n.key)
		if !known {
			hint := didYouMean(n.key, settingKeys)
			if hint == "" {
				hint = "those of an instance are " + strings.Join(settingKeys, ", ")
			}
			d.mistake(0, hint, "%s is not a setting of an instance", quote(n.key))
		}
		return !known
	})
	return table
}

// nodes is a table as if it had been read, ordered by key.
func nodes(values map[string]any) *node {
	table := newTable("", 0)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		n := nodeOf(values[name])
		n.key = name
		table.add(n)
	}
	return table
}

func nodeOf(v any) *node {
	switch v := v.(type) {
	case string:
		return &node{kind: unstable.String, raw: strconv.Quote(v), text: v}
	case bool:
		return &node{kind: unstable.Bool, raw: strconv.FormatBool(v)}
	case float64: // all numbers of JSON
		kind := unstable.Float
		raw := strconv.FormatFloat(v, 'f', -1, 64)
		if !strings.Contains(raw, ".") {
			kind = unstable.Integer
		}
		return &node{kind: kind, raw: raw}
	case []any:
		return &node{kind: unstable.Array}
	case map[string]any:
		return nodes(v)
	}
	return newTable("", 0)
}

// checkOwnFreeze lets the instance's own value win: one that sleeps before its service
// would have it frozen is never frozen.
func (d *draft) checkOwnFreeze(said given) {
	t := &d.service.Timeouts
	switch own := said["freeze_timeout"]; {
	case t.Idle == 0 || t.Freeze < t.Idle || said.refused("freeze_timeout") || said.refused("idle_timeout"):
	case own == nil:
		t.Freeze = 0
	default:
		d.checkFreeze(said)
	}
}

// checkOwnStartup: the wait of requests is the service's, because nothing is known of an
// instance that sleeps.
func (d *draft) checkOwnStartup(said given) {
	t := d.service.Timeouts
	if said["startup_timeout"] != nil && t.Startup > t.Wake {
		d.mistake(0, "raise wake_timeout of [service."+d.service.Name+"], or shorten this",
			"startup_timeout is longer than its service's wake_timeout (%s): requests would give up before", t.Wake)
	}
}

func (d *draft) checkSecrets(s Settings) {
	for _, name := range s.Secrets {
		if _, twice := s.Env[name]; d.checkVariable(&node{key: name}) && twice {
			d.mistake(0, "take one of them away first: ten set service:id --unset "+name, "%s is a variable and a secret", name)
		}
	}
	if n := len(s.Env) + len(s.Secrets); n > maxVariables {
		d.mistake(0, "", "%d variables are more than an instance may have, %d", n, maxVariables)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		if text, ok := s.Env[name].(string); ok && len(text) > maxVariable {
			d.mistake(0, "", "%s is longer than %d bytes", shorten(name), maxVariable)
		}
	}
}

// CheckSecret accepts what a variable's value can be. Its error, CodeInvalid, does not
// tell the value.
func CheckSecret(name, text string) error {
	var err error
	switch {
	case text == "":
		err = fmt.Errorf("%s is empty", shorten(name))
	case strings.Contains(text, "\x00"):
		err = fmt.Errorf("%s contains the character U+0000", shorten(name))
	case len(text) > maxVariable:
		err = fmt.Errorf("%s is longer than %d bytes", shorten(name), maxVariable)
	default:
		return nil
	}
	return &tenement.Error{Code: tenement.CodeInvalid, Op: "set a secret", Err: err}
}

func (d *draft) settingsError(service string) error {
	if len(d.mistakes) == 0 {
		return nil
	}
	messages := make([]string, len(d.mistakes))
	for i, m := range d.mistakes {
		messages[i] = m.Message
	}
	e := &tenement.Error{Code: tenement.CodeInvalid, Op: "read settings of an instance of " + service, Err: errors.New(strings.Join(messages, "; "))}
	if len(d.mistakes) == 1 {
		e.Hint = d.mistakes[0].Hint
	}
	return e
}
