package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tenement"
	"tenement/internal/config"
	"tenement/internal/proxy"
)

// A relay gives a daemon that has been replaced leases on what is its successor's now:
// for the requests that it has accepted, and for as long as those last. Each lease is a
// connection to a socket in the state directory; so is each connection to a tenant.

// relayPath is where a daemon serves the one it has replaced.
func relayPath(dataDir string) string { return filepath.Join(StateDir(dataDir), "relay.sock") }

// relayRequest asks for a lease, on any process of the instance or on one; or for a
// connection to that one, which holds it as well.
type relayRequest struct {
	Instance tenement.InstanceID `json:"instance"`
	PID      int                 `json:"pid,omitempty"` // 0: whichever serves, woken if need be
	Dial     bool                `json:"dial,omitempty"`
}

// relayReply ends the conversation, or begins the lease.
type relayReply struct {
	PID        int           `json:"pid,omitempty"`
	Code       tenement.Code `json:"code,omitempty"` // "" when it was granted
	Error      string        `json:"error,omitempty"`
	Hint       string        `json:"hint,omitempty"`
	RetryAfter time.Duration `json:"retry_after,omitempty"` // ns
}

// openRelay serves the daemon that this one has replaced at l.
func (d *daemon) openRelay(ctx context.Context, l net.Listener) {
	d.relay = l
	d.relayed.Add(1)
	d.servers.Go(func() error {
		defer d.relayed.Done()
		return d.serveRelay(ctx, l)
	})
}

// serveRelay answers until l is closed, and then waits until nobody holds a lease any
// more. The end of ctx ends all leases.
func (d *daemon) serveRelay(ctx context.Context, l net.Listener) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		conns.Go(func() {
			defer func() { _ = conn.Close() }()
			d.answerRelay(ctx, conn)
		})
	}
}

func (d *daemon) answerRelay(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	r := bufio.NewReader(conn)
	var request relayRequest
	line, err := r.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &request)
	}
	if err != nil {
		d.Log.Warn("a daemon that was replaced is not understood", "error", err)
		return
	}
	if request.Dial {
		d.relayConn(ctx, conn, r, request)
		return
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = r.ReadByte() // nothing more comes: it is the end
		cancel()
	}()
	defer func() { _ = conn.Close(); <-left }()
	lease, err := d.relayLease(ctx, request)
	if err != nil {
		_ = reply(conn, refusalOf(err)) // fails when nobody is there to hear it
		return
	}
	defer lease.Release()
	if reply(conn, relayReply{PID: lease.PID()}) != nil {
		return
	}
	select {
	case <-lease.Gone():
	case <-ctx.Done():
	}
}

func (d *daemon) relayLease(ctx context.Context, r relayRequest) (tenement.Lease, error) {
	if r.PID != 0 {
		return d.hold(ctx, r.Instance, r.PID)
	}
	return d.acquire(ctx, r.Instance)
}

// relayConn connects conn with the tenant.
func (d *daemon) relayConn(ctx context.Context, conn net.Conn, r io.Reader, request relayRequest) {
	lease, err := d.relayLease(ctx, request)
	if err != nil {
		_ = reply(conn, refusalOf(err))
		return
	}
	defer lease.Release()
	tenant, err := lease.Dial(ctx)
	if err != nil {
		_ = reply(conn, refusalOf(err))
		return
	}
	defer func() { _ = tenant.Close() }()
	if reply(conn, relayReply{PID: lease.PID()}) != nil {
		return
	}
	var sent sync.WaitGroup
	sent.Go(func() { carry(tenant, r) })
	carry(conn, tenant)
	_ = tenant.Close()
	_ = conn.Close()
	sent.Wait()
}

// carry copies until from ends and passes the end on. What breaks, breaks for both.
func carry(to net.Conn, from io.Reader) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

func reply(conn net.Conn, r relayReply) error { return json.NewEncoder(conn).Encode(r) }

func refusalOf(err error) relayReply {
	r := relayReply{Code: tenement.CodeOf(err), Error: err.Error(), Hint: tenement.HintOf(err)}
	var ours *tenement.Error
	if errors.As(err, &ours) {
		r.RetryAfter = ours.RetryAfter
	}
	return r
}

