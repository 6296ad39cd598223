package route

import (
	"strings"
	"testing"

	"tenement"
)

// example has every key of [routing].
var example = Config{
	Domain:    "example.com",
	AdminHost: "example.com",
	Services:  []string{"api", "web", "backoffice", "www"},
	Default:   "web",
	Subdomain: map[string]string{"admin": "backoffice", "www": "api", "ghost": "nothing"},
	Path:      map[string]string{"/api": "api", "/api/v2": "backoffice", "/www/": "www", "/ghost": "nothing"},
}

// show writes a target as a test case does: "admin", "api" or "api:alice"; "" for None.
func show(t Target) string {
	switch t.Kind {
	case Admin:
		return "admin"
	case Service:
		return t.ID.Service
	case Instance:
		return t.ID.String()
	}
	return ""
}

func TestLookup(t *testing.T) {
	t.Parallel()
	plain := Config{Domain: "example.com", AdminHost: "example.com", Services: []string{"api"}}
	label := strings.Repeat("d", 60)
	long := label + "." + label + "." + label + "." + "com" // 186 bytes
	for name, c := range map[string]struct {
		config Config
		want   map[string]string // by host, and path after a space
	}{
		"hosts": {plain, map[string]string{
			"alice.api.example.com": "api:alice",
			"a_b-c.api.example.com": "api:a_b-c",
			"api.example.com":       "api",
			"example.com":           "admin",
			"other.example.com":     "",
			"alice.web.example.com": "",
			"example.org":           "",
			"com":                   "",
			"":                      "",
			"127.0.0.1":             "",
		}},
		"shape": {plain, map[string]string{
			"Alice.API.Example.COM":       "api:alice",
			"alice.api.example.com.":      "api:alice",
			"alice.api.example.com..":     "",
			"alice.api.example.com:8080":  "api:alice",
			"ALICE.api.example.com.:8080": "api:alice",
			"alice.api.example.com:":      "api:alice",
			"alice.api.example.com:http":  "",
			"alice.api.example.com:80:80": "",
			"alice.api.example.com\t:80":  "",
			"[::1]:80":                    "",
			"[::1]":                       "",
			"::1":                         "",
			":80":                         "",
			".":                           "",
			"..":                          "",
			".example.com":                "",
			".api.example.com":            "",
			"..api.example.com":           "",
			"a.alice.api.example.com":     "",
			"api.api.example.com":         "api:api",
			"-a.api.example.com":          "",
			"a_.api.example.com":          "",
			"a/b.api.example.com":         "",
			"%61.api.example.com":         "",
			"ü.api.example.com":           "",
			"\u212a.api.example.com":      "", // the Kelvin sign is not a k
			"a\x00.api.example.com":       "",
			"evilexample.com":             "",
			"aliceapi.example.com":        "",
			"api.example.com.evil.org":    "",
			strings.Repeat("a", 63) + ".api.example.com": "api:" + strings.Repeat("a", 63),
			strings.Repeat("a", 64) + ".api.example.com": "",
			strings.Repeat("a", 300):                     "",
		}},
		"routing": {example, map[string]string{
			"admin.example.com":             "backoffice",
			"www.example.com":               "api", // [routing.subdomain] before a service's name
			"api.example.com":               "api",
			"alice.example.com":             "web:alice",
			"ghost.example.com":             "web:ghost", // its service does not exist
			"ali_ce.example.com":            "web:ali_ce",
			"-.example.com":                 "",
			"alice.admin.example.com":       "", // a label of [routing] is no service
			"x.www.example.com":             "www:x",
			"example.com":                   "admin",
			"example.com /":                 "admin",
			"example.com /api":              "api",
			"example.com /api/":             "api",
			"example.com /api/x":            "api",
			"example.com /apix":             "admin",
			"example.com /API":              "admin",
			"example.com /api%2Fx":          "admin",
			"example.com /api/v2":           "backoffice",
			"example.com /api/v2/x":         "backoffice",
			"example.com /api/v22":          "api",
			"example.com /www":              "www",
			"example.com /www/x":            "www",
			"example.com /ghost":            "admin",
			"EXAMPLE.com.:80 /api":          "api",
			"alice.api.example.com /api/v2": "api:alice", // paths count on the domain only
			"api.example.com /www":          "api",
		}},
		"own admin host": {
			Config{
				Domain: "Example.COM.", AdminHost: "Ops.Example.com:8443", Services: []string{"web", "ops"},
				Default: "web", Path: map[string]string{"/": "ops"},
			}, map[string]string{
				"ops.example.com":    "admin",
				"ops.example.com /x": "admin",
				"example.com /x":     "ops",
				"example.com *":      "web", // OPTIONS * has no path of its own
				"x.example.com":      "web:x",
			},
		},
		"admin elsewhere": {
			Config{Domain: "localhost", AdminHost: "127.0.0.1", Services: []string{"notes"}},
			map[string]string{
				"alice.notes.localhost:8080": "notes:alice",
				"127.0.0.1:8080":             "admin",
				"localhost":                  "",
			},
		},
		"default without admin": {
			Config{Domain: "example.com", Services: []string{"web"}, Default: "web"},
			map[string]string{"example.com": "web", "example.com /x": "web", "": ""},
		},
		"nothing":   {Config{}, map[string]string{"": "", ".": "", "example.com": "", "a.": "", "/": ""}},
		"no domain": {Config{Services: []string{"api"}}, map[string]string{"api": "", "api..": "", "a.api..": ""}},
		"long domain": {Config{Domain: long, Services: []string{"api"}}, map[string]string{
			strings.Repeat("a", 62) + ".api." + long + ".:8080": "api:" + strings.Repeat("a", 62), // 253 bytes
			strings.Repeat("a", 63) + ".api." + long:            "",
		}},
		"mistakes": {
			Config{Domain: "example.com", Services: []string{"..", "A", "ok"}, Default: "gone"},
			map[string]string{"...example.com": "", "a.example.com": "", "x.ok.example.com": "ok:x", "x.a.example.com": ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := New(c.config)
			for in, want := range c.want {
				host, path, _ := strings.Cut(in, " ")
				if got := show(table.Lookup(host, path)); got != want {
					t.Errorf("%q %q: got %q, want %q", host, path, got, want)
				}
			}
		})
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	table := New(example)
	for _, host := range []string{
		"alice.api.example.com:8080", "api.example.com.", "alice.example.com", "example.com",
		"unknown.unknown.example.com", "a.b.c.example.com", "example.org", "[::1]:80", strings.Repeat("a", 300),
	} {
		if n := testing.AllocsPerRun(100, func() { table.Lookup(host, "/api/v2/x") }); n != 0 {
			t.Errorf("%s: %v allocations", host, n)
		}
	}
}

// FuzzLookup: whatever a client sends as its host, what comes out is safe as a
// name, and one of ours.
func FuzzLookup(f *testing.F) {
	for _, host := range []string{
		"", "/", "..", ".", "../../etc", "ALICE.Api.Example.COM", "alice.api.example.com.", "alice.api.example.com:80",
		"[::1]:80", strings.Repeat("a", 300), strings.Repeat("a.", 150), "ü.example.com", "\u212a.example.com",
		"a\x00b.example.com", "-.example.com", "a_b.example.com", "example.com", "www.example.com", "\xff.example.com",
	} {
		f.Add(host, "/api/x")
	}
	table := New(example)
	f.Fuzz(func(t *testing.T, host, path string) {
		target := table.Lookup(host, path)
		switch target.Kind {
		case None, Admin:
			if !target.ID.IsZero() {
				t.Errorf("%q: %v has an instance", host, target)
			}
		case Service, Instance:
			if !table.has(target.ID.Service) {
				t.Errorf("%q: %q is no service", host, target.ID.Service)
			}
			if err := tenement.CheckInstanceName(target.ID.Name); (err == nil) != (target.Kind == Instance) {
				t.Errorf("%q: kind %d with name %q", host, target.Kind, target.ID.Name)
			}
		}
		if again := table.Lookup(lower(host), path); again != target {
			t.Errorf("%q: %v in lower case, else %v", host, again, target)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	table := New(example)
	b.ReportAllocs()
	for b.Loop() {
		table.Lookup("alice.api.example.com:8080", "/")
	}
}
