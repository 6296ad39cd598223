package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
)

// sitting is somebody at a terminal at which a program runs.
type sitting struct {
	t        *testing.T
	terminal *runtime.Terminal
	cmd      *exec.Cmd
	ended    chan error
	wide     bool

	mu    sync.Mutex
	shown bytes.Buffer // since the last resize
}

// sit runs a command of ten at a terminal of 80 by 24; env is added to its environment.
func (d *daemon) sit(env []string, args ...string) *sitting {
	d.t.Helper()
	terminal, err := runtime.OpenTerminal(0)
	if err != nil {
		d.t.Fatal(err)
	}
	s := &sitting{t: d.t, terminal: terminal, ended: make(chan error, 1)}
	s.resize(80)
	s.cmd = exec.Command(d.ten, append(args, "--config", d.config, "--data-dir", d.dataDir)...)
	s.cmd.Env = append(append(os.Environ(), "TERM=xterm-256color", "COLORTERM="), env...)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = terminal.Other, terminal.Other, terminal.Other
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	_ = terminal.Other.Close()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := terminal.Read(buf)
			s.mu.Lock()
			s.shown.Write(buf[:n])
			s.mu.Unlock()
			if err != nil { // nobody has the other end
				s.ended <- s.cmd.Wait()
				return
			}
		}
	}()
	d.t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // most have ended
		err := <-s.ended
		s.ended <- err
		terminal.Close()
	})
	return s
}

// resize has the program draw everything anew, and forgets what it has drawn.
func (s *sitting) resize(columns uint16) {
	s.t.Helper()
	s.mu.Lock()
	s.shown.Reset()
	s.mu.Unlock()
	if err := s.terminal.Resize(24, columns); err != nil {
		s.t.Fatal(err)
	}
}

// sequence is an escape sequence: a command (ECMA-48 CSI), or a text for the terminal (OSC).
var sequence = regexp.MustCompile(`\x1b\[[0-9;:?<=>]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)|\x1b[()][0-9A-B]|\x1b[=>78M]`)

// sees waits until there are words on the screen. Between words there may be commands
// that move the cursor instead of blanks.
func (s *sitting) sees(words ...string) {
	s.t.Helper()
	s.looks("the screen has "+strings.Join(words, ", "), func(text string) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, word) })
	})
}

// looks waits until the screen is as wanted.
func (s *sitting) looks(wanted string, is func(text string) bool) {
	s.t.Helper()
	text, looks := "", 0
	defer func() {
		if s.t.Failed() {
			s.t.Logf("the screen: %q", text)
		}
	}()
	runtimetest.Eventually(s.t, wanted, func() bool {
		s.mu.Lock()
		text = sequence.ReplaceAllString(s.shown.String(), " ")
		s.mu.Unlock()
		if is(text) {
			return true
		}
		if looks++; looks%100 == 0 { // changes alone were drawn
			s.wide = !s.wide
			s.resize(map[bool]uint16{false: 80, true: 81}[s.wide])
		}
		return false
	})
}

func (s *sitting) types(keys string) {
	s.t.Helper()
	if _, err := s.terminal.Write([]byte(keys)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sitting) raw() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

// sleepless registers an instance that does not go to sleep by itself.
func (d *daemon) sleepless(name string) {
	d.t.Helper()
	d.command("spawn", "notes:"+name, "--no-wake")
	d.command("set", "notes:"+name, "--idle", "0")
}

// TestTop watches a daemon as people do.
func TestTop(t *testing.T) {
	t.Parallel()
	d := start(t, "notes")
	d.sleepless("alice")
	d.command("start", "notes:alice")
	d.sleepless("bob")
	d.sleepless("carol")
	d.command("start", "notes:carol")

	s := d.sit(nil, "top")
	s.sees("notes:alice", "ready", "1 at rest")
	if !strings.Contains(s.raw(), "\x1b[32m") {
		t.Errorf("what is ready is not green: %q", s.raw())
	}
	s.types("z")
	s.sees("notes:alice?", "yes")
	s.types("y")
	runtimetest.Eventually(t, "alice sleeps", func() bool { return d.command("ps", "-q") == "notes:carol\n" })
	s.sees("2 at rest")

	s.types("\t\t") // all
	s.sees("notes:bob")
	s.types("/bo\r")
	s.looks("bob is listed, and carol is not", func(text string) bool {
		return strings.Contains(text, "/bo") && strings.Contains(text, "notes:bob") && !strings.Contains(text, "notes:carol")
	})
	s.types("w")
	runtimetest.Eventually(t, "bob is awake", func() bool { return d.command("ps", "-q") == "notes:bob\nnotes:carol\n" })
	s.types("e")
	s.sees("events", "notes:alice", "stop")
	s.types("ql")
	s.sees("notes:bob", "search")
	s.types("qq")
	if err := runtimetest.Within(t, "the end of ten top", s.ended); err != nil {
		t.Errorf("ten top: %v", err)
	}
	s.ended <- nil
	if !strings.Contains(s.raw(), "\x1b[?1049l") {
		t.Errorf("the terminal was left as it is: %q", s.raw())
	}
}

// TestTopInBlackAndWhite, and that SIGTERM leaves the terminal as it was.
func TestTopInBlackAndWhite(t *testing.T) {
	t.Parallel()
	d := start(t, "notes")
	d.sleepless("alice")
	d.command("start", "notes:alice")
	s := d.sit([]string{"NO_COLOR=1"}, "top")
	s.sees("notes:alice", "ready")
	if colour := regexp.MustCompile(`\x1b\[[0-9;]*\b(3[0-8]|4[0-8]|9[0-7])\b[0-9;:]*m`).FindString(s.raw()); colour != "" {
		t.Errorf("there is a colour: %q", colour)
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := runtimetest.Within(t, "the end of ten top", s.ended); err != nil {
		t.Errorf("ten top: %v", err)
	}
	s.ended <- nil
	if !strings.Contains(s.raw(), "\x1b[?1049l") {
		t.Errorf("the terminal was left as it is: %q", s.raw())
	}
}

// TestTopNeedsATerminal, and says what programs use.
func TestTopNeedsATerminal(t *testing.T) {
	t.Parallel()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"top"}, {"top", "--json"}} {
		out, err := exec.Command(filepath.Join(root, "bin", "ten"), args...).CombinedOutput()
		var status *exec.ExitError
		if !errors.As(err, &status) || status.ExitCode() != 2 || !strings.Contains(string(out), "hint: for programs there are: ten ps --json") {
			t.Errorf("ten %v: %v, %s", args, err, out)
		}
	}
}
