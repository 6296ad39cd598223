package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/api"
)

func (a *app) tokenGenCommand() *cobra.Command {
	var o api.TokenOptions
	var scope string
	var expires span
	cmd := a.withJSON(&cobra.Command{
		Use:   "token-gen",
		Short: "Make a token for the management API",
		Long:  "Make a token for the management API. The token alone goes to standard output.",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Scope.Role, o.Lifetime = tenement.Role(scope), time.Duration(expires)
			client, err := a.client()
			if err != nil {
				return err
			}
			t, err := client.CreateToken(cmd.Context(), o)
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
	flags := cmd.Flags()
	flags.StringVar(&o.Name, "name", "", "what to call it, such as ci")
	flags.StringVar(&scope, "scope", "", "what it may do: admin everything, read-only read everything, metrics read the metrics, tenant what --tenant says (default admin)")
	flags.StringVar(&o.Scope.Tenant, "tenant", "", "let it only read about, start and stop instances of this `name`")
	flags.Var(&expires, "expires", "end it after so long, such as 90d; without it, it does not expire")
	_ = cmd.RegisterFlagCompletionFunc("scope", cobra.FixedCompletions(roleNames(), cobra.ShellCompDirectiveNoFileComp)) // fails only for an unknown flag
	return cmd
}

func roleNames() []string {
	names := make([]string, len(tenement.Roles))
	for i, r := range tenement.Roles {
		names[i] = string(r)
	}
	return names
}

// remarks say what a token of each scope may do.
var remarks = map[tenement.Role]string{
	tenement.RoleAdmin:    "an admin's: it may do everything, and the newest is also in <data_dir>/.tenement/api_token",
	tenement.RoleReadOnly: "read-only: it may read about everything and change nothing",
	tenement.RoleMetrics:  "for metrics: it may read those and nothing else",
	tenement.RoleTenant:   "for %s: it may read about, start and stop instances of that name",
}

// remarkOn says what the token is for, apart from the token itself.
func (a *app) remarkOn(t api.NewSecret) {
	what := remarks[t.Scope]
	if t.Scope == tenement.RoleTenant {
		what = fmt.Sprintf(what, t.Tenant)
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
	rows := [][]string{{"ID", "NAME", "SCOPE", "CREATED", "LAST USED", "EXPIRES"}}
	for _, t := range list {
		ends := until(t.ExpiresAt, now)
		if (tenement.Token{ExpiresAt: t.ExpiresAt}).Expired(now) {
			ends = "expired"
		}
		scope := tenement.Scope{Role: t.Scope, Tenant: t.Tenant}
		rows = append(rows, []string{t.ID, cmp.Or(t.Name, "-"), scope.String(), ago(t.CreatedAt, now), ago(t.LastUsed, now), ends})
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
