package api

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"tenement"
)

// ExecRequest asks for a command in an instance.
type ExecRequest struct {
	Command []string  `json:"command" minItems:"1" maxItems:"1000" nullable:"false" doc:"the program and its arguments"`
	Size    *TermSize `json:"terminal,omitempty" doc:"give it a terminal of this size; without, it has pipes"`
}

// TermSize is the size of a terminal in characters.
type TermSize struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

// Session is a command that runs. Stdout and Stderr end with it, or when nothing more
// comes; Stderr is nil with a terminal.
type Session struct {
	Stdin          io.WriteCloser
	Stdout, Stderr io.Reader
	Resize         func(TermSize) error
	Signal         func(number int) error
	Wait           func() int // its exit status; 128 and the signal's number when one ended it
	Close          func()     // ends what is left of it; may be called again
}

// execProtocol is what a connection speaks once it was upgraded: frames of a kind (one
// byte), a length (four, the highest first) and so many bytes.
const execProtocol = "tenement-exec"

type frameKind byte

const (
	frameStdin  frameKind = iota // to the command; an empty one is the end
	frameResize                  // four bytes: rows and columns
	frameSignal                  // one byte: its number
	frameStdout                  // from it
	frameStderr
	frameMore // empty: a frame of input was taken
	frameExit // four bytes: the status; the last one
)

const (
	maxFrame   = 32 << 10 // bytes
	maxAhead   = 8        // frames of input that were not taken yet: others must not wait behind them
	lastOutput = 300 * time.Millisecond
)

// frames writes frames, one at a time.
type frames struct {
	mu   sync.Mutex
	conn io.Writer
}

func (f *frames) write(kind frameKind, text []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	head := [5]byte{byte(kind)}
	binary.BigEndian.PutUint32(head[1:], uint32(len(text)))
	_, err := f.conn.Write(append(head[:], text...))
	return err
}

// readFrame gives a frame of at most maxFrame bytes.
func readFrame(r io.Reader) (frameKind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length > maxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes is too long", length)
	}
	text := make([]byte, length)
	_, err := io.ReadFull(r, text)
	return frameKind(head[0]), text, err
}

type execInput struct {
	ID   tenement.InstanceID `path:"instance" doc:"service:name" example:"api:alice"`
	Body ExecRequest
}

// exec starts a command; the answer is an upgraded connection, or a problem. The audit log
// has the program's name alone: arguments may be secrets.
func exec(start func(Backend, context.Context, tenement.InstanceID, ExecRequest) (*Session, error)) handler[execInput, huma.StreamResponse] {
	return func(s *Server, ctx context.Context, c *call, in *execInput) (*huma.StreamResponse, error) {
		c.detail = in.Body.Command[0]
		if !c.upgradable {
			return nil, refusal(http.StatusUpgradeRequired, "the connection must be upgraded", "send: Connection: Upgrade and Upgrade: "+execProtocol)
		}
		session, err := start(s.backend, ctx, in.ID, in.Body)
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			defer session.Close()
			_, w := humago.Unwrap(hc)
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				s.log.ErrorContext(ctx, "a connection cannot be upgraded", "err", err)
				return
			}
			defer conn.Close()
			session.serve(conn)
		}}, nil
	}
}

// mountUpgrade is mount for a route that answers with a connection.
func mountUpgrade(h handler[execInput, huma.StreamResponse]) func(*Server, huma.API, huma.Operation) {
	return func(s *Server, a huma.API, op huma.Operation) {
		op.DefaultStatus = http.StatusSwitchingProtocols
		op.Responses = map[string]*huma.Response{"101": {
			Description: "The connection is the command's, in frames of a kind (one byte), a length (four bytes, the highest first) and the text: docs/exec.md. Asked for with Upgrade: " + execProtocol + ".",
		}}
		mount(h)(s, a, op)
	}
}

// serve carries the session until its command has ended or the client is gone, which ends
// the command.
func (s *Session) serve(conn net.Conn) {
	_ = conn.SetDeadline(time.Time{})
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+execProtocol+"\r\n\r\n"); err != nil {
		return
	}
	out := &frames{conn: conn}
	go s.takeInput(conn, out)
	var copies []*copying
	for kind, from := range map[frameKind]io.Reader{frameStdout: s.Stdout, frameStderr: s.Stderr} {
		if from != nil {
			copies = append(copies, startCopying(out, kind, from, s.Close))
		}
	}
	status := s.Wait()
	for _, c := range copies {
		c.finish()
	}
	_ = out.write(frameExit, binary.BigEndian.AppendUint32(nil, uint32(status))) // or nobody is there
}

func (s *Session) takeInput(conn io.Reader, out *frames) {
	defer s.Close() // the client is gone, or the session over
	input := make(chan []byte, maxAhead)
	defer close(input)
	go s.passInput(input, out)
	for {
		kind, text, err := readFrame(conn)
		switch {
		case err != nil:
			return
		case kind == frameStdin && len(input) == maxAhead:
			return // it was told not to
		case kind == frameStdin:
			input <- text
		case kind == frameResize && len(text) == 4:
			_ = s.Resize(TermSize{binary.BigEndian.Uint16(text), binary.BigEndian.Uint16(text[2:])})
		case kind == frameSignal && len(text) == 1:
			_ = s.Signal(int(text[0]))
		}
	}
}

