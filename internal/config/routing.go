package config

import (
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"tenement"
)

// chooseAdminHost fills in where the management API answers, and refuses a host
// that belongs to a service.
func (d *draft) chooseAdminHost() {
	c := d.config
	admin, wrote := d.settings["admin_host"]
	if !wrote {
		if _, taken := d.routing["default"]; !taken {
			c.AdminHost = c.Domain
		}
		return
	}
	if admin == nil {
		return
	}
	for _, service := range d.services() {
		if host := service.key + "." + c.Domain; c.AdminHost == host || strings.HasSuffix(c.AdminHost, "."+host) {
			d.mistake(admin.at, "instances of the service answer there; take another name",
				"admin_host belongs to the service %s", quote(service.key))
		}
	}
}

// services is what the file defines, right or wrong.
func (d *draft) services() []*node {
	if service := d.root.index["service"]; service != nil && service.kind == unstable.Table {
		return service.items
	}
	return nil
}

// defined reports whether the file has a service of this name, right or wrong.
func (d *draft) defined(name string) bool {
	service := d.root.index["service"]
	return service != nil && service.index[name] != nil
}

// refer checks that a name in the file is that of a service.
func (d *draft) refer(at int, name string) bool {
	if d.defined(name) {
		return true
	}
	var names []string
	for _, service := range d.services() {
		names = append(names, service.key)
	}
	hint := didYouMean(name, names)
	if hint == "" && len(names) > 0 {
		hint = "the services are " + shorten(strings.Join(names, ", "))
	}
	d.mistake(at, hint, "there is no service %s", quote(name))
	return false
}

func (d *draft) readInstances() {
	if d.instances == nil {
		return
	}
	seen := map[tenement.InstanceID]bool{}
	for _, list := range d.instances.items {
		known := d.refer(list.keyAt, list.key)
		v, ok := d.accept(array, shorten(list.key), list)
		if !ok {
			continue
		}
		for _, item := range v.items {
			if id, ok := d.readInstance(seen, list.key, item); ok && known {
				d.config.Instances = append(d.config.Instances, id)
			}
		}
	}
}

func (d *draft) readInstance(seen map[tenement.InstanceID]bool, service string, n *node) (tenement.InstanceID, bool) {
	id := tenement.InstanceID{Service: service, Name: n.text}
	if _, ok := d.accept(anyString, "an instance", n); !ok {
		return id, false
	}
	if err := tenement.CheckInstanceName(id.Name); err != nil {
		d.fault(n.at, "", err)
		return id, false
	}
	if seen[id] {
		d.mistake(n.at, "", "%s is there twice", id)
	}
	seen[id] = true
	return id, true
}

func (d *draft) readRouting() {
	c := d.config
	if n := d.routing["default"]; n != nil && d.refer(n.at, n.text) {
		c.Routing.Default = n.text
	}
	if n := d.routing["subdomain"]; n != nil {
		for _, item := range n.items {
			d.readSubdomain(item)
		}
	}
	if n := d.routing["path"]; n != nil {
		for _, item := range n.items {
			d.readPath(item)
		}
	}
}

func (d *draft) readSubdomain(n *node) {
	label := n.key
	c := d.config
	switch {
	case tenement.CheckServiceName(label) != nil:
		d.mistake(n.keyAt, "1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit", "%s is not a valid subdomain", quote(label))
	case d.defined(label):
		d.mistake(n.keyAt, "that host reaches the service of the same name", "%s is also the name of a service", quote(label))
	case label+"."+c.Domain == c.AdminHost:
		d.mistake(n.keyAt, "the management API answers there", "%s.%s is admin_host", label, c.Domain)
	}
	if v, ok := d.accept(anyString, shorten(label), n); ok && d.refer(v.at, v.text) {
		c.Routing.Subdomain[label] = v.text
	}
}

// adminPaths are the paths that the management API has on its host.
var adminPaths = []string{"/api", "/health", "/metrics"}

func (d *draft) readPath(n *node) {
	c := d.config
	prefix := strings.TrimSuffix(n.key, "/")
	_, twice := c.Routing.Path[prefix]
	switch {
	case strings.Trim(n.key, "/") == "":
		d.mistake(n.keyAt, "[routing] default takes the whole domain", "%s is not a path prefix", quote(n.key))
	case !isRequestPath(n.key) || strings.ContainsAny(prefix, "?%") || path.Clean(prefix) != prefix:
		d.mistake(n.keyAt, `begin with "/"; no "..", "//", "?", "%" or spaces`, "%s is not a path prefix", quote(n.key))
	case twice:
		d.mistake(n.keyAt, "", "%s is there twice, with and without a slash at its end", quote(prefix))
	case c.AdminHost == c.Domain && slices.ContainsFunc(adminPaths, func(own string) bool { return within(prefix, own) }):
		d.mistake(n.keyAt, "choose another prefix, or another host as admin_host in [settings]",
			"%s on %s belongs to the management API", quote(prefix), c.Domain)
	}
	if v, ok := d.accept(anyString, shorten(n.key), n); ok && d.refer(v.at, v.text) {
		c.Routing.Path[prefix] = v.text
	}
}

// within reports whether path is prefix or lies below it.
func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}
