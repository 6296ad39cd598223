package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSettingsDocument runs the lines of docs/settings.md, and looks at what they came to.
func TestSettingsDocument(t *testing.T) {
	t.Parallel()
	d := start(t, "notes")
	d.command("spawn", "notes:alice")
	key := filepath.Join(t.TempDir(), "key.txt")
	if err := os.WriteFile(key, []byte("sk_live_1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The machine may be without what limits memory.
	script := strings.NewReplacer("api:alice", "notes:alice", "key.txt", key, "--memory", "--open-files", "--unset memory", "--unset open-files").
		Replace(block(t, "docs/settings.md", "sh", "ten set api:alice"))
	out := d.shell(script)
	for _, want := range []string{
		"it holds from its next start on", "it holds from now on", "cron nightly", "0 3 * * * /jobs/nightly", "hint: it is awake and has what was before", "it holds now: it was restarted",
		"env GREETING", "hello {id}", "secret STRIPE_KEY", "(secret)", "idle_timeout", "10m",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing from what the lines print:\n%s", want, out)
		}
	}
	if strings.Contains(out, "sk_live") || strings.Contains(out, "open_files_limit") || strings.Contains(out, "env PLAN") {
		t.Errorf("shown, though secret or taken away:\n%s", out)
	}
	d.command("start", "notes:alice")
	if got := d.command("run", "notes:alice", "--", "sh", "-c", `echo "$GREETING $STRIPE_KEY $PLAN"`); got != "hello alice sk_live_1 \n" {
		t.Errorf("the variables are %q", got)
	}

	files := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(files, []byte("# a comment\n\nA=one two\nB=x=y\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.command("set", "notes:alice", "--env-file", files, "--secret", "PIN=0042")
	if got := d.command("run", "notes:alice", "--", "sh", "-c", `echo "$A|$B|$PIN"`); got != "one two|x=y|0042\n" {
		t.Errorf("of the file: %q", got)
	}
	for _, wrong := range [][]string{
		{"set", "notes:alice"}, {"set", "notes:alice", "PORT=1"}, {"set", "notes:alice", "--unset", "NONE"}, {"set", "notes:alice", "--unset", "cron.none"},
		{"set", "notes:alice", "--cron", "nightly"}, {"set", "notes:alice", "--cron", "nightly=0 3 * * *"}, {"set", "notes:alice", "--cron", "other=off"},
		{"set", "notes:alice", "--cron", "nightly=0 3 * * * / a=b"}, {"set", "notes:alice", "--pids", "many"}, {"set", "notes:nobody", "A=1"},
	} {
		if out, err := d.tryCommand(wrong...); err == nil || !strings.Contains(out, "error: ") {
			t.Errorf("ten %s: %v, %s", strings.Join(wrong, " "), err, out)
		}
	}
}

// TestExecDocument runs the lines of docs/exec.md.
func TestExecDocument(t *testing.T) {
	t.Parallel()
	d := start(t, "notes")
	d.command("spawn", "notes:alice")
	script := strings.ReplaceAll(block(t, "docs/exec.md", "sh", "ten exec api:alice"), "api:alice", "notes:alice")
	out := d.shell(script + "\necho typed | ten exec notes:alice -- cat\nten exec notes:alice sh -c 'echo $0 $1' -- -v\nten run notes:alice no-such-program || echo status $?\nten run notes:alice || echo status $?\n")
	for _, want := range []string{"/notes/alice\n", "\n3\n", "typed\n", "-- -v\n", "status 3\n", "status 2\n", "not found in PATH"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing from what the lines print:\n%s", want, out)
		}
	}
}

// TestCopyDocument runs the lines of docs/exec.md on copying, where they leave files.
func TestCopyDocument(t *testing.T) {
	t.Parallel()
	d := start(t, "notes")
	d.command("spawn", "notes:alice")
	here := t.TempDir()
	d.shell("cd " + here + "\n" + strings.ReplaceAll(block(t, "docs/exec.md", "sh", "ten cp index.html"), "api:alice", "notes:alice"))
	for _, name := range []string{"copy.html", "alice-files/www.html"} {
		if text, err := os.ReadFile(filepath.Join(here, name)); err != nil || string(text) != "<h1>Hello</h1>\n" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if info, err := os.Stat(filepath.Join(here, "alice.tar")); err != nil || info.Size() < 1024 {
		t.Errorf("the archive: %v", err)
	}
}
