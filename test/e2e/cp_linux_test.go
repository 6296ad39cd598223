package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tenement/internal/runtime"
)

// cpWorld is a daemon whose service echo is isolated to one degree, and a directory here.
type cpWorld struct {
	*daemon
	here string
}

func startIsolated(t *testing.T, isolation string) *cpWorld {
	t.Helper()
	if isolation != "process" {
		requireRoot(t)
	}
	if isolation == "sandbox" {
		if _, err := runtime.FindRunsc(); err != nil {
			require(t, "runsc", "run tools/runsc.sh, and put the directory that it prints into PATH")
		}
	}
	dir := t.TempDir()
	for _, above := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(above, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "tenement.toml")
	writeConfig(t, file, fmt.Sprintf("isolation = %q\nidle_timeout = 0\nstartup_timeout = 60\nstorage_quota_mb = 64\n", isolation))
	d := startConfig(t, file, filepath.Join(dir, "data"))
	for _, name := range []string{"alice", "bob"} {
		d.command("spawn", "--no-wake", "echo:"+name)
	}
	return &cpWorld{d, t.TempDir()}
}

func (w *cpWorld) local(name string) string { return filepath.Join(w.here, name) }

func (w *cpWorld) write(path, text string) string {
	w.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *cpWorld) read(path string) string {
	w.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		w.t.Error(err)
	}
	return string(text)
}

func (w *cpWorld) stat(path string) os.FileInfo {
	w.t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

func ownerOf(info os.FileInfo) uint32 {
	stat, _ := info.Sys().(*syscall.Stat_t)
	return stat.Uid
}

// remote is a path of alice's as this machine sees it.
func (w *cpWorld) remote(name string) string {
	return filepath.Join(w.files(), "echo", "alice", name)
}

// in runs a shell's words as alice.
func (w *cpWorld) in(script string) string {
	w.t.Helper()
	return w.command("run", "echo:alice", "--", "sh", "-ec", script)
}

// fails wants an exit status, and a word of what is said.
func (w *cpWorld) fails(status int, want string, args ...string) {
	w.t.Helper()
	out, err := w.tryCommand(append([]string{"cp"}, args...)...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != status || !strings.Contains(out, want) {
		w.t.Errorf("ten cp %q: %v, %s; want status %d and %q", args, err, out, status, want)
	}
}

// piped runs ten cp with a standard input.
func (w *cpWorld) piped(stdin io.Reader, args ...string) []byte {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), w.ten, slices.Concat([]string{"--config", w.config, "--data-dir", w.files(), "cp"}, args)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	if err := cmd.Run(); err != nil {
		w.t.Fatalf("ten cp %q: %v\n%s", args, err, errs.String())
	}
	return out.Bytes()
}

func TestCopies(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"process", "namespace", "sandbox"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			w := startIsolated(t, isolation)
			testCopiesOfFiles(w)
			testCopiesOfDirectories(w)
			testCopiesOfArchives(w)
			testCopiesThatFail(w)
			if isolation != "process" {
				testCopiesOfTheHostile(w)
			}
			if got := w.command("inspect", "echo:alice"); !strings.Contains(got, "asleep") {
				t.Errorf("a copy has woken it:\n%s", got)
			}
			w.get(200, "alice.echo.localhost", "/")
			w.command("cp", w.write(w.local("late"), "late"), "echo:alice:late")
			if got := w.read(w.remote("late")); got != "late" || !strings.Contains(w.command("inspect", "echo:alice"), "ready") {
				t.Errorf("while awake: %q", got)
			}
			// Copies count towards the quota, which is measured here at the next start at the latest.
			w.command("cp", w.write(w.local("large"), strings.Repeat("x", 65<<20)), "echo:bob:")
			w.get(507, "bob.echo.localhost", "/")
		})
	}
}

func testCopiesOfFiles(w *cpWorld) {
	large := make([]byte, 32<<20)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(large)
	for _, name := range []string{"plain", "a b", "-rf", "a:b", "new\nline", strings.Repeat("x", 200)} {
		text := name
		if name == "plain" {
			text = string(large)
		}
		from := w.write(w.local(name), text)
		w.command("cp", from, "echo:alice:")
		if got := w.read(w.remote(name)); sha256.Sum256([]byte(got)) != sha256.Sum256([]byte(text)) {
			w.t.Errorf("%q arrived with %d of %d bytes", name, len(got), len(text))
		}
		w.command("cp", "echo:alice:"+name, w.local("back"))
		if got := w.read(w.local("back")); got != text {
			w.t.Errorf("%q came back with %d of %d bytes", name, len(got), len(text))
		}
	}
	tool := w.write(w.local("tool"), "#!/bin/sh\n")
	if err := os.Chmod(tool, 0o4750); err != nil {
		w.t.Fatal(err)
	}
	w.command("cp", tool, "echo:alice:renamed")
	info := w.stat(w.remote("renamed"))
	if info.Mode() != 0o750 {
		w.t.Errorf("the mode is %v", info.Mode())
	}
	if uid, want := ownerOf(info), ownerOf(w.stat(w.remote(""))); uid != want {
		w.t.Errorf("it belongs to %d, and the directory to %d", uid, want)
	}
	w.command("cp", "echo:alice:"+w.remote("renamed"), w.here+"/absolute")
	if got := w.read(w.local("absolute")); got != "#!/bin/sh\n" {
		w.t.Errorf("by its whole path: %q", got)
	}
}

