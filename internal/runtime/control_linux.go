package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
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
	conn net.Conn
	in   *json.Decoder
}

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
	conn, err := d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
	if err != nil {
		return nil, err
	}
	return &control{conn, json.NewDecoder(io.LimitReader(conn, maxAnswers))}, nil
}

func (c *control) close() { _ = c.conn.Close() }

// call waits for the answer until ctx or the sandbox ends.
func (c *control) call(ctx context.Context, method string, arg, result any) error {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request, err := json.Marshal(struct {
		Method string `json:"method"`
		Arg    any    `json:"arg"`
	}{"containerManager." + method, arg})
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(request); err != nil {
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
		return errors.New(answer.Err)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Result, result)
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

// signal sends sig to the main process.
func (c *control) signal(ctx context.Context, sig syscall.Signal) error {
	return c.call(ctx, "Signal", struct {
		CID              string
		Signo, PID, Mode int
	}{containerID, int(sig), 0, 0}, nil) // PID 0 is the main process, mode 0 means nobody else
}
