package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// control is a connection to a sandbox: a JSON object for each call and one for its
// answer, one call at a time (gVisor, pkg/urpc and runsc/boot/controller.go). The answers
// come from the sandbox, which a tenant may have taken over: they are short, and believed
// about that sandbox only.
type control struct {
	conn *net.UnixConn
	in   *json.Decoder
}

// refusal is the word of a sandbox that has not done what it was told.
type refusal string

func (r refusal) Error() string { return string(r) }

// maxAnswers is the most that is read on one connection, in bytes.
const maxAnswers = 64 << 10

// dialControl connects to the socket at path, which may be longer than the 107 bytes of
// an address (unix(7)).
func dialControl(ctx context.Context, path string) (*control, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the socket of a sandbox: %w", err)
	}
	defer closeAllFDs([]int{fd})
	var d net.Dialer
	conn, err := d.DialUnix(ctx, "unix", nil, &net.UnixAddr{Name: "/proc/self/fd/" + strconv.Itoa(fd), Net: "unix"})
	if err != nil {
		return nil, err
	}
	return &control{conn, json.NewDecoder(io.LimitReader(conn, maxAnswers))}, nil
}

func (c *control) close() { _ = c.conn.Close() }

// call waits for the answer until ctx or the sandbox ends. It passes descriptors of files.
func (c *control) call(ctx context.Context, method string, arg, result any, files ...*os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request, err := json.Marshal(struct {
		Method string `json:"method"`
		Arg    any    `json:"arg"`
	}{"containerManager." + method, arg})
	if err != nil {
		return err
	}
	if err := c.send(request, files); err != nil {
		return fmt.Errorf("tell the sandbox to %s: %w", method, err)
	}
	var answer struct {
		Success bool            `json:"success"`
		Err     string          `json:"err"`
		Result  json.RawMessage `json:"result"`
	}
	if err := c.in.Decode(&answer); err != nil {
		return fmt.Errorf("tell the sandbox to %s: %w", method, errors.Join(err, ctx.Err()))
	}
	if !answer.Success {
		return refusal(answer.Err)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Result, result)
}

// send writes a request, whose first byte the descriptors come with.
func (c *control) send(request []byte, files []*os.File) error {
	if len(files) > 0 {
		var fds []int
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		_, _, err := c.conn.WriteMsgUnix(request[:1], unix.UnixRights(fds...), nil)
		runtime.KeepAlive(files)
		if err != nil {
			return err
		}
		request = request[1:]
	}
	_, err := c.conn.Write(request)
	return err
}

// start lets the program begin.
func (c *control) start(ctx context.Context) error { return c.call(ctx, "StartRoot", containerID, nil) }

// wait waits for the end of the main process.
func (c *control) wait(ctx context.Context) (syscall.WaitStatus, error) {
	var status uint32
	err := c.call(ctx, "Wait", containerID, &status)
	return syscall.WaitStatus(status), err
}

// pause stops every thread of the program, resume lets them go on.
func (c *control) pause(ctx context.Context) error { return c.call(ctx, "Pause", struct{}{}, nil) }

func (c *control) resume(ctx context.Context) error { return c.call(ctx, "Resume", struct{}{}, nil) }

// execute starts a further process, and gives its pid, as whose leader it has a session.
func (c *control) execute(ctx context.Context, uid int, program command, files []*os.File, terminal bool) (pid int, err error) {
	type none struct{} // of all capabilities
	err = c.call(ctx, "ExecuteAsync", struct {
		Filename                    string   `json:"filename"`
		Argv                        []string `json:"argv"`
		Envv                        []string `json:"envv"`
		WD                          string   `json:"wd"`
		KUID, KGID                  int
		NoNewPrivileges, StdioIsPty bool
		Capabilities                none
		GuestFDs                    []int
		ContainerID                 string
	}{program.path, program.args, program.env, program.dir, uid, uid, true, terminal, none{}, []int{0, 1, 2}, containerID}, &pid, files...)
	return pid, err
}

// waitFor waits for the end of a process that execute has started.
func (c *control) waitFor(ctx context.Context, pid int) (syscall.WaitStatus, error) {
	var status uint32
	err := c.call(ctx, "WaitPID", struct {
		PID int
		CID string
	}{pid, containerID}, &status)
	return syscall.WaitStatus(status), err
}

// whom is whom a signal is for, beside the process that is named with it.
type whom int

const (
	toProcess    whom = 0 // nobody else
	toForeground whom = 2 // instead, the process group that its terminal is for at that moment
	toGroup      whom = 3 // its process group
)

// signal sends sig to a process.
func (c *control) signal(ctx context.Context, sig syscall.Signal, pid int, to whom) error {
	return c.call(ctx, "Signal", struct {
		CID        string
		Signo, PID int
		Mode       whom
	}{containerID, int(sig), pid, to}, nil)
}
