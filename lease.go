package tenement

import (
	"context"
	"net"
	"net/http"
)

// Lease is the right to talk to one live process of an instance. While it is
// held the instance counts as busy: it is not put to sleep, and an orderly stop
// waits for it. Release it exactly once, when the exchange has ended: the body
// read, the stream or the upgraded connection closed.
type Lease interface {
	Service() *Service
	// Transport sends requests to this very process, never to its successor.
	Transport() http.RoundTripper
	// Dial makes a connection of its own to this very process.
	Dial(ctx context.Context) (net.Conn, error)
	// PID names the process for as long as the lease is held.
	PID() int
	// Gone is closed when the process has ended.
	Gone() <-chan struct{}
	Release()
}

// Transport is an http.RoundTripper whose idle connections can be closed, so that
// a process that is told to end is not kept by connections nobody uses.
type Transport interface {
	http.RoundTripper
	CloseIdleConnections()

	// Offer takes over a connection to the process that nobody uses, for the next request.
	Offer(conn net.Conn)
}
