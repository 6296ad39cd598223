package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tenement/internal/api"
)

func (a *app) tokenGenCommand() *cobra.Command {
	var tenant string
	var expires span
	cmd := a.withJSON(&cobra.Command{
		Use:   "token-gen",
		Short: "Make a token for the management API",
		Long:  "Make a token for the management API. The token alone goes to standard output.",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			t, err := client.CreateToken(cmd.Context(), tenant, time.Duration(expires))
			if err != nil {
				return err
			}
			a.remarkOn(t)
			if a.json {
				return a.printJSON(t)
			}
			fmt.Fprintln(a.stdout, t.Secret)
			return nil
		},
	})
	cmd.Flags().StringVar(&tenant, "tenant", "", "let it only read, and only about instances of this `name`")
	cmd.Flags().Var(&expires, "expires", "end it after so long, such as 90d; without it, it does not expire")
	return cmd
}

// remarkOn says what the token is for, apart from the token itself.
func (a *app) remarkOn(t api.NewSecret) {
	what := "an admin's: it may do everything, and the newest is also in <data_dir>/.tenement/api_token"
	if t.Tenant != "" {
		what = "for " + t.Tenant + ": it may read about instances of that name"
	}
	ends := "does not expire"
	if !t.ExpiresAt.IsZero() {
		ends = "expires " + t.ExpiresAt.Local().Format(time.DateTime)
	}
	fmt.Fprintf(a.stderr, "token %s, %s; it %s and is not shown again\n", visible(t.ID), what, ends)
}

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "List and end tokens of the management API",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usage(cmd, fmt.Errorf("say which: %s ls, or %s revoke", cmd.CommandPath(), cmd.CommandPath()))
		},
	}
	cmd.AddCommand(
		a.withJSON(&cobra.Command{
			Use:   "ls",
			Short: "List tokens",
			Args:  arguments(0, 0),
			RunE:  func(cmd *cobra.Command, _ []string) error { return a.listTokens(cmd) },
		}),
		a.withJSON(&cobra.Command{
			Use:               "revoke id",
			Short:             "End a token",
			Args:              arguments(1, 1),
			ValidArgsFunction: a.completeToken,
			RunE:              func(cmd *cobra.Command, args []string) error { return a.revokeToken(cmd, args[0]) },
		}),
	)
	return cmd
}

func (a *app) listTokens(cmd *cobra.Command) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	list, err := client.Tokens(cmd.Context())
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(list)
	}
	now := time.Now()
	rows := [][]string{{"ID", "SCOPE", "CREATED", "LAST USED", "EXPIRES"}}
	for _, t := range list {
		rows = append(rows, []string{t.ID, cmp.Or(t.Tenant, "(admin)"), ago(t.CreatedAt, now), ago(t.LastUsed, now), until(t.ExpiresAt, now)})
	}
	a.printTable(rows)
	return nil
}

func (a *app) revokeToken(cmd *cobra.Command, id string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	if err := client.RevokeToken(cmd.Context(), id); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]string{"id": id})
	}
	fmt.Fprintln(a.stdout, id)
	return nil
}
