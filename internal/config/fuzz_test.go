package config

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"tenement"
)

// FuzzParse: nothing panics, every refusal has places that exist, and what is
// accepted keeps the promises of [Config].
func FuzzParse(f *testing.F) {
	archive, err := txtar.ParseFile(mistakesFile)
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range archive.Files {
		if strings.HasSuffix(file.Name, ".toml") {
			f.Add(file.Data)
		}
	}
	f.Add([]byte(contract))
	f.Add([]byte(Example("notes", "./notes")))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("/srv/tenement.toml", text, Overrides{})
		if err == nil {
			checkPromises(t, c)
			return
		}
		var mistakes Mistakes
		if c != nil || tenement.CodeOf(err) != tenement.CodeInvalid || !errors.As(err, &mistakes) || len(mistakes) == 0 {
			t.Fatalf("got %v and %v", c, err)
		}
		lines := bytes.Count(text, []byte("\n")) + 1
		for _, m := range mistakes {
			if m.Line < 1 || m.Line > lines || m.Column < 1 || m.Column > len(text)+1 || m.Message == "" {
				t.Errorf("no such place in %d lines: %s", lines, m)
			}
		}
	})
}

func checkPromises(t *testing.T, c *Config) {
	t.Helper()
	if len(c.Services) == 0 || !filepath.IsAbs(c.DataDir) || !isDomain(c.Domain) || !isHostPort(c.Listen) || c.MaxWaiting < 1 {
		t.Errorf("%+v", c)
	}
	for name, s := range c.Services {
		if s.Name != name || tenement.CheckServiceName(name) != nil || len(s.Command) == 0 || s.Command[0].String() == "" {
			t.Errorf("service %q: %+v", name, s)
		}
		if s.Timeouts.Startup <= 0 || s.Timeouts.Wake < s.Timeouts.Startup || s.Health.Interval <= 0 || s.Restart.Window <= 0 {
			t.Errorf("service %q: %+v", name, s)
		}
		if limits := s.Timeouts; limits.Idle > 0 && limits.Freeze >= limits.Idle {
			t.Errorf("service %q: %+v", name, limits)
		}
		if dir := s.Workdir.Expand(anyVars); !filepath.IsAbs(dir) {
			t.Errorf("service %q: workdir %s", name, s.Workdir)
		}
	}
	for _, id := range c.Instances {
		if c.Services[id.Service] == nil || tenement.CheckInstanceName(id.Name) != nil {
			t.Errorf("instance %s", id)
		}
	}
	for prefix, service := range c.Routing.Path {
		if c.Services[service] == nil || !strings.HasPrefix(prefix, "/") || strings.HasSuffix(prefix, "/") {
			t.Errorf("path %q to %q", prefix, service)
		}
	}
	for label, service := range c.Routing.Subdomain {
		if c.Services[service] == nil || c.Services[label] != nil || tenement.CheckServiceName(label) != nil {
			t.Errorf("subdomain %q to %q", label, service)
		}
	}
}
