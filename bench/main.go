// Command bench measures tenement beside what else does its work, in one run, and
// writes the report: see docs/performance.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// longest bounds a run, whatever happens.
const longest = 90 * time.Minute

func main() {
	if err := ownNetwork(); err != nil {
		fmt.Fprintln(os.Stderr, "error: a network of the run's own:", err)
		os.Exit(1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// command runs what the arguments ask for and writes the report.
func command(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	o := options{log: os.Stderr}
	flags.StringVar(&o.suites, "suite", "", "`suites` to run, with commas; all if empty")
	flags.BoolVar(&o.quick, "quick", false, "a smoke run of little time, whose figures mean nothing")
	flags.StringVar(&o.results, "results", "bench/results", "`directory` for the report")
	flags.StringVar(&o.root, "root", ".", "`directory` of the repository")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errors.New("bench takes no arguments")
	}
	path, err := run(ctx, o)
	if path != "" {
		fmt.Println(path)
	}
	return err
}
