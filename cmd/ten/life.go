package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/api"
)

// lifeCommands change what becomes of an instance.
func (a *app) lifeCommands() []*cobra.Command {
	commands := []*cobra.Command{a.spawnCommand()}
	for _, c := range []struct {
		name, short string
		do          func(*api.Client, context.Context, tenement.InstanceID) error
	}{
		{"start", "Start an instance and wait until it is ready", (*api.Client).Start},
		{"stop", "Put an instance to sleep; the next request wakes it", (*api.Client).Stop},
		{"restart", "End an instance's process and start the next", (*api.Client).Restart},
		{"suspend", "Switch an instance off until it is resumed", (*api.Client).Suspend},
		{"resume", "Let a suspended instance wake again", (*api.Client).Resume},
	} {
		commands = append(commands, a.onInstance(c.name, c.short, func(ctx context.Context, client *api.Client, id tenement.InstanceID) error {
			if err := c.do(client, ctx, id); err != nil {
				return err
			}
			return a.printChanged(ctx, client, id)
		}))
	}
	return append(commands, a.deleteCommand())
}

// onInstance is a command whose one argument is an instance.
func (a *app) onInstance(name, short string, do func(context.Context, *api.Client, tenement.InstanceID) error) *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:               name + " service:id",
		Short:             short,
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := tenement.ParseInstanceID(args[0])
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			return do(cmd.Context(), client, id)
		},
	})
}

// printChanged confirms a change: the instance's name, or all of it as JSON.
func (a *app) printChanged(ctx context.Context, client *api.Client, id tenement.InstanceID) error {
	if !a.json {
		fmt.Fprintln(a.stdout, id)
		return nil
	}
	in, err := client.Instance(ctx, id)
	if err != nil {
		return err
	}
	return a.printJSON(in)
}

func (a *app) spawnCommand() *cobra.Command {
	var weight int
	var noWake bool
	var cmd *cobra.Command
	cmd = a.onInstance("spawn", "Register an instance and start it", func(ctx context.Context, client *api.Client, id tenement.InstanceID) error {
		o := api.SpawnOptions{Wake: !noWake}
		if cmd.Flags().Changed("weight") {
			o.Weight = &weight
			if err := tenement.CheckWeight(weight); err != nil {
				return err
			}
		}
		in, err := client.Spawn(ctx, id, o)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(in)
		}
		a.printTable([][]string{{in.ID.String(), in.State.String(), in.URL}})
		return nil
	})
	cmd.Flags().IntVar(&weight, "weight", 0, "share of its service's own host; without it a new instance has none")
	cmd.Flags().BoolVar(&noWake, "no-wake", false, "only register it")
	return cmd
}

func (a *app) deleteCommand() *cobra.Command {
	var purge bool
	cmd := a.onInstance("delete", "End an instance and forget it", func(ctx context.Context, client *api.Client, id tenement.InstanceID) error {
		if err := client.Delete(ctx, id, purge); err != nil {
			return err
		}
		if a.json {
			return a.printJSON(map[string]any{"id": id, "purged": purge})
		}
		fmt.Fprintln(a.stdout, id)
		return nil
	})
	cmd.Flags().BoolVar(&purge, "purge", false, "remove its files as well, for good")
	return cmd
}
