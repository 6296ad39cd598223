package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/api"
)

func (a *app) eventsCommand() *cobra.Command {
	var o api.EventOptions
	var since instant
	var follow bool
	cmd := a.withJSON(&cobra.Command{
		Use:   "events [service:id]",
		Short: "Show and follow who changed what, or tried to",
		Long: `Show the last changes and attempts of changes: when, who and from where, what, and
what became of it. The daemon's own are among them, such as putting an instance to sleep.`,
		Args:              arguments(0, 1),
		ValidArgsFunction: a.completeInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if len(args) == 1 {
				if o.Instance, err = tenement.ParseInstanceID(args[0]); err != nil {
					return err
				}
			}
			o.Since = time.Time(since)
			client, err := a.client()
			if err != nil {
				return err
			}
			if follow {
				return a.followEvents(cmd.Context(), client, o)
			}
			page, err := client.Events(cmd.Context(), o)
			for _, e := range page.Events {
				if err == nil {
					err = a.printEvent(e)
				}
			}
			return err
		},
	})
	flags := cmd.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "go on with what happens, until Ctrl-C")
	flags.StringVar(&o.Actor, "actor", "", "only of `who`: token:ID, local:UID, daemon, or stranger")
	flags.StringVar(&o.Action, "action", "", "only this action, such as spawn")
	flags.Var(&since, "since", "only events since then: an age such as 1h, or a `time` such as 2026-01-31T15:04:05Z")
	flags.IntVar(&o.Limit, "limit", 100, "at most so many, the last ones")
	return cmd
}

// followEvents prints until it is interrupted, which is how it is meant to end.
func (a *app) followEvents(ctx context.Context, client *api.Client, o api.EventOptions) error {
	err := client.FollowEvents(ctx, o, a.remarkLost, a.printEvent)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Ctrl-C
	}
	return err
}

// printEvent prints an event on a line, with room for what most have; as JSON an object.
func (a *app) printEvent(e api.Event) error {
	if a.json {
		return a.printJSONLine(e)
	}
	who, outcome := e.Actor, e.Outcome
	if e.From != "" {
		who += " (" + e.From + ")"
	}
	if e.Detail != "" {
		outcome += ": " + e.Detail
	}
	_, err := fmt.Fprintf(a.stdout, "%s  %-30s  %-12s  %-16s  %s\n",
		e.At.Local().Format(time.DateTime), visible(who), visible(e.Action), visible(e.Target), visible(outcome))
	return err
}
