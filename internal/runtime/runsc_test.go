package runtime_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tenement"
	"tenement/internal/runtime"
)

// TestRunscScript runs the script with a Go tool that only writes down what it is told.
func TestRunscScript(t *testing.T) {
	t.Parallel()
	home, bin := t.TempDir(), t.TempDir()
	tool := "#!/bin/sh\necho \"$CGO_ENABLED $*\" >>\"$HOME/told\"\nprintf '#!/bin/sh\\n' >\"$GOBIN/runsc\" && chmod +x \"$GOBIN/runsc\"\n"
	if err := os.WriteFile(filepath.Join(bin, "go"), []byte(tool), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	for range 2 { // the second time it is there
		script := exec.CommandContext(t.Context(), "sh", "../../tools/runsc.sh")
		script.Env = []string{"HOME=" + home, "PATH=" + bin + ":" + os.Getenv("PATH")}
		dir, err := script.Output()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(strings.TrimSpace(string(dir)), "runsc")); err != nil {
			t.Error(err)
		}
	}
	told, err := os.ReadFile(filepath.Join(home, "told"))
	if err != nil {
		t.Fatal(err)
	}
	_, install, _ := strings.Cut(runtime.RunscInstall, "go install ")
	if got, want := string(told), "0 install "+install+"\n"; got != want {
		t.Errorf("the Go tool was told %q, want %q", got, want)
	}
}

func TestFindRunsc(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		program string
		want    string
	}{
		"nothing":    {"", "not found"},
		"no program": {"#!/bin/sh\n", "unrecognized file format"},
		"another":    {self, "and not gvisor.dev/gvisor/runsc " + runtime.RunscVersion},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("PATH", dir)
			path := filepath.Join(dir, "runsc")
			var err error
			switch {
			case strings.HasPrefix(test.program, "#!"):
				err = os.WriteFile(path, []byte(test.program), 0o700) //nolint:gosec // a program
			case test.program != "":
				err = os.Symlink(test.program, path)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = runtime.FindRunsc()
			if tenement.CodeOf(err) != tenement.CodeUnavailable || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %s", err, test.want)
			}
			if hint := tenement.HintOf(err); !strings.Contains(hint, runtime.RunscInstall) {
				t.Errorf("hint %q", hint)
			}
		})
	}
}