func (s *Session) passInput(input <-chan []byte, out *frames) {
	for text := range input {
		if len(text) == 0 {
			_ = s.Stdin.Close()
		} else {
			_, _ = s.Stdin.Write(text) // fails when the command does not want it
		}
		_ = out.write(frameMore, nil) // fails when nobody has more
	}
}

// copying carries what a command prints.
type copying struct {
	waits atomic.Bool // for something to be printed
	seen  atomic.Int64
	done  chan struct{}
}

func startCopying(out *frames, kind frameKind, from io.Reader, broken func()) *copying {
	c := &copying{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		buf := make([]byte, maxFrame)
		for {
			c.waits.Store(true)
			n, err := from.Read(buf)
			c.waits.Store(false)
			c.seen.Add(int64(n))
			if n > 0 && out.write(kind, buf[:n]) != nil {
				broken()
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return c
}

// finish returns when all was carried that an ended command has printed. What it started
// and left may have its output for ever: that is waited for only for an instant.
func (c *copying) finish() {
	tick := time.NewTicker(lastOutput)
	defer tick.Stop()
	for before := int64(-1); ; {
		select {
		case <-c.done:
			return
		case <-tick.C:
		}
		now := c.seen.Load()
		if c.waits.Load() && now == before {
			return
		}
		before = now
	}
}

// ExecStreams is what a command is connected to. Only Stdin, Stdout and Stderr are
// required. Stdin may be read once more after the end of the command.
type ExecStreams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Sizes          <-chan TermSize
	Signals        <-chan int // numbers
}

// Exec runs a command where an instance's process is, and wakes it if need be; the status
// is the command's. The end of ctx ends the command.
func (c *Client) Exec(ctx context.Context, id tenement.InstanceID, r ExecRequest, s ExecStreams) (status int, err error) {
	return c.exec(ctx, pathOf(id)+"/exec", r, s)
}

// Run is [Client.Exec] in a place of its own, whether the instance sleeps or not.
func (c *Client) Run(ctx context.Context, id tenement.InstanceID, r ExecRequest, s ExecStreams) (status int, err error) {
	return c.exec(ctx, pathOf(id)+"/run", r, s)
}

func (c *Client) exec(ctx context.Context, path string, r ExecRequest, s ExecStreams) (int, error) {
	conn, err := c.upgrade(ctx, path, r)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	in := &frames{conn: conn}
	over := make(chan struct{})
	defer close(over)
	more := make(chan struct{}, maxAhead)
	for range maxAhead {
		more <- struct{}{}
	}
	go in.sendInput(s.Stdin, more, over)
	go in.sendEvents(s, over)
	reader := bufio.NewReader(conn)
	for {
		kind, text, err := readFrame(reader)
		switch {
		case err != nil:
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return 0, c.unanswered(ctx, fmt.Errorf("the connection broke, and with it the command: %w", err))
		case kind == frameStdout:
			_, err = s.Stdout.Write(text)
		case kind == frameStderr:
			_, err = s.Stderr.Write(text)
		case kind == frameMore && len(more) < maxAhead:
			more <- struct{}{}
		case kind == frameExit && len(text) == 4:
			return int(binary.BigEndian.Uint32(text)), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func (f *frames) sendInput(from io.Reader, more, over <-chan struct{}) {
	buf := make([]byte, maxFrame)
	for {
		n, err := from.Read(buf)
		if n > 0 && !f.sendOne(buf[:n], more, over) {
			return
		}
		if err != nil {
			f.sendOne(nil, more, over)
			return
		}
	}
}

// sendOne sends a frame of input as soon as it may.
func (f *frames) sendOne(text []byte, more, over <-chan struct{}) (sent bool) {
	select {
	case <-more:
		return f.write(frameStdin, text) == nil
	case <-over:
		return false
	}
}

func (f *frames) sendEvents(s ExecStreams, over <-chan struct{}) {
	for {
		select {
		case size := <-s.Sizes:
			_ = f.write(frameResize, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, size.Rows), size.Columns))
		case number := <-s.Signals:
			_ = f.write(frameSignal, []byte{byte(number)})
		case <-over:
			return
		}
	}
}

// upgrade asks on a connection of its own, because HTTP/2 has no upgrades.
func (c *Client) upgrade(ctx context.Context, path string, in any) (io.ReadWriteCloser, error) {
	text, err := json.Marshal(in)
	if err != nil {
		return nil, &tenement.Error{Code: tenement.CodeInternal, Op: "write request", Err: err}
	}
	req, err := c.request(ctx, http.MethodPost, c.base+path, text)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", execProtocol)
	transport, ok := c.http.Transport.(*http.Transport)
	if !ok {
		return nil, &tenement.Error{Code: tenement.CodeInternal, Op: "reach the daemon", Err: errors.New("its connections cannot be upgraded")}
	}
	transport = transport.Clone()
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, c.unanswered(ctx, err)
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		defer resp.Body.Close()
		if err := c.read(ctx, resp, nil); err != nil {
			return nil, err
		}
		return nil, notOurs(errors.New("the connection was not upgraded"))
	}
	return conn, nil
}
