package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/api"
)

func (a *app) cpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cp (file|directory|-) service:id:path\n  ten cp service:id:path (file|directory|-)",
		Short: "Copy files to or from an instance, whether it sleeps or not",
		Long: `Copy a file, or a directory with all that is in it, to or from an instance, with the
instance's own rights. Its paths are below its data directory unless they begin with a
slash, and are what its program sees. If the destination is a directory, the copy goes
into it under its own name, otherwise the copy is the destination; dir/. is what is in dir.

With - instead of a file, a tar archive is read from standard input, or written to standard
output. The instance sleeps on, or stays awake; a database that is in use is copied by the
program that it belongs to:

  ten exec api:alice -- sqlite3 app.db ".backup copy.db"`,
		Args:                  arguments(2, 2),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeCopy,
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := parseSide(args[0])
			if err != nil {
				return err
			}
			to, err := parseSide(args[1])
			if err != nil {
				return err
			}
			if from.local() == to.local() {
				return sides(cmd, from)
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			c := &copying{client: client, id: from.id, progress: a.progress(), notCopied: &notCopied{to: a.stderr}}
			if to.local() {
				err = c.fetch(cmd.Context(), from.path, to.path, a.stdout)
			} else {
				c.id = to.id
				err = c.send(cmd.Context(), from.path, to.path)
			}
			c.progress.done()
			if errors.Is(err, fs.ErrNotExist) {
				err = missing(err, "")
			}
			return errors.Join(err, c.notCopied.failure())
		},
	}
}

// side is one side of a copy: a path here, or one in an instance.
type side struct {
	id   tenement.InstanceID // zero: here
	path string
}

func (s side) local() bool { return s.id == tenement.InstanceID{} }

// stream is the path of standard input and output.
const stream = "-"

// parseSide takes service:id:path for an instance's; a file here with such a name can be
// written ./service:id:path.
func parseSide(text string) (side, error) {
	service, rest, _ := strings.Cut(text, ":")
	name, path, isRemote := strings.Cut(rest, ":")
	if !isRemote || strings.Contains(service+name, "/") {
		return side{path: text}, nil
	}
	if !utf8.ValidString(path) { // which is what the API's JSON is
		return side{}, &tenement.Error{Code: tenement.CodeInvalid, Err: fmt.Errorf("%s is not valid UTF-8", path), Hint: "copy the directory that it is in"}
	}
	id, err := tenement.ParseInstanceID(service + ":" + name)
	return side{id, path}, err
}

func sides(cmd *cobra.Command, from side) error {
	if !from.local() {
		return &tenement.Error{
			Code: tenement.CodeInvalid, Err: errors.New("both sides are instances"),
			Hint: "write: ten cp api:alice:path - | ten cp - api:bob:directory",
		}
	}
	err := usage(cmd, errors.New("neither side is in an instance"))
	err.Hint = "an instance's side is service:id:path, such as api:alice:app.db, or api:alice: for its whole data directory"
	return err
}

// completeCopy offers instances, and leaves files to the shell.
func (a *app) completeCopy(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	offered, _ := a.completeInstance(cmd, nil, typed)
	for n := range offered {
		id, state, _ := strings.Cut(offered[n], "\t")
		offered[n] = id + ":\t" + state
	}
	return offered, cobra.ShellCompDirectiveNoSpace
}

// copying is one copy to or from an instance: a tar archive that a command in a place of
// the instance's own reads or writes. It trusts nothing that comes from there.
type copying struct {
	client    *api.Client
	id        tenement.InstanceID
	progress  *progress
	notCopied *notCopied
	said      firstBytes // what the command has to say for itself
}

// noSuchPath is the exit status of the scripts when the path they are given is not there.
// tar ends with 1 or 2, and a shell without tar with 127.
const (
	noSuchPath = 3
	noProgram  = 127
)

const (
	// readScript writes an archive of $2 in the directory $1.
	readScript = `[ -e "$1/$2" ] || [ -L "$1/$2" ] || exit 3; exec tar -cf - -C "$1" "./$2"`

	// writeScript unpacks an archive in $1 if that is a directory, and in $2 otherwise. Which
	// one it is decides what the names in it are, so it says that first. The owner is whoever
	// unpacks (-o).
	writeScript = `if [ -d "$1" ]; then cd "$1" && echo into; elif [ -d "$2" ]; then cd "$2" && echo as; else exit 3; fi && exec tar -xopf -`
)

func (c *copying) run(ctx context.Context, s api.ExecStreams, script string, args ...string) (int, error) {
	s.Stderr = &c.said
	return c.client.Run(ctx, c.id, api.ExecRequest{Command: append([]string{"sh", "-c", script, "sh"}, args...)}, s)
}

// remote gives the directory that a path in an instance lies in, with a slash at its end and
// so that no program takes it for an option, and its name there: "." for what is in it.
func remote(text string) (dir, base string) {
	if text == "" || strings.HasSuffix(text, "/") {
		text += "."
	}
	dir, base = path.Split(text)
	if base == ".." {
		dir, base = text+"/", "."
	}
	if !path.IsAbs(dir) {
		dir = "./" + dir
	}
	return dir, base
}

