package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tenement"
	"tenement/internal/api"
)

func (a *app) weightCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:               "weight service:id N",
		Short:             "Set an instance's share of its service's own host",
		Args:              arguments(2, 2),
		ValidArgsFunction: a.completeInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := tenement.ParseInstanceID(args[0])
			if err != nil {
				return err
			}
			weight, err := strconv.Atoi(args[1])
			if err != nil {
				return usage(cmd, fmt.Errorf("%q is not a whole number", args[1]))
			}
			if err := tenement.CheckWeight(weight); err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := client.SetWeight(cmd.Context(), id, weight); err != nil {
				return err
			}
			return a.printChanged(cmd.Context(), client, id)
		},
	})
}

func (a *app) deployCommand() *cobra.Command {
	var weight int
	timeout := span(time.Minute)
	cmd := a.onInstance("deploy", "Start a version, wait until it is healthy, give it its weight", func(ctx context.Context, client *api.Client, id tenement.InstanceID) error {
		if err := tenement.CheckWeight(weight); err != nil {
			return err
		}
		fmt.Fprintf(a.stderr, "deploying %s; it gets weight %d once it is healthy\n", id, weight)
		err := a.watch(ctx, client, id, time.Duration(timeout), func(ctx context.Context) error {
			return client.Deploy(ctx, id, weight, time.Duration(timeout))
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(a.stderr, "%s is healthy and has weight %d\n", id, weight)
		return a.printChanged(ctx, client, id)
	})
	cmd.Flags().IntVar(&weight, "weight", 100, "share of its service's own host")
	cmd.Flags().Var(&timeout, "timeout", "to become healthy: seconds, or a time like 2m")
	return cmd
}

// watchInterval is how often a deploy's progress is looked at, for people to read.
const watchInterval = 500 * time.Millisecond

// watch does work and meanwhile says on standard error which states id goes through, and at
// a terminal how much of its time is gone.
func (a *app) watch(ctx context.Context, client *api.Client, id tenement.InstanceID, limit time.Duration, work func(context.Context) error) error {
	begun, line := time.Now(), a.passingLine()
	defer line.show("")
	done := make(chan struct{})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(done)
		return work(ctx)
	})
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	shown := ""
	for {
		select {
		case <-done:
			return group.Wait()
		case <-ticker.C:
		}
		in, err := client.Instance(ctx, id)
		if err != nil {
			continue // not registered yet; whatever else is wrong, work will say
		}
		if state := visible(in.State.String() + " " + in.Reason); state != shown {
			line.show("")
			fmt.Fprintf(a.stderr, "%s: %s\n", id, state)
			shown = state
		}
		line.show(fmt.Sprintf("%s of at most %s", time.Since(begun).Round(time.Second), limit))
	}
}

func (a *app) routeCommand() *cobra.Command {
	var from, to string
	cmd := a.withJSON(&cobra.Command{
		Use:               "route service --from id --to id",
		Short:             "Move all weight from one instance to another, at once",
		Args:              arguments(1, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if from == "" || to == "" {
				return usage(cmd, errors.New("both --from and --to are needed"))
			}
			id, err := tenement.ParseInstanceID(args[0] + ":" + to)
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := client.Route(cmd.Context(), args[0], from, to); err != nil {
				return err
			}
			return a.printChanged(cmd.Context(), client, id)
		},
	})
	cmd.Flags().StringVar(&from, "from", "", "`id` of the instance that gives its weight")
	cmd.Flags().StringVar(&to, "to", "", "`id` of the instance that gets it")
	return cmd
}
