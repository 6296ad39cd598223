package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"tenement/bench/measure"
)

// Sleeper is somebody else's way to start a program with the first connection.
type Sleeper struct {
	Name    string
	Address string

	child *Child
	begin func() (*Child, error) // starts what listens
}

// Listen starts what listens and waits until it does. The program sleeps.
func (s *Sleeper) Listen(ctx context.Context) (err error) {
	if s.child, err = s.begin(); err != nil {
		return err
	}
	return s.child.await(ctx, func() bool { return listens(s.Address) })
}

// Stop ends the program and what listens for it.
func (s *Sleeper) Stop() error {
	if s.child == nil {
		return nil
	}
	child := s.child
	s.child = nil
	return child.Stop()
}

// SocketActivation has systemd-socket-activate pass the socket to a program that takes it.
func SocketActivation(words []string) (*Sleeper, error) {
	return activation("systemd-socket-activate", "", func(int) []string { return words })
}

// SocketProxy has systemd-socket-activate start a program, whose {port} is filled in, and
// systemd-socket-proxyd before it. dir is for a script, workdir the program's.
func SocketProxy(dir, workdir string, words []string) (*Sleeper, error) {
	text, err := files.ReadFile("proxyd.sh")
	if err != nil {
		return nil, err
	}
	if err := writeFile(dir, "proxyd.sh", string(text)); err != nil {
		return nil, err
	}
	return activation("systemd-socket-activate, -proxyd", workdir, func(port int) []string {
		return append([]string{"bash", filepath.Join(dir, "proxyd.sh"), strconv.Itoa(port)}, WithPort(words, port)...)
	})
}

// WithPort fills {port} in.
func WithPort(words []string, port int) []string {
	filled := make([]string, len(words))
	for i, word := range words {
		filled[i] = strings.ReplaceAll(word, "{port}", strconv.Itoa(port))
	}
	return filled
}

func activation(name, workdir string, words func(port int) []string) (*Sleeper, error) {
	program, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	return &Sleeper{
		Name: name, Address: address,
		begin: func() (*Child, error) {
			port, err := FreePort()
			if err != nil {
				return nil, err
			}
			return Start(Command{Args: append([]string{program, "-l", address}, words(port)...), Dir: workdir})
		},
	}, nil
}

// Emperor is uWSGI's: it starts a vassal for app, a file with a WSGI application.
func Emperor(dir, app string) (*Sleeper, error) {
	program, err := exec.LookPath("uwsgi")
	if err != nil {
		return nil, err
	}
	pattern, err := template.ParseFS(files, "uwsgi.ini")
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := pattern.Execute(&text, app); err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	err = errors.Join(writeFile(dir, "app.ini", text.String()), writeFile(dir, "app.ini.socket", address))
	return &Sleeper{
		Name: "uWSGI Emperor", Address: address,
		begin: func() (*Child, error) {
			return Start(Command{Args: []string{
				program, "--emperor", dir, "--emperor-on-demand-extension", ".socket", "--emperor-freq", "1", "--die-on-term",
			}})
		},
	}, err
}

// listens says whether somebody listens at an address of IPv4's loopback, without
// connecting, which would be taken for a client (proc_pid_net(5)).
func listens(address string) bool {
	_, text, _ := strings.Cut(address, ":")
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return false
	}
	const listen = "0A"
	table, _ := os.ReadFile("/proc/self/net/tcp") // unreadable: nobody is seen
	local := fmt.Sprintf("0100007F:%04X", port)
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) > 3 && fields[1] == local && fields[3] == listen {
			return true
		}
	}
	return false
}

// await waits until a condition comes true that a running child is to bring about.
func (c *Child) await(ctx context.Context, is func() bool) error {
	for end := time.Now().Add(startTime); !is(); measure.Nap(5 * time.Millisecond) {
		select {
		case <-c.ended:
			return c.why()
		default:
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return errors.Join(errors.New("it does not become ready"), ctx.Err(), c.said())
		}
	}
	return nil
}
