// Command ten runs and manages a tenement: many instances of single-tenant programs
// behind one door. Its subcommands but serve, init, config, doctor, install and
// uninstall are clients of the management API.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// The first signal asks for an orderly end. Handling stops with it, so that the
	// second one ends the program at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
