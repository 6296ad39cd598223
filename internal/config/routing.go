package config

import (
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"tenement"
)

func (d *draft) readInstances() {
	if d.instances == nil {
		return
	}
	for _, item := range d.instances.items {
		if !d.serviceExists(item, item.keyAt, item.key) {
			continue
		}
		if v := (value{node: item}); !d.fits(stringArray, &v) {
			continue
		}
		for _, name := range item.items {
			id := tenement.InstanceID{Service: item.key, Name: name.text}
			switch err := tenement.CheckInstanceName(name.text); {
			case err != nil:
				d.wrongCode(name.at, err)
			case slices.Contains(d.config.Instances, id):
				d.wrong(name.at, "", "%s is listed twice", id)
			default:
				d.config.Instances = append(d.config.Instances, id)
			}
		}
	}
}

func (d *draft) readRouting() {
	if d.routing == nil {
		return
	}
	r := &d.config.Routing
	if n := d.routing.index["default"]; n != nil && n.kind == unstable.String && n.text != "" && d.serviceExists(n, n.at, n.text) {
		r.Default = n.text
	}
	d.readTargets("subdomain", func(item *node) {
		switch {
		case tenement.CheckServiceName(item.key) != nil:
			d.wrongCode(item.keyAt, tenement.CheckServiceName(item.key))
		case d.config.Services[item.key] != nil:
			d.wrong(item.keyAt, "that host is the service's own already", "subdomain %q is the name of a service", item.key)
		default:
			r.Subdomain[item.key] = item.text
		}
	})
	d.readTargets("path", func(item *node) {
		path := strings.TrimRight(item.key, "/")
		if !isRoutePath(item.key) {
			d.wrong(item.keyAt, `such as "/api"`, "%q is not a path to route by", item.key)
			return
		}
		if _, twice := r.Path[path]; twice {
			d.wrong(item.keyAt, "", "path %q is routed twice", item.key)
			return
		}
		r.Path[path] = item.text
	})
}

// readTargets reads a table of [routing] whose values are services.
func (d *draft) readTargets(name string, accept func(item *node)) {
	n := d.routing.index[name]
	if n == nil || n.kind != unstable.Table {
		return // noted already if it is something else
	}
	for _, item := range n.items {
		if v := (value{node: item}); d.fits(someString, &v) && d.serviceExists(item, item.at, item.text) {
			accept(item)
		}
	}
}

func isRoutePath(s string) bool {
	return isRequestPath(s) && !strings.ContainsAny(s, "?%") && !strings.Contains(s, "//") &&
		!slices.ContainsFunc(strings.Split(s, "/"), func(part string) bool { return part == ".." || part == "." })
}

// ours are the paths of the management API on the host that it answers at.
var ours = []string{"/api", "/health", "/metrics"}

// finishAdminHost gives the management API a host, and keeps tenants away from it.
func (d *draft) finishAdminHost() {
	c := d.config
	if c.AdminHost == "" && c.Routing.Default == "" {
		c.AdminHost = c.Domain
	}
	if below, ok := strings.CutSuffix(c.AdminHost, "."+c.Domain); ok {
		labels := strings.Split(below, ".")
		name := labels[len(labels)-1]
		_, subdomain := c.Routing.Subdomain[name]
		if c.Services[name] != nil && len(labels) <= 2 || subdomain && len(labels) == 1 {
			d.wrong(d.placeOf(d.settings, "admin_host"), "choose a name that no service or subdomain has",
				"admin_host %s is a host of tenants already", c.AdminHost)
		}
	}
	if c.AdminHost != c.Domain || d.routing == nil || d.routing.index["path"] == nil {
		return
	}
	for _, item := range d.routing.index["path"].items {
		path := strings.TrimRight(item.key, "/")
		for _, own := range ours {
			if path == own || strings.HasPrefix(path, own+"/") || path == "" {
				d.wrong(item.keyAt, "give the API a host of its own: admin_host in [settings]",
					"path %q of %s belongs to the management API", item.key, c.Domain)
				break
			}
		}
	}
}
