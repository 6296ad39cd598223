package proxy

import (
	"log/slog"
	"net/http"
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

// NewServer makes the front: HTTP/1.1, and HTTP/2 without TLS for clients that
// begin with its preface (h2c, RFC 9113 §3.3). It bounds headers in size (64 KiB)
// and time (10 s) and closes connections that are idle for two minutes; bodies
// and responses are h's to bound.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:                      endAfterChunks(h),
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is the tenant's to answer
		ReadHeaderTimeout:            readHeaderTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		Protocols:                    protocols,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:  pingAfter,
			PingTimeout:      pingTimeout,
			WriteByteTimeout: defaultClientStall,
		},
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
