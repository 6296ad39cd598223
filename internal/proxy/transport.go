package proxy

import (
	"context"
	"net"
	"net/http"
	"time"

	"tenement"
)

const (
	// maxIdleConns bounds the connections kept to one process. More may be open at once.
	maxIdleConns = 32

	// idleConnTimeout is below what tenants close after (gunicorn 2 s; Node and
	// uvicorn 5 s): a request that is sent just when the tenant closes is lost, and
	// one with a body cannot be sent again. A new connection costs 0.1 ms.
	idleConnTimeout = 1500 * time.Millisecond

	// expectContinueTimeout is what curl waits, too, before it sends the body unasked.
	expectContinueTimeout = time.Second

	// maxResponseHeader bounds what a tenant can make us keep of one header, in bytes.
	maxResponseHeader = 1 << 20
)

// upstreamHost stands in URLs for the process a transport belongs to. It reaches
// no resolver, and a tenant sees it only if its client sent no Host at all.
const upstreamHost = "tenant.invalid"

// NewTransport makes the transport of one process. It speaks HTTP/1.1 over
// connections from dial, whatever host a request names, and adds nothing to what
// it sends.
func NewTransport(dial func(ctx context.Context) (net.Conn, error)) tenement.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConns:           maxIdleConns,
		MaxIdleConnsPerHost:    maxIdleConns,
		IdleConnTimeout:        idleConnTimeout,
		ExpectContinueTimeout:  expectContinueTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
	}
}