// fetch copies from the instance.
func (c *copying) fetch(ctx context.Context, from, to string, stdout io.Writer) error {
	if named := strings.TrimRight(from, "/"); named != "" {
		from = named // a slash does not take a directory's name away
	}
	dir, base := remote(from)
	if to == stream {
		if isTerminal(stdout) {
			return &tenement.Error{
				Code: tenement.CodeInvalid, Err: errors.New("a tar archive is nothing for a terminal"),
				Hint: fmt.Sprintf("write: ten cp %s:%s - | tar -t", c.id, from),
			}
		}
		status, err := c.run(ctx, api.ExecStreams{Stdin: strings.NewReader(""), Stdout: io.MultiWriter(stdout, c.progress)}, readScript, dir, base)
		return c.outcome(status, err, from)
	}
	target, err := landing(to, base)
	if err != nil {
		return err
	}
	out, in := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := unpack(out, base, target, c.notCopied.add)
		if err == nil {
			_, err = io.Copy(io.Discard, out) // the padding of the archive
		}
		_ = out.CloseWithError(err)
		unpacked <- err
	}()
	status, err := c.run(ctx, api.ExecStreams{Stdin: strings.NewReader(""), Stdout: io.MultiWriter(in, c.progress)}, readScript, dir, base)
	_ = in.CloseWithError(err)
	failed := <-unpacked
	if failed == nil || status != 0 && (errors.Is(failed, errEmpty) || errors.Is(failed, io.ErrUnexpectedEOF)) {
		return c.outcome(status, err, from)
	}
	return failed
}

// landing is where here the copy of something called base lands.
func landing(to, base string) (string, error) {
	info, err := os.Stat(to)
	switch {
	case err == nil && info.IsDir():
		return filepath.Join(to, base), nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", err
	case err != nil && strings.HasSuffix(to, "/"):
		return "", missing(err, "make the directory first, or leave the slash away")
	}
	_, err = os.Stat(filepath.Dir(to))
	return to, err
}

// missing is err with the code that it has for the whole program, unless it has one.
func missing(err error, hint string) error {
	if known := (*tenement.Error)(nil); errors.As(err, &known) {
		return err
	}
	return &tenement.Error{Code: tenement.CodeNotFound, Err: err, Hint: hint}
}

// send copies to the instance.
func (c *copying) send(ctx context.Context, from, to string) error {
	dir, base := remote(to)
	whole := dir + base
	if base == "." || from == stream { // it must be a directory
		dir = whole
	}
	if from == stream {
		if isTerminal(os.Stdin) {
			return &tenement.Error{
				Code: tenement.CodeInvalid, Err: errors.New("standard input is a terminal, and no tar archive"),
				Hint: fmt.Sprintf("write: tar -c FILES | ten cp - %s:%s", c.id, to),
			}
		}
		status, err := c.run(ctx, api.ExecStreams{Stdin: io.TeeReader(os.Stdin, c.progress), Stdout: io.Discard}, writeScript, whole, whole)
		return c.outcome(status, err, to)
	}
	source, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	out, in := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lands, packed := make(chan string, 1), make(chan error, 1)
	go func() {
		name := ""
		select {
		case lands := <-lands:
			if name = base; lands == "into" {
				name = ownName(from)
			}
		case <-ctx.Done():
			packed <- nil // the outcome says why
			return
		}
		err := pack(in, source, name, c.notCopied.add)
		_ = in.Close()
		packed <- err
	}()
	status, err := c.run(ctx, api.ExecStreams{Stdin: io.TeeReader(out, c.progress), Stdout: &firstLine{to: lands}}, writeScript, whole, dir)
	_ = out.Close()
	cancel()
	if failed := <-packed; failed != nil && !errors.Is(failed, io.ErrClosedPipe) {
		return failed
	}
	return c.outcome(status, err, to)
}

// ownName is what a copy of a path is called where it keeps its name; "." for what is in
// a directory.
func ownName(from string) string {
	if name := filepath.Base(from); name != ".." && name != "/" {
		return name
	}
	return "."
}

// outcome says what the end of the command means.
func (c *copying) outcome(status int, err error, path string) error {
	if err != nil || status == 0 {
		return err
	}
	e := &tenement.Error{Code: tenement.CodeInternal, Op: fmt.Sprintf("copy %s:%s", c.id, path), Err: fmt.Errorf("tar ended with status %d", status)}
	if said := strings.TrimSpace(string(c.said)); said != "" {
		e.Err = errors.New(said)
	}
	switch status {
	case noSuchPath:
		e.Code, e.Err = tenement.CodeNotFound, errors.New("no such file or directory")
		e.Hint = fmt.Sprintf("see what is there: ten run %s -- ls -l", c.id)
	case noProgram:
		e.Code = tenement.CodeUnavailable
		e.Hint = "an instance's files are copied by the tar of its own place: install tar on the daemon's machine, or add it to `readable` of [service." + c.id.Service + "]"
	}
	return e
}

// firstBytes keeps the beginning of what is written to it.
type firstBytes []byte

func (b *firstBytes) Write(text []byte) (int, error) {
	const most = 4 << 10
	*b = append(*b, text[:min(len(text), most-len(*b))]...)
	return len(text), nil
}

// firstLine passes on the first line of what is written to it, or as much as one may be.
type firstLine struct {
	begun []byte
	to    chan<- string
}

func (l *firstLine) Write(text []byte) (int, error) {
	const most = 16
	if l.to == nil {
		return len(text), nil
	}
	l.begun = append(l.begun, text[:min(len(text), most)]...)
	if line, _, whole := strings.Cut(string(l.begun), "\n"); whole || len(l.begun) >= most {
		l.to <- line
		l.to = nil
	}
	return len(text), nil
}
