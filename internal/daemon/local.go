package daemon

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"tenement/internal/api"
)

// newLocalServer serves the management API on the unix socket, where the kernel says
// who calls.
func newLocalServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			uid, err := api.PeerUID(c)
			if err != nil {
				log.Warn("caller at the local socket is unknown", "error", err)
				return ctx
			}
			return api.WithLocalUser(ctx, uid)
		},
	}
}
