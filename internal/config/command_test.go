package config

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var commands = map[string][]string{
	`python3 app.py`:                   {"python3", "app.py"},
	"  a \t b  ":                       {"a", "b"},
	`a 'b c' "d e" f\ g`:               {"a", "b c", "d e", "f g"},
	`a "x \" \\ \$ \n"`:                {"a", `x " \ $ \n`},
	`a 'x \n'`:                         {"a", `x \n`},
	`a \\b \'c \|d \$e \n`:             {"a", `\b`, "'c", "|d", "$e", "n"},
	`a b'c'"d"e`:                       {"a", "bcde"},
	`a '' ""`:                          {"a", "", ""},
	`a *.py [b] {c,d} ~/x x?`:          {"a", "*.py", "[b]", "{c,d}", "~/x", "x?"},
	`a b=c --d='{"e": 1}' f#g`:         {"a", "b=c", `--d={"e": 1}`, "f#g"},
	`{data_dir}/bin --port {port} {{}`: {"{data_dir}/bin", "--port", "{port}", "{{}"},
	`sh -c 'exec "$@" | tee "log"' x`:  {"sh", "-c", `exec "$@" | tee "log"`, "x"},
	"a \\\n  b c\\\nd \"e\\\nf\"":      {"a", "b", "cd", "ef"},
	`a $ "$" \$"b"`:                    {"a", "$", "$", "$b"},
	`a \`:                              {"a", `\`},
	"time a":                           {"time", "a"},
	`é 'ü ö'`:                          {"é", "ü ö"},
	"a\n":                              {"a"},
	`a !b ! %c ^d @e :`:                {"a", "!b", "!", "%c", "^d", "@e", ":"},
}

func TestSplitCommand(t *testing.T) {
	t.Parallel()
	for line, want := range commands {
		got, err := splitCommand(line)
		if err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", line, diff)
		}
	}
}

// TestSplitLikeShell asks the machine's shell what it makes of each command, with
// the expansion of file names and ~ switched off: we do neither.
func TestSplitLikeShell(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("needs a POSIX shell named sh in PATH")
	}
	for line, want := range commands {
		if strings.Contains(line, "~") || strings.HasSuffix(line, `\`) || strings.Contains(line, "{c,d}") {
			continue
		}
		out, err := exec.Command(shell, "-fc", `printf '%s\0' `+line).Output()
		if err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +shell):\n%s", line, diff)
		}
	}
}

func TestSplitCommandRefuses(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"", " ", "# a", "a #b", "a\n# b", "a | b", "a |& b", "a && b", "a || b", "a; b", "a;", "a &", "a\nb", "! a",
		"a > b", "a 2>&1", "a < b", "a <<b", "A=1", "A=1 a", "a $B", "a ${B}", `a "$B"`, "a $1", "a $@", "a $(b)", "a `b`",
		"a $((1))", "a <(b)", "a 'b", `a "b`, "(a)", "{ a; }", "if a", "for", "case a", "a() { b; }", "a )", "a @(b)", "a $'b'", `a $"b"`,
		`''`, `"" a`,
	} {
		words, err := splitCommand(line)
		var wrong *commandError
		if !errors.As(err, &wrong) || words != nil {
			t.Errorf("%q: got %q and %v", line, words, err)
			continue
		}
		if wrong.message == "" || wrong.hint == "" || wrong.offset < 0 || wrong.offset > len(line) {
			t.Errorf("%q: %+v", line, wrong)
		}
	}
}

// FuzzSplitCommand: what is accepted can be quoted and split again.
func FuzzSplitCommand(f *testing.F) {
	for line := range commands {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitCommand(line)
		if err != nil {
			return
		}
		quoted := make([]string, len(words))
		for i, word := range words {
			quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		again, err := splitCommand(strings.Join(quoted, " "))
		if err != nil {
			t.Fatalf("%q gave %q, and that: %v", line, words, err)
		}
		if diff := cmp.Diff(words, again); diff != "" {
			t.Errorf("%q (-first +second):\n%s", line, diff)
		}
	})
}

// TestCommandThatIsTooDeep: a million parentheses once exhausted the parser's stack,
// which ended the process.
func TestCommandThatIsTooDeep(t *testing.T) {
	t.Parallel()
	for _, bracket := range []string{"(", "$(", "{ "} {
		if _, err := splitCommand(strings.Repeat(bracket, 1_000_000)); err == nil {
			t.Errorf("%q a million times is a command", bracket)
		}
		if _, err := splitCommand(strings.Repeat(bracket, maxCommand/len(bracket))); err == nil {
			t.Errorf("%q to the limit is a command", bracket)
		}
	}
}
