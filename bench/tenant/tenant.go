// Package tenant has the programs that stand for customers' own, and starts them as
// tenement would, but bare.
package tenant

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tenement/bench/load"
	"tenement/bench/measure"
	"tenement/bench/peers"
)

//go:embed apps
var apps embed.FS

// Program is one that listens on 127.0.0.1:$PORT.
type Program struct {
	Name    string
	Command []string // {port} in it is the port
	Version []string // the command that tells it
	dir     string
}

// Install writes the programs into a directory that everyone may read, and gives those
// that can run here; the others are given to skip. static is the path of the Go one.
func Install(ctx context.Context, dir, static string, skip func(name, why string)) ([]Program, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	entries, err := apps.ReadDir("apps")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		text, err := apps.ReadFile("apps/" + entry.Name())
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, entry.Name()), text, 0o644); err != nil {
			return nil, err
		}
	}
	python := "/usr/bin/python3" // not one of a version manager's, which starts another first
	if _, err := os.Stat(python); err != nil {
		python = "python3"
	}
	all := []Program{
		{Name: "go", Command: []string{static}},
		{Name: "python", Command: []string{python, filepath.Join(dir, "app.py")}, Version: []string{python, "--version"}},
		{Name: "node", Command: []string{"node", filepath.Join(dir, "app.js")}, Version: []string{"node", "--version"}},
		{
			Name:    "uvicorn",
			Command: []string{python, "-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning", "asgi:app"},
			Version: []string{python, "-m", "uvicorn", "--version"},
		},
		{
			Name: "uwsgi",
			Command: []string{
				"uwsgi", "--plugin", "python3", "--http-socket", "127.0.0.1:{port}", "--wsgi-file", filepath.Join(dir, "wsgi.py"),
				"--master", "--processes", "1", "--die-on-term", "--disable-logging",
			},
			Version: []string{"uwsgi", "--version"},
		},
	}
	var there []Program
	for _, p := range all {
		p.dir = dir
		if len(p.Version) > 0 && peers.Version(ctx, p.Version[0], p.Version[1:]...) == "" {
			skip(p.Name, strings.Join(p.Version, " ")+" does not work")
			continue
		}
		if p.Command[0], err = exec.LookPath(p.Command[0]); err != nil {
			return nil, err
		}
		there = append(there, p)
	}
	return there, nil
}

// Service is the section of a configuration that runs the program, with the keys in more.
func (p Program) Service(name, isolation, more string) string {
	quoted := make([]string, len(p.Command))
	for i, word := range p.Command {
		quoted[i] = "'" + word + "'"
	}
	if isolation != "process" {
		more += "\negress = \"deny\""
	}
	return fmt.Sprintf("\n[service.%s]\ncommand = %q\nworkdir = %q\nisolation = %q\nstartup_timeout = 120\nwake_timeout = 120\n%s\n",
		name, strings.Join(quoted, " "), p.dir, isolation, more)
}

// Start starts the program on a port with the environment that tenement gives.
func (p Program) Start(port int) (*peers.Child, error) {
	return peers.Start(peers.Command{Args: peers.WithPort(p.Command, port), Dir: p.dir, Env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "PORT=" + strconv.Itoa(port), "PYTHONUNBUFFERED=1",
	}})
}

// Poll is how long [Program.BareStart] waits between two attempts to connect, for one
// start at a time: what a figure is too large by, at most.
const Poll = 200 * time.Microsecond

// BareStart is the time from begin, before exec, until the program has answered one
// request, and the program, also with an error. It tries to connect every so often.
func (p Program) BareStart(ctx context.Context, begin time.Time, every time.Duration, path string) (*load.First, *peers.Child, error) {
	port, err := peers.FreePort()
	if err != nil {
		return nil, nil, err
	}
	child, err := p.Start(port)
	if err != nil {
		return nil, nil, err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	for time.Since(begin) < 2*time.Minute && ctx.Err() == nil {
		if first, err := load.FirstAnswer(ctx, address, address, path, begin); err == nil {
			return first, child, nil
		}
		measure.Nap(every)
	}
	return nil, child, fmt.Errorf("%s started bare does not answer", p.Name)
}
