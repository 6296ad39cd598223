package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tenement"
)

// step is one change to the machine. It can be described without being done, and
// leaves alone what is already as it should be.
type step interface {
	// describe writes for people what do would do.
	describe(w io.Writer)
	// do makes the change. It gives what takes it back, or nil if there was nothing to
	// change or nothing can be taken back.
	do(ctx context.Context, m *machine) (undo func() error, err error)
}

// machine is what steps change. A test's is a directory and a list of commands.
type machine struct {
	root string                                                       // in place of /
	run  func(ctx context.Context, command ...string) (string, error) // gives standard output
	user func(name string) (uid, gid int, err error)                  // asked only once an account was made
	tell func(what, name string)                                      // what was done to which file or command

	removeLeft func(dataDir string) error // of the tenants of a daemon that was killed
}

func (m *machine) path(absolute string) string { return filepath.Join(m.root, absolute) }

// apply does the steps in order. When one fails, those before it are undone, latest
// first, so that nothing half-done stays behind.
func (m *machine) apply(ctx context.Context, plan []step) (err error) {
	var undos []func() error
	defer func() {
		if err == nil {
			return
		}
		for _, undo := range slices.Backward(undos) {
			err = errors.Join(err, undo())
		}
	}()
	for _, s := range plan {
		undo, err := s.do(ctx, m)
		if err != nil {
			return err
		}
		if undo != nil {
			undos = append(undos, undo)
		}
	}
	return nil
}

// writeFile is a file of root's with its content.
type writeFile struct {
	path  string // absolute
	mode  fs.FileMode
	group string // whose members may read it; "" for root's
	text  []byte
	from  string // what the text is a copy of, for people; "" shows them the text
	keep  bool   // one that is there stays as it is
}

func (f writeFile) describe(w io.Writer) {
	unless := ""
	if f.keep {
		unless = ", unless it is there"
	}
	if f.from != "" {
		fmt.Fprintf(w, "copy %s to %s\n", f.from, f.path)
		return
	}
	fmt.Fprintf(w, "write %s%s\n", f.path, unless)
	for line := range strings.Lines(string(f.text)) {
		fmt.Fprintln(w, strings.TrimRight("    "+line, " \n"))
	}
}

func (f writeFile) do(_ context.Context, m *machine) (func() error, error) {
	path := m.path(f.path)
	old, err := os.ReadFile(path)
	there := err == nil
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case there && (f.keep || bytes.Equal(old, f.text)):
		return nil, nil
	}
	if err := f.put(m, f.text); err != nil {
		return nil, err
	}
	if there {
		m.tell("renewed", f.path)
		return func() error { return f.put(m, old) }, nil
	}
	m.tell("wrote", f.path)
	return func() error { return os.Remove(path) }, nil
}

// put replaces the file as a whole: whoever reads, or runs, the old one keeps it.
func (f writeFile) put(m *machine, text []byte) (err error) {
	path := m.path(f.path)
	file, err := os.CreateTemp(filepath.Dir(path), ".ten-install-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, err = file.Write(text)
	err = errors.Join(err, file.Chmod(f.mode))
	if err == nil && f.group != "" {
		var gid int
		if _, gid, err = m.user(f.group); err == nil {
			err = file.Chown(-1, gid)
		}
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// makeDir is a directory, with its parents; one that is there stays as it is.
type makeDir struct {
	path  string // absolute
	mode  fs.FileMode
	owner string
}

func (d makeDir) describe(w io.Writer) {
	fmt.Fprintf(w, "make %s, mode %04o, owner %s, unless it is there\n", d.path, d.mode, d.owner)
}

func (d makeDir) do(_ context.Context, m *machine) (func() error, error) {
	path := m.path(d.path)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(path, d.mode); err != nil {
		return nil, err
	}
	// By now a daemon that failed may have left its registry in it; nothing else can be.
	undo := func() error { return os.RemoveAll(path) }
	uid, gid, err := m.user(d.owner)
	if err == nil {
		err = os.Chown(path, uid, gid)
	}
	if err != nil {
		return nil, errors.Join(err, undo())
	}
	m.tell("made", d.path)
	return undo, nil
}

// runCommand is a program that is run to its end, and the one that takes it back.
type runCommand struct {
	command []string // nil: only the one that takes back
	undo    []string // nil: nothing needs to be, or can be, taken back
	hint    string   // where to look when it fails
}

func (c runCommand) describe(w io.Writer) {
	if c.command == nil {
		return
	}
	words := slices.Clone(c.command)
	for i, word := range words {
		if strings.Contains(word, " ") {
			words[i] = "'" + word + "'"
		}
	}
	fmt.Fprintf(w, "run %s\n", strings.Join(words, " "))
}

func (c runCommand) do(ctx context.Context, m *machine) (func() error, error) {
	undo := func() error { return nil }
	if c.undo != nil {
		undo = func() error {
			_, err := m.run(context.WithoutCancel(ctx), c.undo...)
			return err
		}
	}
	if c.command == nil {
		return undo, nil
	}
	if _, err := m.run(ctx, c.command...); err != nil {
		// What failed may have been done in part, such as one of two units started.
		err = errors.Join(err, undo())
		return nil, &tenement.Error{Code: tenement.CodeUnavailable, Err: err, Hint: c.hint}
	}
	return undo, nil
}

// runProgram is [machine.run] on a real machine. The error has what the program said.
func runProgram(ctx context.Context, command ...string) (string, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), err
}

// lookUser is [machine.user] on a real machine. Its answer for a name that is not known
// is CodeNotFound.
func lookUser(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, &tenement.Error{
			Code: tenement.CodeNotFound, Op: "find the user of the daemon", Err: err,
			Hint: "make that user, or leave --user away",
		}
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}
