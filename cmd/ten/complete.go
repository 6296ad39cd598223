package main

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/api"
)

// addCompletion adds cobra's command, which would take the name of an unknown shell
// for a wish for help.
func (a *app) addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.Args = arguments(0, 0)
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				return usage(cmd, errors.New("say for which shell: bash, zsh, fish or powershell"))
			}
		}
	}
}

// completeTimeout is how long a shell may hang on the tab key.
const completeTimeout = time.Second

// completeInstance offers the instances that begin with what was typed. Without a
// daemon it offers nothing and says nothing.
func (a *app) completeInstance(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, typed, func(ctx context.Context, client *api.Client) []string {
		o := api.ListOptions{Limit: api.MaxInstances}
		if service, _, ok := strings.Cut(typed, ":"); ok {
			o.Service = service
		}
		page, err := client.Instances(ctx, o)
		if err != nil {
			return nil
		}
		var ids []string
		for _, in := range page.Instances {
			ids = append(ids, in.ID.String()+"\t"+in.State.String())
		}
		return ids
	})
}

// lastName is the greatest there is: what comes after it is the next service's.
var lastName = strings.Repeat("z", 63)

// completeService offers the services that have instances, with one question for each.
func (a *app) completeService(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, nil, typed, func(ctx context.Context, client *api.Client) []string {
		var services []string
		o := api.ListOptions{Limit: 1}
		for {
			page, err := client.Instances(ctx, o)
			if err != nil || len(page.Instances) == 0 {
				return services
			}
			service := page.Instances[0].ID.Service
			services = append(services, service)
			o.After = tenement.InstanceID{Service: service, Name: lastName}
		}
	})
}

// completeToken offers the ids of tokens.
func (a *app) completeToken(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, typed, func(ctx context.Context, client *api.Client) []string {
		tokens, err := client.Tokens(ctx)
		if err != nil {
			return nil
		}
		var ids []string
		for _, t := range tokens {
			ids = append(ids, t.ID+"\t"+cmp.Or(t.Name, string(t.Scope)))
		}
		return ids
	})
}

// complete offers what the daemon has for the first argument.
func (a *app) complete(cmd *cobra.Command, args []string, typed string, ask func(context.Context, *api.Client) []string) ([]string, cobra.ShellCompDirective) {
	client, err := a.client()
	if len(args) > 0 || err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	var offered []string
	for _, choice := range ask(ctx, client) {
		if strings.HasPrefix(choice, typed) {
			offered = append(offered, choice)
		}
	}
	return offered, cobra.ShellCompDirectiveNoFileComp
}
