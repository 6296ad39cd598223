package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tenement"
	"tenement/internal/api"
)

// execCommands run commands in instances.
func (a *app) execCommands() []*cobra.Command {
	return []*cobra.Command{
		a.execCommand("exec", "Run a command where an instance's process is", `Run a command where an instance's process is: as its user, in its namespaces, with its
limits and its environment, in its data directory. What sleeps is woken, and stays awake
until the command has ended.`, (*api.Client).Exec),
		a.execCommand("run", "Run a command with an instance's data, whether it sleeps or not", `Run a command with an instance's data, limits and environment in a place of its own, and
pass on its exit status. The instance sleeps on, or stays awake; as long as the command
runs, it cannot be deleted.`, (*api.Client).Run),
	}
}

func (a *app) execCommand(name, short, long string, do func(*api.Client, context.Context, tenement.InstanceID, api.ExecRequest, api.ExecStreams) (int, error)) *cobra.Command {
	var without bool
	cmd := &cobra.Command{
		Use:               name + " service:id -- command [argument...]",
		Short:             short,
		Long:              long + "\n\nWith a terminal on both sides it has one, too.",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 && args[1] == "--" {
				args = append(args[:1:1], args[2:]...)
			}
			if len(args) < 2 {
				return usage(cmd, errors.New("say in which instance, and which command"))
			}
			id, err := tenement.ParseInstanceID(args[0])
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			status, err := a.exec(cmd.Context(), without, api.ExecRequest{Command: args[1:]}, func(ctx context.Context, r api.ExecRequest, s api.ExecStreams) (int, error) {
				return do(client, ctx, id, r, s)
			})
			if err == nil && status != 0 {
				return exited(status)
			}
			return err
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the instance is the command's
	cmd.Flags().BoolVar(&without, "no-terminal", false, "give it none")
	return cmd
}

// exited is the exit status of a command in an instance, which is ours then.
type exited int

func (e exited) Error() string { return "exit status " + strconv.Itoa(int(e)) }

// forwarded are the signals that are for the command.
var forwarded = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM}

func (a *app) exec(ctx context.Context, without bool, r api.ExecRequest, do func(context.Context, api.ExecRequest, api.ExecStreams) (int, error)) (int, error) {
	ctx = context.WithoutCancel(ctx) // the signal that ends it goes to the command
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	sizes, numbers := make(chan api.TermSize, 1), make(chan int, 8)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if in, out := int(os.Stdin.Fd()), int(os.Stdout.Fd()); !without && term.IsTerminal(in) && term.IsTerminal(out) {
		before, err := term.MakeRaw(in)
		if err != nil {
			return 0, fmt.Errorf("prepare the terminal: %w", err)
		}
		defer func() { _ = term.Restore(in, before) }() // nothing more can be done for it
		r.Size = sizeOf(out)
		signal.Notify(signals, syscall.SIGWINCH)
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
				passOn(s, sizes, numbers)
			}
		}
	}()
	return do(ctx, r, api.ExecStreams{Stdin: os.Stdin, Stdout: a.stdout, Stderr: a.stderr, Sizes: sizes, Signals: numbers})
}

// passOn waits for nobody: of sizes the last one counts.
func passOn(s os.Signal, sizes chan api.TermSize, numbers chan<- int) {
	if s == syscall.SIGWINCH {
		select {
		case <-sizes:
		default:
		}
		sizes <- *sizeOf(int(os.Stdout.Fd()))
		return
	}
	if number, ok := s.(syscall.Signal); ok {
		select {
		case numbers <- int(number):
		default:
		}
	}
}

// sizeOf is what most terminals have where one does not say.
func sizeOf(fd int) *api.TermSize {
	columns, rows, err := term.GetSize(fd)
	if err != nil || columns <= 0 || rows <= 0 {
		columns, rows = 80, 24
	}
	return &api.TermSize{Rows: uint16(rows), Columns: uint16(columns)}
}
