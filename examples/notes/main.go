// Command notes keeps one person's notes: a single-tenant program with its own
// SQLite file and no idea of tenants. It reads PORT and DATA_DIR and nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// stopTimeout bounds how long requests under way may take after SIGTERM. It is
// shorter than the stop_timeout of the hypervisor, which then sends SIGKILL.
const stopTimeout = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Getenv("PORT"), os.Getenv("DATA_DIR")); err != nil {
		slog.Error("notes", "err", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, then lets the requests under way finish.
func run(ctx context.Context, port, dataDir string) (err error) {
	if port == "" || dataDir == "" {
		return errors.New("PORT and DATA_DIR must be set, as in: PORT=8001 DATA_DIR=/tmp notes")
	}
	notes := newNotebook(filepath.Join(dataDir, "app.db"))
	defer func() { err = errors.Join(err, notes.Close()) }()

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           newHandler(notes, time.Now()),
		ReadHeaderTimeout: 10 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Println("notes listens on", listener.Addr())

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		return err
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
