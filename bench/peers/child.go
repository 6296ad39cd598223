package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tenement/bench/load"
)

// Command says what to start.
type Command struct {
	Args   []string
	Dir    string
	Env    []string // "" takes PATH alone
	Stdout *os.File
	Files  []*os.File // passed from descriptor 3 on
}

// endTime is how long a program may take to end when it is told to.
const endTime = 30 * time.Second

// Child is a program that was started, with all that it has started in turn: they are a
// process group.
type Child struct {
	PID    int
	ended  chan struct{}
	err    error    // why it ended; read it when ended is closed
	stderr *os.File // without a name; a pipe would end with us, and an upgraded daemon with the pipe
}

// Start starts a program.
func Start(c Command) (*Child, error) {
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	child := &Child{ended: make(chan struct{})}
	var err error
	if child.stderr, err = unnamed(); err != nil {
		return nil, err
	}
	cmd.Dir, cmd.Env, cmd.Stderr, cmd.ExtraFiles = c.Dir, c.Env, child.stderr, c.Files
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	if cmd.Env == nil {
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	}
	// An interrupt at the terminal is for us, who then end it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, child.stderr.Close())
	}
	child.PID = cmd.Process.Pid
	go func() {
		child.err = cmd.Wait()
		close(child.ended)
	}()
	return child, nil
}

// Stop tells the program to end, and ends it and what it leaves behind if it does not.
func (c *Child) Stop() error {
	_ = syscall.Kill(c.PID, syscall.SIGTERM) // it may have ended
	select {
	case <-c.ended:
		_ = syscall.Kill(-c.PID, syscall.SIGKILL) // nobody is left, as a rule
		return nil
	case <-time.After(endTime):
		return errors.Join(fmt.Errorf("process %d did not end: killed", c.PID), c.Kill())
	}
}

// Kill ends the program and all of its group at once.
func (c *Child) Kill() error {
	err := syscall.Kill(-c.PID, syscall.SIGKILL)
	<-c.ended
	if errors.Is(err, syscall.ESRCH) {
		err = nil
	}
	return err
}

// why is what is known of a program that should still run.
func (c *Child) why() error {
	return errors.Join(errors.New("it ended unasked"), c.err, c.said())
}

// said is the beginning of what the program has printed to its standard error, for messages.
func (c *Child) said() error {
	text := make([]byte, 2<<10)
	n, _ := c.stderr.ReadAt(text, 0) // as much as there is
	return errors.New(strings.TrimSpace(string(text[:n])))
}

// unnamed is a file that goes with its last descriptor.
func unnamed() (*os.File, error) {
	file, err := os.CreateTemp("", "bench")
	if err != nil {
		return nil, err
	}
	return file, os.Remove(file.Name())
}

// FreePort is a port of loopback that nobody listens on now.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("%v has no port", l.Addr())
	}
	return address.Port, nil
}

// startTime bounds how long a program may take until it answers.
const startTime = 2 * time.Minute

// answers waits until a program answers a request with 200.
func (c *Child) answers(ctx context.Context, address, host string) error {
	conn := load.Conn{Address: address}
	defer conn.Close()
	request := load.Request(host, "/")
	var last error
	err := c.await(ctx, func() bool {
		if last = conn.Exchange(ctx, request); last != nil {
			conn.Close()
		}
		return last == nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// writeFile writes a file of a directory that is made when it is missing.
func writeFile(dir, name, text string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
}
