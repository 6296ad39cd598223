// Package route finds the instance or the weighted service that a host and a path mean.
package route

import (
	"slices"
	"strings"

	"tenement"
)

// maxHost is the longest host name (RFC 1035 §2.3.4, written without the trailing dot).
const maxHost = 253

// Config is what a [Table] is made of. Names are compared in lower case; what is
// not a service of Services is never routed to.
type Config struct {
	Domain    string            // "example.com"; "" claims no host but AdminHost
	AdminHost string            // where dashboard and management API answer, any host; "" = nowhere
	Services  []string          // the names of all services
	Default   string            // service of the domain itself and of <id>.<domain>; "" = none
	Subdomain map[string]string // label below the domain to service
	Path      map[string]string // path prefix on the domain itself to service, such as "/api" to "api"
}

// Kind says what a host stands for.
type Kind uint8

// The kinds. The zero value is nothing we know: answer 404.
const (
	None     Kind = iota
	Admin         // dashboard and management API
	Instance      // one instance
	Service       // an instance of the service, chosen by weight
)

// Target is what a host and a path mean. ID is zero for None and Admin; for
// Service only ID.Service is set. For Instance, nothing says that it exists.
type Target struct {
	Kind Kind
	ID   tenement.InstanceID
}

// Table maps hosts and paths to targets. It is immutable and safe for concurrent use.
type Table struct {
	domain    string
	suffix    string // "." + domain
	adminHost string
	services  map[string]struct{}
	fallback  string // Config.Default
	subdomain map[string]string
	prefixes  []prefix // longest first
}

type prefix struct {
	path    string // without a trailing slash; "" matches every path
	service string
}

// New makes the table. It does not check: a mistake in c, such as a service that
// does not exist, leads nowhere. Checking is the configuration's business.
func New(c Config) *Table {
	t := &Table{services: make(map[string]struct{}), subdomain: make(map[string]string)}
	t.domain, _ = normalize(c.Domain)
	t.suffix = "." + t.domain
	t.adminHost, _ = normalize(c.AdminHost)
	for _, name := range c.Services {
		if tenement.CheckServiceName(name) == nil {
			t.services[name] = struct{}{}
		}
	}
	if t.has(c.Default) {
		t.fallback = c.Default
	}
	for label, service := range c.Subdomain {
		if t.has(service) {
			t.subdomain[lower(label)] = service
		}
	}
	for path, service := range c.Path {
		if t.has(service) {
			t.prefixes = append(t.prefixes, prefix{strings.TrimRight(path, "/"), service})
		}
	}
	slices.SortFunc(t.prefixes, func(a, b prefix) int {
		if len(a.path) != len(b.path) {
			return len(b.path) - len(a.path)
		}
		return strings.Compare(a.path, b.path)
	})
	return t
}

// Lookup finds what host, as the client sent it, and the undecoded path mean. It
// has no side effect and allocates only to lower a host's case.
func (t *Table) Lookup(host, path string) Target {
	host, ok := normalize(host)
	if !ok {
		return Target{}
	}
	if host == t.domain {
		return t.lookupDomain(path)
	}
	if host == t.adminHost {
		return Target{Kind: Admin}
	}
	sub, below := strings.CutSuffix(host, t.suffix)
	if !below || t.domain == "" {
		return Target{}
	}
	name, service, deep := strings.Cut(sub, ".")
	if deep {
		return t.instance(service, name)
	}
	return t.lookupLabel(sub)
}

func (t *Table) lookupDomain(path string) Target {
	for _, p := range t.prefixes {
		if p.matches(path) {
			return shared(p.service)
		}
	}
	switch {
	case t.adminHost == t.domain:
		return Target{Kind: Admin}
	case t.fallback != "":
		return shared(t.fallback)
	}
	return Target{}
}

func (t *Table) lookupLabel(label string) Target {
	if service, ok := t.subdomain[label]; ok {
		return shared(service)
	}
	if t.has(label) {
		return shared(label)
	}
	return t.instance(t.fallback, label)
}

// instance refuses what is not a service: a deeper name's remainder, with its
// dots, is none either.
func (t *Table) instance(service, name string) Target {
	if !t.has(service) || !tenement.ValidInstanceName(name) {
		return Target{}
	}
	return Target{Kind: Instance, ID: tenement.InstanceID{Service: service, Name: name}}
}

func (t *Table) has(service string) bool {
	_, ok := t.services[service]
	return ok
}

func shared(service string) Target {
	return Target{Kind: Service, ID: tenement.InstanceID{Service: service}}
}

// matches holds at segment boundaries: "/api" matches "/api" and "/api/x", not "/apix".
func (p prefix) matches(path string) bool {
	rest, ok := strings.CutPrefix(path, p.path)
	return ok && (rest == "" || rest[0] == '/')
}

// normalize takes port and trailing dot off and lowers the case. It refuses what
// cannot be a host of ours: an IPv6 address, a malformed port, an empty or an
// overlong name.
func normalize(host string) (string, bool) {
	name, port, _ := strings.Cut(host, ":")
	if strings.Trim(port, "0123456789") != "" {
		return "", false
	}
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > maxHost {
		return "", false
	}
	return lower(name), true
}

// lower is for ASCII only: by Unicode's rules "K" (the Kelvin sign) would become
// the letter k, and two different hosts one.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return lowerFrom(s, i)
		}
	}
	return s
}

func lowerFrom(s string, first int) string {
	b := []byte(s)
	for i := first; i < len(b); i++ {
		if 'A' <= b[i] && b[i] <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}
