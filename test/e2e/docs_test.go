package e2e

import (
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// blocks are the fenced blocks of one language in a Markdown file of the repository.
func blocks(t *testing.T, file, language string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", file))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	_, rest, ok := strings.Cut(string(text), "\n```"+language+"\n")
	for ok {
		var body string
		body, rest, _ = strings.Cut(rest, "\n```")
		found = append(found, body+"\n")
		_, rest, ok = strings.Cut(rest, "\n```"+language+"\n")
	}
	return found
}

// block is the one block of file that has mark in it.
func block(t *testing.T, file, language, mark string) string {
	t.Helper()
	for _, b := range blocks(t, file, language) {
		if strings.Contains(b, mark) {
			return b
		}
	}
	t.Fatalf("%s has no %s block with %q: the document changed, and so must its test", file, language, mark)
	return ""
}

// shell runs the lines of a document where its reader would, with ten in the PATH.
func (d *daemon) shell(script string) string {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), "sh", "-eux", "-c", script)
	cmd.Dir = root
	cmd.Env = append(os.Environ(),
		"PATH="+filepath.Join(root, "bin")+":"+os.Getenv("PATH"),
		"TENEMENT_CONFIG="+d.config, "TENEMENT_DATA_DIR="+d.dataDir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// port is that of the daemon's front.
func (d *daemon) port() string {
	d.t.Helper()
	u, err := url.Parse(d.base)
	if err != nil {
		d.t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		d.t.Fatal(err)
	}
	return port
}

func TestReadmeFirstScreen(t *testing.T) {
	t.Parallel()
	require(t, "curl", "install curl (Debian: apt-get install curl)")
	d := start(t, "notes")
	d.command("spawn", "notes:alice", "--no-wake")
	d.command("spawn", "notes:bob", "--no-wake")
	script := block(t, "README.md", "sh", "buy milk")
	script = strings.ReplaceAll(script, ":8080", ":"+d.port())
	script = strings.ReplaceAll(script, ".cache/notes", d.dataDir)
	script = strings.ReplaceAll(script, "--config examples/notes/tenement.toml", "")
	out := d.shell(script)
	for _, want := range []string{`"text":"buy milk"`, "[]", "app.db", "notes:alice"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing from what the README's lines print:\n%s", want, out)
		}
	}
}

// founding writes the README's own configuration beside the python example's app.
func founding(t *testing.T) *daemon {
	t.Helper()
	requirePython(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"tenement.toml": block(t, "README.md", "toml", "[service.api]"),
		"app.py":        read(t, "../../examples/python/app.py"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil { //nolint:gosec // tenants read it
			t.Fatal(err)
		}
	}
	return startConfig(t, filepath.Join(dir, "tenement.toml"), t.TempDir())
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestReadmeFiveLines(t *testing.T) {
	t.Parallel()
	d := founding(t)
	for line := range strings.Lines(block(t, "README.md", "sh", "ten spawn api:alice")) {
		if !strings.HasPrefix(line, "ten serve") { // it is running
			d.shell(line)
		}
	}
	for _, customer := range []string{"alice", "bob"} {
		d.get(200, customer+".api.localhost", "/health")
		if _, err := os.Stat(filepath.Join(d.dataDir, "api", customer)); err != nil {
			t.Error(err)
		}
	}
}

func TestRoutingDocument(t *testing.T) {
	t.Parallel()
	d := founding(t)
	d.shell(block(t, "docs/routing.md", "sh", "ten deploy api:v1"))
	if got := d.command("inspect", "api:v2"); !strings.Contains(got, "150") {
		t.Errorf("v2 does not have the weight of both:\n%s", got)
	}
	d.get(200, "api.localhost", "/health")
}

func TestOperationsDocument(t *testing.T) {
	t.Parallel()
	d := founding(t)
	script := strings.Replace(block(t, "docs/operations.md", "sh", "ten doctor"), "ten serve\n", "", 1)
	if out := d.shell(script); !strings.Contains(out, "ok") {
		t.Errorf("printed:\n%s", out)
	}
}

func TestProfileOfTheDaemon(t *testing.T) {
	t.Parallel()
	d := founding(t)
	script := strings.ReplaceAll(block(t, "docs/operations.md", "sh", "ten profile"), "/tmp", t.TempDir())
	if out := d.shell(script); !strings.Contains(out, "Type: cpu") {
		t.Errorf("printed:\n%s", out)
	}
}

func TestLogsDocument(t *testing.T) {
	t.Parallel()
	d := founding(t)
	d.command("spawn", "api:alice")
	d.shell(block(t, "docs/logs.md", "sh", "ten logs api:alice"))
}

func TestMetricsDocument(t *testing.T) {
	t.Parallel()
	require(t, "curl", "install curl (Debian: apt-get install curl)")
	d := founding(t)
	d.command("spawn", "api:alice")
	script := strings.ReplaceAll(block(t, "docs/metrics.md", "sh", "token-gen"), "/etc/prometheus", t.TempDir()) +
		block(t, "docs/metrics.md", "sh", "ten usage") + "ten wakes api:alice\n"
	file := script[strings.Index(script, "> ")+2 : strings.Index(script, "\n")]
	script += "curl -s --fail -H \"Authorization: Bearer $(cat " + file + ")\" http://localhost:" + d.port() + "/metrics\n"
	out := d.shell(script)
	for _, want := range []string{"api,alice,", "operator", `tenement_instances{state="ready"} 1`} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing from what was printed:\n%s", want, out)
		}
	}
}

func TestAPIDocument(t *testing.T) {
	t.Parallel()
	require(t, "curl", "install curl (Debian: apt-get install curl)")
	d := founding(t)
	script := block(t, "docs/api.md", "sh", "token-gen") + block(t, "docs/api.md", "sh", "If-Match") + "ten inspect api:carol --json\n"
	script = strings.ReplaceAll(script, "http://example.com/", "--fail http://localhost:"+d.port()+"/")
	if out := d.shell(script); !strings.Contains(out, `"id":"api:carol"`) || !strings.Contains(out, `"weight": 10`) {
		t.Errorf("printed:\n%s", out)
	}
	d.get(200, "carol.api.localhost", "/health")
}

// TestEveryCommandOfTheReadme: the table of commands and the program know the same ones.
func TestEveryCommandOfTheReadme(t *testing.T) {
	t.Parallel()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	readme := read(t, "../../README.md")
	out, err := exec.CommandContext(t.Context(), filepath.Join(root, "bin", "ten"), "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for line := range strings.Lines(string(out)) {
		name, _, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !strings.HasPrefix(line, "  ") || strings.HasPrefix(name, "-") || name == "ten" || name == "help" {
			continue
		}
		commands++
		if !strings.Contains(readme, "`ten "+name) && !strings.Contains(readme, "`"+name+"`") {
			t.Errorf("ten %s is not in the README", name)
		}
	}
	if commands < 15 {
		t.Errorf("only %d commands were found in ten --help", commands)
	}
}
