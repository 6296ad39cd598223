package main

import (
	"cmp"
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/top"
)

func (a *app) topCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "top",
		Short: "Watch the instances live, and act on them",
		Long: `Watch the instances live: who is awake, what they do and what is wrong with them; sort
them, filter them, follow their logs and wake, stop or restart them. ? shows the keys.`,
		Args:              arguments(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.json || !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stdout.Fd())) {
				return &tenement.Error{
					Code: tenement.CodeInvalid, Err: errors.New("ten top is for people: it needs a terminal"),
					Hint: "for programs there are: ten ps --json, ten events -f --json",
				}
			}
			target, err := a.target()
			if err != nil {
				return err
			}
			client, err := api.NewClient(target)
			if err != nil {
				return err
			}
			if _, err := client.DaemonHealth(cmd.Context()); err != nil {
				return err // said where it can be read, and not on a screen that goes away
			}
			host, _ := os.Hostname() // "" where the machine has none
			return top.Run(cmd.Context(), top.Options{
				Client: client, Where: cmp.Or(target.Server, host),
				Inspect: func(ctx context.Context, id tenement.InstanceID) ([][]string, error) {
					in, err := inspect(ctx, client, id)
					return in.rows(), err
				},
			})
		},
	})
}