// relay gets leases from the daemon that has taken over.
type relay struct {
	path   string
	config func() *config.Config
	held   sync.WaitGroup // one for each lease
}

var _ acquirer = (*relay)(nil)

// Acquire implements acquirer.
func (r *relay) Acquire(ctx context.Context, id tenement.InstanceID) (tenement.Lease, error) {
	return r.lease(ctx, relayRequest{Instance: id})
}

// Hold implements acquirer.
func (r *relay) Hold(ctx context.Context, id tenement.InstanceID, pid int) (tenement.Lease, error) {
	return r.lease(ctx, relayRequest{Instance: id, PID: pid})
}

func (r *relay) lease(ctx context.Context, request relayRequest) (tenement.Lease, error) {
	conn, pid, err := r.ask(ctx, request)
	if err != nil {
		return nil, err
	}
	l := &relayedLease{service: r.config().Services[request.Instance.Service], pid: pid, conn: conn, gone: make(chan struct{})}
	l.dial = func(ctx context.Context) (net.Conn, error) {
		conn, _, err := r.ask(ctx, relayRequest{Instance: request.Instance, PID: pid, Dial: true})
		return conn, err
	}
	l.transport = proxy.NewTransport(l.dial)
	r.held.Go(func() {
		defer close(l.gone)
		_, _ = io.Copy(io.Discard, conn) // nothing comes: it is the end
	})
	return l, nil
}

// The daemon that serves the relay may itself be replaced at any moment: who is not
// answered asks whoever serves it then.
const (
	relayAttempts = 50
	relayPause    = 20 * time.Millisecond
)

// ask makes a connection that stands for what was granted.
func (r *relay) ask(ctx context.Context, request relayRequest) (net.Conn, int, error) {
	var unanswered error
	for range relayAttempts {
		conn, answer, err := r.askOnce(ctx, request)
		switch {
		case ctx.Err() != nil:
			return nil, 0, ctx.Err()
		case err == nil && answer.Code == "":
			return conn, answer.PID, nil
		case err == nil:
			return nil, 0, &tenement.Error{
				Code: answer.Code, Op: "ask the daemon that has taken over",
				Err: errors.New(answer.Error), Hint: answer.Hint, RetryAfter: answer.RetryAfter,
			}
		}
		unanswered = err
		select {
		case <-time.After(relayPause):
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
	return nil, 0, &tenement.Error{
		Code: tenement.CodeUnavailable, Op: "ask the daemon that has taken over", Err: unanswered, RetryAfter: time.Second,
	}
}

// askOnce fails if nobody answers. The connection is closed unless it was granted.
func (r *relay) askOnce(ctx context.Context, request relayRequest) (_ net.Conn, answer relayReply, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", r.path)
	if err != nil {
		return nil, answer, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	reader := bufio.NewReader(conn)
	if err = json.NewEncoder(conn).Encode(request); err == nil {
		var line []byte
		if line, err = reader.ReadBytes('\n'); err == nil {
			err = json.Unmarshal(line, &answer)
		}
	}
	if !stop() {
		err = ctx.Err()
	}
	if err != nil || answer.Code != "" {
		return nil, answer, errors.Join(err, conn.Close())
	}
	return relayedConn{conn, reader}, answer, nil
}

// relayedConn reads what came right after the reply first.
type relayedConn struct {
	net.Conn
	r io.Reader
}

func (c relayedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// CloseWrite ends one direction.
func (c relayedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return os.ErrInvalid
}

// relayedLease is a lease that another daemon has given.
type relayedLease struct {
	service   *tenement.Service
	transport tenement.Transport
	dial      func(context.Context) (net.Conn, error)
	pid       int
	conn      net.Conn
	gone      chan struct{}
}

func (l *relayedLease) Service() *tenement.Service   { return l.service }
func (l *relayedLease) Transport() http.RoundTripper { return l.transport }
func (l *relayedLease) PID() int                     { return l.pid }
func (l *relayedLease) Gone() <-chan struct{}        { return l.gone }

func (l *relayedLease) Dial(ctx context.Context) (net.Conn, error) { return l.dial(ctx) }

func (l *relayedLease) Release() {
	l.transport.CloseIdleConnections()
	_ = l.conn.Close()
	<-l.gone
}
