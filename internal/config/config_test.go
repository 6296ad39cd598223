package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

// template compares templates by their text.
var template = cmp.Transformer("template", tenement.Template.String)

func templates(texts ...string) []tenement.Template {
	var list []tenement.Template
	for _, text := range texts {
		list = append(list, tenement.MustTemplate(text))
	}
	return list
}

func mustParse(t *testing.T, name, text string, o Overrides) *Config {
	t.Helper()
	c, err := Parse(name, []byte(text), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// contract is the file of the contract with users without the keys whose feature
// comes later, and with the two services and the host that it leaves out.
const contract = `
[settings]
data_dir = "/var/lib/tenement"
domain = "example.com"
listen = "127.0.0.1:8081"
admin_host = "ten.example.com"
admin_listen = "10.0.0.1:9000"
health_check_interval = 20
max_restarts = 4
restart_window = "10m"
backoff_base_ms = 2000
backoff_max_ms = 50000
max_starting = 6
max_awake = 40
memory_reserve_mb = 512
max_waiting = 700
uid_first = 3_000_000
log_instance_mb = 8
log_total_mb = 256
log_retention = "48h"
access_log = "log/access"

[settings.tracing]
endpoint = "https://otlp.example.com/otlp/"
sample = 0.25
[settings.alerts]
url = "https://alerts.example.com/tenement?team=a"
secret_file = "alerts.secret"
on = ["failed", "disk_low"]
disk_low_mb = 2048

[service.api]
command = "python3 'my app.py' --data {data_dir}/{id}"
args = ["--name", "{name} of {id}", "a b"]
health = "/health"
isolation = "sandbox"
readable = ["shared", "/srv/assets"]
writable = ["/srv/uploads"]
egress = "deny"
freeze_timeout = "90s"
idle_timeout = 301
startup_timeout = 12.5
wake_timeout = "1m"
request_timeout = 31
drain_timeout = "250ms"
stop_timeout = 11
restart = "always"
storage_persist = false
workdir = "/srv/api"
create = "on-request"
max_body_mb = 2
server_timing = true
storage_quota_mb = 1024
memory_limit_mb = 256
cpu_shares = 200
cpu_limit = 0.5
pids_limit = 300
io_weight = 400
open_files_limit = 500

[service.api.wake]
health = true
self = false
ignore = { paths = ["/ping", "/old/*"], user_agents = ["NoisyBot"], methods = ["OPTIONS"], monitors = [] }

[service.api.env]
DATA_DIR = "{data_dir}/{id}"
DEBUG = true
MODE = 0o644
VERSION = 1.10
LIMIT = 1_000

[service.web]
command = "./web"
listen = "fd"
ready = "notify"

[service.backoffice]
command = "./backoffice"

[instances]
web = ["www", "a_b"]
api = ["prod"]

[routing]
default = "web"
[routing.subdomain]
admin = "backoffice"
[routing.path]
"/api" = "api"
"/shop/v1/" = "web"
`

func TestContract(t *testing.T) {
	t.Parallel()
	policy := tenement.RestartPolicy{
		Mode: tenement.RestartOnFailure, Max: 4, Window: 10 * time.Minute,
		BackoffBase: 2 * time.Second, BackoffMax: 50 * time.Second,
	}
	always := policy
	always.Mode = tenement.RestartAlways
	plainService := func(name string) *tenement.Service {
		return &tenement.Service{
			Name: name, Command: templates("./" + name), Env: map[string]tenement.Template{},
			Workdir: tenement.MustTemplate("/etc/tenement"), Isolation: DefaultIsolation(), Egress: tenement.EgressAllow,
			Listen: tenement.ListenPort, Ready: tenement.ReadyProbe,
			Health:   tenement.HealthCheck{Interval: 20 * time.Second},
			Timeouts: defaultTimeouts, Restart: policy, Create: tenement.CreateExplicit, Wake: defaultWake(), Persist: true,
			DataDir: "/var/lib/tenement/" + name,
		}
	}
	web := plainService("web")
	web.Listen, web.Ready = tenement.ListenFD, tenement.ReadyNotify
	want := &Config{
		Path: "/etc/tenement/tenement.toml", DataDir: "/var/lib/tenement", Domain: "example.com",
		Listen: "127.0.0.1:8081", AdminHost: "ten.example.com", AdminListen: "10.0.0.1:9000", MaxStarting: 6, MaxAwake: 40, MemoryReserve: 512 << 20, MaxWaiting: 700, FirstUID: 3_000_000,
		LogInstance: 8 << 20, LogTotal: 256 << 20, LogRetention: 48 * time.Hour, AccessLog: "/etc/tenement/log/access",
		Tracing: Tracing{Endpoint: "https://otlp.example.com/otlp", Sample: 0.25},
		Alerts: Alerts{
			URL: "https://alerts.example.com/tenement?team=a", SecretFile: "/etc/tenement/alerts.secret",
			On: []tenement.AlertKind{tenement.AlertFailed, tenement.AlertDiskLow}, DiskLow: 2 << 30,
		},
		Services: map[string]*tenement.Service{
			"api": {
				Name:    "api",
				Command: templates("python3", "my app.py", "--data", "{data_dir}/{id}", "--name", "{name} of {id}", "a b"),
				Env: map[string]tenement.Template{
					"DATA_DIR": tenement.MustTemplate("{data_dir}/{id}"),
					"DEBUG":    tenement.MustTemplate("true"),
					"MODE":     tenement.MustTemplate("0o644"),
					"VERSION":  tenement.MustTemplate("1.10"),
					"LIMIT":    tenement.MustTemplate("1000"),
				},
				Workdir:   tenement.MustTemplate("/srv/api"),
				Isolation: tenement.IsolationSandbox, Egress: tenement.EgressDeny, Listen: tenement.ListenPort, Ready: tenement.ReadyProbe,
				Readable: []string{"/etc/tenement/shared", "/srv/assets"}, Writable: []string{"/srv/uploads"},
				Health: tenement.HealthCheck{Path: "/health", Interval: 20 * time.Second},
				Timeouts: tenement.Timeouts{
					Freeze: 90 * time.Second, Idle: 301 * time.Second, Startup: 12500 * time.Millisecond, Wake: time.Minute,
					Request: 31 * time.Second, Drain: 250 * time.Millisecond, Stop: 11 * time.Second,
				},
				Restart: always, Create: tenement.CreateOnRequest, Persist: false, MaxBody: 2 << 20, ServerTiming: true,
				Limits: tenement.Limits{Memory: 256 << 20, CPUShares: 200, CPU: 0.5, PIDs: 300, IOWeight: 400, OpenFiles: 500, Storage: 1 << 30},
				Wake: tenement.WakeRules{
					Paths: []string{"/ping", "/old/*"}, UserAgents: []string{"noisybot"}, Methods: []string{"OPTIONS"}, Monitors: []string{}, Health: true, Self: false,
				},
				DataDir: "/var/lib/tenement/api",
			},
			"web":        web,
			"backoffice": plainService("backoffice"),
		},
		Instances: []tenement.InstanceID{{Service: "web", Name: "www"}, {Service: "web", Name: "a_b"}, {Service: "api", Name: "prod"}},
		Routing: Routing{
			Default:   "web",
			Subdomain: map[string]string{"admin": "backoffice"},
			Path:      map[string]string{"/api": "api", "/shop/v1": "web"},
		},
	}
	got := mustParse(t, "/etc/tenement/tenement.toml", contract, Overrides{})
	if diff := cmp.Diff(want, got, template); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

var defaultTimeouts = tenement.Timeouts{
	Idle: 300 * time.Second, Startup: 10 * time.Second, Wake: 40 * time.Second,
	Request: 30 * time.Second, Drain: 10 * time.Second, Stop: 10 * time.Second,
}

// TestFoundingText reads the five lines that the whole project is about.
func TestFoundingText(t *testing.T) {
	t.Parallel()
	const text = `
[service.api]
command = "python3 app.py"
health = "/health"
[service.api.env]
DATA_DIR = "{data_dir}/{id}"
`
	want := &Config{
		Path: "/srv/app/tenement.toml", DataDir: "/var/lib/tenement", Domain: "localhost",
		Listen: "127.0.0.1:8080", AdminHost: "localhost", MaxWaiting: 10_000,
		LogInstance: 16 << 20, LogTotal: 1 << 30, LogRetention: 14 * 24 * time.Hour,
		Alerts: Alerts{On: tenement.AlertKinds, DiskLow: 1 << 30},
		Services: map[string]*tenement.Service{"api": {
			Name: "api", Command: templates("python3", "app.py"),
			Env:     map[string]tenement.Template{"DATA_DIR": tenement.MustTemplate("{data_dir}/{id}")},
			Workdir: tenement.MustTemplate("/srv/app"), Isolation: DefaultIsolation(), Egress: tenement.EgressAllow,
			Listen: tenement.ListenPort, Ready: tenement.ReadyProbe,
			Health:   tenement.HealthCheck{Path: "/health", Interval: 10 * time.Second},
			Timeouts: defaultTimeouts,
			Restart: tenement.RestartPolicy{
				Mode: tenement.RestartOnFailure, Max: 3, Window: 300 * time.Second,
				BackoffBase: time.Second, BackoffMax: time.Minute,
			},
			Create: tenement.CreateExplicit, Wake: defaultWake(), Persist: true, DataDir: "/var/lib/tenement/api",
		}},
		Routing: Routing{Subdomain: map[string]string{}, Path: map[string]string{}},
	}
	got := mustParse(t, "/srv/app/tenement.toml", text, Overrides{})
	if diff := cmp.Diff(want, got, template); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	vars := tenement.Vars{tenement.VarDataDir: got.Services["api"].DataDir, tenement.VarID: "alice"}
	if dir := got.Services["api"].Env["DATA_DIR"].Expand(vars); dir != "/var/lib/tenement/api/alice" {
		t.Errorf("alice's directory is %s", dir)
	}
}

// TestSameInEveryForm: TOML has several ways to write one table.
func TestSameInEveryForm(t *testing.T) {
	t.Parallel()
	want := mustParse(t, "tenement.toml", "[service.api]\ncommand = 'a'\n[service.api.env]\nX = '1'\n[routing.path]\n'/x' = 'api'\n", Overrides{})
	for _, text := range []string{
		"\uFEFF[service.api]\ncommand = 'a'\nenv.X = '1'\n[routing.path]\n'/x' = 'api'\n",
		"service.api.command = 'a'\nservice.api.env.X = '1'\nrouting.path.'/x' = 'api'",
		"service = { api = { command = 'a', env = { X = '1' } } }\nrouting = { path = { '/x' = 'api' } }",
		"[service]\napi.command = 'a'\napi.env = { X = 1 }\n[routing]\npath = { \"/x\" = \"api\" }",
		"[routing.path]\r\n\"/x\" = \"api\" # comment\r\n[ service . \"api\" ]\r\nenv.X = '''1'''\r\n\"command\" = \"\\u0061\"\r\n",
	} {
		got := mustParse(t, "tenement.toml", text, Overrides{})
		if diff := cmp.Diff(want, got, template); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestWorkdir(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ file, workdir, want string }{
		{"/srv/tenement.toml", ".", "/srv"},
		{"/srv/tenement.toml", "app", "/srv/app"},
		{"/srv/tenement.toml", "./app/../web/", "/srv/web"},
		{"/srv/tenement.toml", "/opt/app", "/opt/app"},
		{"/srv/tenement.toml", "/opt/{id}", "/opt/alice"},
		{"/srv/tenement.toml", "{data_dir}/{id}", "/data/api/alice"},
		{"/srv/tenement.toml", "{id}/app", "/srv/alice/app"},
		{"/srv/tenement.toml", "{{id}", "/srv/{id}"},
		{"/srv/{id}/tenement.toml", "app", "/srv/{id}/app"},
		{"/srv/{id}/tenement.toml", "", "/srv/{id}"},
	} {
		text := "[settings]\ndata_dir = '/data'\n[service.api]\ncommand = 'a'\n"
		if test.workdir != "" {
			text += "workdir = '" + test.workdir + "'\n"
		}
		service := mustParse(t, test.file, text, Overrides{}).Services["api"]
		got := service.Workdir.Expand(tenement.Vars{tenement.VarID: "alice", tenement.VarDataDir: service.DataDir})
		if got != test.want {
			t.Errorf("%s, workdir %q: got %s, want %s", test.file, test.workdir, got, test.want)
		}
	}
}

func TestAdminHost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ settings, routing, want string }{
		{"", "", "localhost"},
		{"domain = 'example.com'", "", "example.com"},
		{"domain = 'example.com'", "default = 'api'", ""},
		{"domain = 'example.com'\nadmin_host = 'example.com'", "default = 'api'", "example.com"},
		{"admin_host = '127.0.0.1'", "", "127.0.0.1"},
		{"admin_host = 'ten.localhost'", "subdomain.www = 'api'", "ten.localhost"},
		{"admin_host = 'xapi.localhost'", "", "xapi.localhost"},
		{"admin_host = 'ten.localhost'", "path.'/api/x' = 'api'", "ten.localhost"},
	} {
		text := "[settings]\n" + test.settings + "\n[routing]\n" + test.routing + "\n[service.api]\ncommand = 'a'\n"
		if got := mustParse(t, "tenement.toml", text, Overrides{}).AdminHost; got != test.want {
			t.Errorf("%q, %q: got %q, want %q", test.settings, test.routing, got, test.want)
		}
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	for address, valid := range map[string]bool{
		"127.0.0.1:8080": true, ":0": true, "[::1]:80": true, "localhost:65535": true, "[fe80::1%eth0]:80": true,
		"127.0.0.1": false, "localhost:http": false, ":65536": false, ":-1": false, "::1:80": false, "a b:80": false, "": false,
	} {
		_, err := Parse("tenement.toml", []byte("[settings]\nlisten = '"+address+"'\n[service.api]\ncommand = 'a'\n"), Overrides{})
		if (err == nil) != valid {
			t.Errorf("%q: got %v", address, err)
		}
	}
}

// TestOverrides: flags win, and the defaults that follow from other values follow
// from the flags.
func TestOverrides(t *testing.T) {
	t.Parallel()
	const text = "[settings]\ndomain = 'example.com'\ndata_dir = '/data'\n[service.api]\ncommand = 'a'\n"
	got := mustParse(t, "tenement.toml", text, Overrides{DataDir: "elsewhere", Domain: "example.org", Listen: ":0", AdminListen: "localhost:9"})
	dir, err := filepath.Abs("elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	want := [6]string{dir, filepath.Join(dir, "api"), "example.org", "example.org", ":0", "localhost:9"}
	if diff := cmp.Diff(want, [6]string{got.DataDir, got.Services["api"].DataDir, got.Domain, got.AdminHost, got.Listen, got.AdminListen}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWrongOverrides(t *testing.T) {
	t.Parallel()
	_, err := Parse("tenement.toml", []byte("[service.api]\n"), Overrides{DataDir: "~", Domain: "Example.com", Listen: "8080"})
	const want = `read configuration: 4 mistakes

--data-dir: must be the path of a directory, not "~"
  hint: such as "/var/lib/tenement"; a leading ~ stands for nothing here

--domain: must be a host name in lower case, without port, not "Example.com"
  hint: not an address: services answer at names below it

--listen: must be host:port with a port from 0 to 65535, not "8080"
  hint: "127.0.0.1:8080" for this machine only, ":8080" for everyone

tenement.toml:1:10: service "api" has no command
    [service.api]
             ^
  hint: such as command = "python3 app.py"`
	if err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "tenement.toml")
	if err := os.WriteFile(path, []byte("[service.api]\ncommand = 'a'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Path != path || c.DataDir != "/var/lib/tenement" {
		t.Errorf("path %s, data_dir %s", c.Path, c.DataDir)
	}
}

func TestLoadWithoutFile(t *testing.T) {
	t.Parallel()
	_, err := Load(filepath.Join(t.TempDir(), "tenement.toml"), Overrides{})
	if tenement.CodeOf(err) != tenement.CodeNotFound || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if hint := tenement.HintOf(err); !strings.Contains(hint, "ten init") {
		t.Errorf("hint %q", hint)
	}
}

func TestLoadOfWhatIsNoFile(t *testing.T) {
	t.Parallel()
	if _, err := Load(t.TempDir(), Overrides{}); tenement.CodeOf(err) != tenement.CodeInvalid {
		t.Errorf("a directory: got %v", err)
	}
	if _, err := Load("/dev/zero", Overrides{}); tenement.CodeOf(err) != tenement.CodeInvalid {
		t.Errorf("a file without end: got %v", err)
	}
}

func TestLoadOfHugeFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tenement.toml")
	text := "[service.api]\ncommand = 'a'\n#" + strings.Repeat(" ", maxFileBytes)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, Overrides{}); tenement.CodeOf(err) != tenement.CodeInvalid {
		t.Errorf("got %v", err)
	}
}

func TestExample(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"python3 app.py", `sh -c 'echo "a\b" && exec app'`, "app 'two\nlines' 'é'"} {
		c := mustParse(t, "tenement.toml", Example("notes", command), Overrides{})
		want, err := splitCommand(command)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(templates(want...), c.Services["notes"].Command, template); diff != "" {
			t.Errorf("%s (-want +got):\n%s", command, diff)
		}
	}
}

// TestExampleComments: what the example proposes in comments is accepted too.
func TestExampleComments(t *testing.T) {
	t.Parallel()
	var lines []string
	for line := range strings.Lines(Example("notes", "app")) {
		if setting, ok := strings.CutPrefix(line, "# "); ok && (strings.Contains(line, " = ") || strings.HasPrefix(setting, "[")) {
			line = setting
		}
		lines = append(lines, line)
	}
	c := mustParse(t, "tenement.toml", strings.Join(lines, ""), Overrides{})
	if len(c.Instances) != 1 || c.Services["notes"].Health.Path == "" {
		t.Errorf("the comments were not taken: %+v", c)
	}
}

func TestControlCharactersStayOutOfMessages(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"[service.\"\\u001b[31m\"]\nx = 1\n",
		"[instances]\n\"\\u001b\" = 1\n",
		"[routing.path]\n\"/\\u001b\" = 1\n",
	} {
		_, err := Parse("tenement.toml", []byte(text), Overrides{})
		if err == nil || strings.ContainsRune(err.Error(), 0x1b) {
			t.Errorf("%q: %q", text, err)
		}
	}
}

func TestExampleKeepsWhatIsNotUTF8(t *testing.T) {
	t.Parallel()
	if _, err := Parse("tenement.toml", []byte(Example("api", "run \xff")), Overrides{}); err == nil {
		t.Error("a command that is not UTF-8 was changed into another one")
	}
}

func TestTrustedProxies(t *testing.T) {
	t.Parallel()
	const service = "\n[service.api]\ncommand = 'a'\n"
	c, err := Parse("tenement.toml", []byte("[settings]\ntrusted_proxies = ['127.0.0.1', '10.1.2.3/8', '::1', '::ffff:1.2.3.4']"+service), Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.TrustedProxies); got != "[127.0.0.1/32 10.0.0.0/8 ::1/128 1.2.3.4/32]" {
		t.Error(got)
	}
	for _, wrong := range []string{"'localhost'", "'10.0.0.0/33'", "'fe80::1%eth0'", "''", "7"} {
		if _, err := Parse("tenement.toml", []byte("[settings]\ntrusted_proxies = ["+wrong+"]"+service), Overrides{}); err == nil {
			t.Errorf("%s is trusted", wrong)
		}
	}
}

func TestListenAddressIsTheTenantsOwn(t *testing.T) {
	t.Parallel()
	c, err := Parse("tenement.toml", []byte("[service.api]\ncommand = 'a'\nenv = { LISTEN_ADDR = '127.0.0.1:{port}' }\n"), Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Services["api"].Env["LISTEN_ADDR"].String(); got != "127.0.0.1:{port}" {
		t.Errorf("LISTEN_ADDR %q", got)
	}
}

// TestTracing: the address alone has every trace recorded; without the section there is none.
func TestTracing(t *testing.T) {
	t.Parallel()
	const service = "[service.api]\ncommand = 'x'\n"
	if c := mustParse(t, "tenement.toml", service, Overrides{}); c.Tracing != (Tracing{}) {
		t.Errorf("without the section: %+v", c.Tracing)
	}
	for text, want := range map[string]Tracing{
		`endpoint = "http://127.0.0.1:4318"`:              {"http://127.0.0.1:4318", 1},
		"endpoint = 'http://[::1]:4318/'\nsample = 0":     {"http://[::1]:4318", 0},
		"endpoint = 'https://otel_collector'\nsample = 1": {"https://otel_collector", 1},
		"endpoint = 'http://c:1/a/b/'\nsample = 0.000_01": {"http://c:1/a/b", 0.00001},
	} {
		if c := mustParse(t, "tenement.toml", "[settings.tracing]\n"+text+"\n"+service, Overrides{}); c.Tracing != want {
			t.Errorf("%s: %+v, want %+v", text, c.Tracing, want)
		}
	}
	for _, address := range []string{
		"", "127.0.0.1:4318", "grpc://collector:4317", "http://", "http://:4318", "http://c:99999", "http://c:x", "http://a@c", "http://c?x=1", "http://c#x", "http://c/ x", "http://c/\u00e4",
	} {
		_, err := Parse("tenement.toml", []byte("[settings.tracing]\nendpoint = '"+address+"'\n"+service), Overrides{})
		if err == nil || !strings.Contains(err.Error(), "tenement.toml:2:12: endpoint must be an address") {
			t.Errorf("%q: %v", address, err)
		}
	}
}