func testCopiesOfDirectories(w *cpWorld) {
	site := w.local("site")
	w.write(site+"/index.html", "index")
	w.write(site+"/deep/er/page", "page")
	w.write(site+"/\xff\xfe", "page")
	if err := errors.Join(os.Symlink("deep/er/page", site+"/link"), os.Mkdir(site+"/empty", 0o755)); err != nil {
		w.t.Fatal(err)
	}
	w.command("cp", site, "echo:alice:www")     // is not there: becomes it
	w.command("cp", site, "echo:alice:www")     // is there: goes into it
	w.command("cp", site+"/.", "echo:alice:.")  // what is in it
	w.command("cp", site, "echo:alice:www/../") // of a directory by its slash
	for _, path := range []string{"www/deep/er/page", "www/site/deep/er/page", "deep/er/page", "site/link", "\xff\xfe"} {
		if got := w.read(w.remote(path)); got != "page" {
			w.t.Errorf("%s: %q", path, got)
		}
	}
	for from, to := range map[string]string{"www": "new", "www/": "slash", "site/.": "content"} {
		w.command("cp", "echo:alice:"+from, w.local(to))
	}
	w.command("cp", "echo:alice:site", w.local("new"))
	w.command("cp", "echo:alice:", w.local("all"))
	for _, path := range []string{"new/deep/er/page", "new/site/deep/er/page", "slash/link", "content/link", "content/\xff\xfe", "all/site/link"} {
		if got := w.read(w.local(path)); got != "page" {
			w.t.Errorf("%s: %q", path, got)
		}
	}
	if info, err := os.Stat(w.local("content/empty")); err != nil || !info.IsDir() {
		w.t.Errorf("an empty directory: %v", err)
	}
	if mode := w.stat(w.remote("")).Mode().Perm(); mode != 0o700 {
		w.t.Errorf("the data directory is open to others: %s", mode)
	}
}

func testCopiesOfArchives(w *cpWorld) {
	out := w.piped(nil, "echo:alice:site", "-")
	var names []string
	for r := tar.NewReader(bytes.NewReader(out)); ; {
		head, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			w.t.Fatal(err)
		}
		names = append(names, head.Name)
	}
	if !slices.Contains(names, "./site/deep/er/page") {
		w.t.Errorf("the archive has %q", names)
	}
	w.in("mkdir there")
	w.piped(bytes.NewReader(out), "-", "echo:alice:there")
	if got := w.read(w.remote("there/site/link")); got != "page" {
		w.t.Errorf("unpacked: %q", got)
	}
}

func testCopiesThatFail(w *cpWorld) {
	file := w.write(w.local("file"), "x")
	w.fails(3, "no such file or directory", "echo:alice:nothing", w.local("x"))
	w.fails(3, "no such file or directory", file, "echo:alice:no/such/dir")
	w.fails(3, "no such file or directory", file, "echo:alice:nothing/")
	w.fails(3, "no such file or directory", "-", "echo:alice:nothing")
	w.fails(3, "no such file or directory", w.local("nothing"), "echo:alice:")
	w.fails(3, "leave the slash away", "echo:alice:plain", w.local("nothing")+"/")
	w.fails(3, "no such file or directory", "echo:alice:plain", w.local("no/such/dir"))
	w.fails(2, "copy the directory that it is in", "echo:alice:\xff\xfe", w.local("x"))
	w.fails(3, "echo:nobody", file, "echo:nobody:")
	w.fails(2, "symbolic link", "echo:alice:site/link", w.local("x"))
	w.fails(1, "neither a file nor a directory", "echo:alice:/dev/null", w.local("x"))
	w.in("ln -sf /etc/hostname away; mkdir -p some; ln -sf /etc some/away; echo x > some/file")
	w.fails(1, "not copied: away: it is a link out of what is copied", "echo:alice:some", w.local("some"))
	if got := w.read(w.local("some/file")); got != "x\n" {
		w.t.Errorf("besides: %q", got)
	}
	if _, err := os.Lstat(w.local("some/away")); err == nil {
		w.t.Error("the link was made")
	}
}

// testCopiesOfTheHostile has alice lead copies to what is not hers.
func testCopiesOfTheHostile(w *cpWorld) {
	secret := w.write(w.local("secret"), "secret")
	w.command("run", "echo:bob", "--", "sh", "-c", "echo bob > his")
	his := filepath.Join(w.files(), "echo", "bob")
	w.in(fmt.Sprintf("ln -s %s to-bob; ln -s %s/his his; ln -s %s mine; ln -s /etc etc", his, his, w.here))
	file := w.write(w.local("file"), "x")
	for _, to := range []string{"to-bob/planted", "mine/planted", "etc/planted", "/etc/planted", his + "/planted"} {
		if out, err := w.tryCommand("cp", file, "echo:alice:"+to); err == nil {
			w.t.Errorf("%s: copied, %s", to, out)
		}
	}
	for _, from := range []string{"his", "to-bob/his", "mine/secret", secret, his + "/his"} {
		if out, err := w.tryCommand("cp", "echo:alice:"+from, w.local("stolen")); err == nil {
			w.t.Errorf("%s: copied, %s", from, out)
		}
	}
	for _, path := range []string{his + "/planted", w.local("planted"), w.local("stolen"), "/etc/planted"} {
		if _, err := os.Lstat(path); err == nil {
			w.t.Errorf("%s is there", path)
		}
	}
	// A file that replaces a link is alice's own.
	w.command("cp", file, "echo:alice:his")
	if got := w.read(filepath.Join(his, "his")); got != "bob\n" {
		w.t.Errorf("bob's is %q", got)
	}
	uid := ownerOf(w.stat(w.remote("his")))
	if id := strings.TrimSpace(w.in("id -u")); id != strconv.Itoa(int(uid)) {
		w.t.Errorf("it belongs to %d, not to %s", uid, id)
	}
}
