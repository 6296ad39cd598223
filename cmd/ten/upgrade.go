package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/api"
)

func (a *app) reloadCommand() *cobra.Command {
	var restart bool
	cmd := a.withJSON(&cobra.Command{
		Use:   "reload",
		Short: "Have the daemon read its configuration again: all of it, or nothing",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			r, err := client.Reload(cmd.Context(), restart)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(r)
			}
			a.printReloaded(r)
			return nil
		},
	})
	cmd.Flags().BoolVar(&restart, "restart", false, "restart what runs with another recipe than the configuration has now, one instance at a time")
	return cmd
}

func (a *app) printReloaded(r api.Reloaded) {
	for _, line := range []struct {
		what  string
		names []string
	}{
		{"added", r.Added}, {"removed", r.Removed}, {"changed", r.Changed},
		{"restarted", texts(r.Restarted)}, {"run as before", texts(r.Outdated)},
	} {
		if len(line.names) > 0 {
			fmt.Fprintf(a.stdout, "%s: %s\n", line.what, strings.Join(line.names, ", "))
		}
	}
	if len(r.Outdated) > 0 {
		fmt.Fprintln(a.stdout, "hint: ten reload --restart restarts them, one at a time")
	}
}

func texts(ids []tenement.InstanceID) []string {
	list := make([]string, len(ids))
	for n, id := range ids {
		list[n] = id.String()
	}
	return list
}

func (a *app) upgradeCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "upgrade",
		Short: "Let a new daemon take over, of the program as it is on the disk now; no request is lost",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			u, err := client.Upgrade(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(u)
			}
			fmt.Fprintf(a.stdout, "process %d serves, version %s\n", u.PID, u.Version)
			return nil
		},
	})
}
