package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds that keep slow or greedy clients from starving others.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10 // request line and header fields
	pingAfter         = 30 * time.Second
	pingTimeout       = 15 * time.Second
)

// Server is the front: HTTP/1.1, and HTTP/2 without TLS for clients that begin with its
// preface (h2c, RFC 9113 §3.3). It bounds headers in size (64 KiB) and time (10 s) and
// closes connections that are idle for two minutes; bodies and responses are the
// handler's to bound.
//
// Every connection is net/http's, which reads it through a [frontConn]: that answers
// plain requests to instances that are ready by itself, and passes on all others.
// Methods may be called concurrently.
type Server struct {
	handler *Handler // answers directly; nil: net/http serves everything
	http    *http.Server
	ending  atomic.Bool // by Shutdown or Close

	mu    sync.Mutex
	conns map[*frontConn]struct{}
}

// NewServer makes the front of h.
func NewServer(h *Handler) *Server { return newServer(h, h, h.log) }

// newServer has direct, which may be nil, answer what is plain and all the rest.
func newServer(direct *Handler, all http.Handler, log *slog.Logger) *Server {
	s := &Server{handler: direct, conns: make(map[*frontConn]struct{})}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{
		Handler:                      endAfterChunks(all),
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is the tenant's to answer
		ReadHeaderTimeout:            readHeaderTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		Protocols:                    protocols,
		ConnState:                    connState,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if c, ok := conn.(*frontConn); ok {
				c.ctx = ctx
				return context.WithValue(ctx, connKey{}, c)
			}
			return ctx
		},
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:  pingAfter,
			PingTimeout:      pingTimeout,
			WriteByteTimeout: defaultClientStall,
		},
	}
	return s
}

// connKey is the context key of the connection that a request came on.
type connKey struct{}

// connState tells a connection what net/http makes of it.
func connState(conn net.Conn, state http.ConnState) {
	c, ok := conn.(*frontConn)
	switch {
	case !ok:
	case state == http.StateIdle:
		c.takeBack()
	case state == http.StateHijacked:
		c.server.forget(c)
	}
}

// endAfterChunks ends a connection after a request in chunks. If the request has a length
// as well, which net/http does not tell, whoever forwards to us may go by that and take
// for its body what we would take for the next request (RFC 9112 §6.1).
func endAfterChunks(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// Serve serves the connections of l until Shutdown or Close; the error is then
// [http.ErrServerClosed].
func (s *Server) Serve(l net.Listener) error {
	if s.handler != nil {
		l = &frontListener{Listener: l, server: s}
	}
	return s.http.Serve(l)
}

// Shutdown closes the listener and idle connections, and waits until the others have had
// their responses or ctx ends; the error is then ctx's.
func (s *Server) Shutdown(ctx context.Context) error {
	s.ending.Store(true)
	s.each((*frontConn).closeIfUnused)
	if err := s.http.Shutdown(ctx); err != nil {
		return err
	}
	// Those that net/http takes for idle may be answering directly.
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.answering() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Close closes the listener and all connections, whatever they are at.
func (s *Server) Close() error {
	s.ending.Store(true)
	err := s.http.Close()
	s.each(func(c *frontConn) { err = errors.Join(err, c.closeNow()) })
	return err
}

func (s *Server) each(do func(*frontConn)) {
	s.mu.Lock()
	conns := make([]*frontConn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		do(c)
	}
}

// forget is for connections that are closed, or not the server's any more.
func (s *Server) forget(c *frontConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *Server) answering() (any bool) {
	s.each(func(c *frontConn) {
		state := c.state.Load()
		any = any || state == connAnswers || state == connLeaves
	})
	return any
}

// frontListener makes the connections of a [Server].
type frontListener struct {
	net.Listener
	server *Server
}

func (l *frontListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := newFrontConn(l.server, conn)
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	l.server.conns[c] = struct{}{}
	return c, nil
}
