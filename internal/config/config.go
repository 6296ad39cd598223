// Package config turns one TOML file into validated values, or into the list of
// every mistake in it with its line.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tenement"
)

// maxFileBytes bounds what [Load] reads: far above any real file, far below
// what a wrong path such as a log or a device could hold.
const maxFileBytes = 256 << 10

// Config is what one file says, with every default filled in. It is not changed
// after it was made, so it may be shared between goroutines.
type Config struct {
	Path    string // of the file, absolute
	DataDir string // absolute; not necessarily there yet
	Domain  string // lower case, without port
	Listen  string // host:port; port 0 lets the kernel choose

	// AdminHost is where the dashboard and the management API answer, in lower
	// case and without port. Where it equals Domain it has the domain to itself
	// but for Routing.Path. It is empty when Routing.Default took the domain: the
	// API then answers on the socket only.
	AdminHost string

	// AdminListen is where the management API answers besides, and nothing else does:
	// host:port, or "" for nowhere.
	AdminListen string

	MaxStarting int // starts at once; 0 = the number of cores, and one
	MaxWaiting  int // requests held by wakes, in all; > 0
	MaxAwake    int // instances that have a process; 0 = no bound
	FirstUID    int // of the million that instances' own uids are taken from; 0 = the registry chooses

	MemoryReserve tenement.Bytes // to be available before anything is started; 0 = that is not asked

	LogInstance  tenement.Bytes // of what one instance printed; > 0
	LogTotal     tenement.Bytes // on the disk, of all instances; > 0
	LogRetention time.Duration  // > 0

	// AccessLog is a file, absolute, that gets a line for each request; or "stderr", or "" for none.
	AccessLog string

	Tracing Tracing
	Alerts  Alerts

	// TrustedProxies may say on whose behalf they ask; of everybody else X-Forwarded-*
	// and Forwarded are dropped.
	TrustedProxies []netip.Prefix

	Services  map[string]*tenement.Service // by name
	Instances []tenement.InstanceID        // kept awake from the start, in the order of the file
	Routing   Routing
}

// Tracing says where traces of requests go. The zero value is nowhere.
type Tracing struct {
	Endpoint string  // of a collector: http or https, without a "/" at its end
	Sample   float64 // the part of the traces that begin here which is recorded: 0 to 1
}

// Routing sends hosts and paths of the domain to services. Every value is the
// name of a service that exists.
type Routing struct {
	Default   string            // for the domain itself, and for <id>.<domain>; "" = none
	Subdomain map[string]string // by label: <label>.<domain>; never the name of a service
	Path      map[string]string // by path prefix on the domain: begins with "/", does not end with it
}

// Overrides replace what the file says; an empty field replaces nothing. They
// come in before validation because other defaults follow from them.
type Overrides struct {
	DataDir string // relative to the working directory, as on any command line
	Domain  string
	Listen  string

	AdminListen string

	// User says that the daemon is an ordinary user's, though it is root where it is.
	User bool
}

// Load reads the file at path. A file that is not there is CodeNotFound, one
// that may not be read CodeForbidden, and one with mistakes CodeInvalid: then
// errors.As finds [Mistakes] in the error.
func Load(path string, o Overrides) (*Config, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, text, o)
}

// Parse is [Load] for a text that was read before. The name is what mistakes are
// reported under; relative paths in the text are relative to its directory.
// Parse touches no file. Every error has CodeInvalid and wraps [Mistakes].
// Load and Parse may be called concurrently.
func Parse(name string, text []byte, o Overrides) (*Config, error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, invalid(fmt.Errorf("find the directory of %s: %w", name, err), "")
	}
	text = bytes.TrimPrefix(text, []byte("\xEF\xBB\xBF")) // which Windows editors put before UTF-8
	src := newSource(name, text)
	root, err := parseDocument(text)
	if err != nil {
		return nil, invalid(Mistakes{src.syntaxMistake(err)}, "")
	}
	d := newDraft(src, path, root)
	d.isolation = DefaultIsolation()
	if o.User {
		d.isolation = tenement.IsolationProcess
	}
	d.readFile()
	d.override(o)
	d.finish()
	if len(d.mistakes) > 0 {
		d.mistakes.sort()
		return nil, invalid(d.mistakes, "")
	}
	return d.config, nil
}

const opRead = "read configuration"

func invalid(err error, hint string) error {
	return &tenement.Error{Code: tenement.CodeInvalid, Op: opRead, Err: err, Hint: hint}
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fileError(err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, fileError(err)
	}
	if len(text) > maxFileBytes {
		return nil, invalid(fmt.Errorf("%s is larger than %d bytes", path, maxFileBytes), "is this the right file?")
	}
	return text, nil
}

func fileError(err error) error {
	e := &tenement.Error{Code: tenement.CodeInvalid, Op: opRead, Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Code = tenement.CodeNotFound
		e.Hint = "`ten init` writes a first one; --config names one that is elsewhere"
	case errors.Is(err, fs.ErrPermission):
		e.Code = tenement.CodeForbidden
		e.Hint = "the daemon's own user must be able to read it"
	}
	return e
}

// Example is a first file for a service called name that runs command, with the keys
// most people want next in comments. Name and command are written as they are: the
// caller checks the result with [Parse].
func Example(name, command string) string {
	return fmt.Sprintf(`# tenement.toml: one process and one data directory per customer.
# Every key and its default: docs/configuration.md. Check it with: ten config check

[settings]
# data_dir = "/var/lib/tenement"  # tenants' data in <data_dir>/<service>/<id>
# domain = "example.com"        # alice's %[1]s is then alice.%[1]s.example.com
# listen = "127.0.0.1:8080"

[service.%[1]s]
command = %[2]s
# health = "/health"            # answered with 2xx when well
# idle_timeout = 300            # seconds without a request before it sleeps; 0 = never
# startup_timeout = 10

[service.%[1]s.env]
DATA_DIR = "{data_dir}/{id}"

# [instances]
# %[1]s = ["prod"]              # registered and kept awake; others: ten spawn %[1]s:alice
`, name, tomlString(command))
}

// tomlString writes s as a basic string of TOML.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range []byte(s) { // byte by byte: what is not UTF-8 stays so, and is refused when it is read
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteByte(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", r)
		default:
			b.WriteByte(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
