package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/api"
)

func (a *app) psCommand() *cobra.Command {
	var o api.ListOptions
	var states []string
	var all, quiet bool
	cmd := a.withJSON(&cobra.Command{
		Use:   "ps [text]",
		Short: "List the instances that are awake",
		Long: `List the instances that are awake or have failed, or with -a all.

With a text, only those that have it anywhere in service:id.`,
		Args: arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.States, err = parseStates(states); err != nil {
				return err
			}
			o.Text, o.Limit = strings.Join(args, ""), api.MaxInstances
			o.AwakeOnly = !all && len(states) == 0
			client, err := a.client()
			if err != nil {
				return err
			}
			list, err := allInstances(cmd.Context(), client, o)
			switch {
			case err != nil:
				return err
			case a.json:
				return a.printJSON(list)
			case quiet:
				a.printIDs(list)
			default:
				a.printInstances(list)
			}
			return nil
		},
	})
	flags := cmd.Flags()
	flags.BoolVarP(&all, "all", "a", false, "list those that sleep or are suspended as well")
	flags.BoolVarP(&quiet, "quiet", "q", false, "print only service:id, for other commands")
	flags.StringSliceVar(&states, "state", nil, "only in these `states`, such as ready,failed")
	flags.StringVar(&o.Service, "service", "", "only of this service")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(stateNames(), cobra.ShellCompDirectiveNoFileComp)) // fails only for an unknown flag
	_ = cmd.RegisterFlagCompletionFunc("service", a.completeService)
	return cmd
}

func stateNames() []string {
	var names []string
	for _, s := range tenement.States() {
		names = append(names, s.String())
	}
	return names
}

func parseStates(names []string) ([]tenement.State, error) {
	var states []tenement.State
	for _, name := range names {
		var state tenement.State
		if err := state.UnmarshalText([]byte(name)); err != nil {
			return nil, &tenement.Error{Code: tenement.CodeInvalid, Err: err, Hint: "the states are " + strings.Join(stateNames(), ", ")}
		}
		states = append(states, state)
	}
	return states, nil
}

func (a *app) printIDs(list []api.Instance) {
	for _, in := range list {
		fmt.Fprintln(a.stdout, in.ID)
	}
}

// allInstances asks for page after page; the list is never nil.
func allInstances(ctx context.Context, client *api.Client, o api.ListOptions) ([]api.Instance, error) {
	list := []api.Instance{}
	for {
		page, err := client.Instances(ctx, o)
		if err != nil {
			return nil, err
		}
		list = append(list, page.Instances...)
		if o.After = page.Next; o.After.IsZero() {
			return list, nil
		}
	}
}

func (a *app) printInstances(list []api.Instance) {
	rows := [][]string{{"INSTANCE", "STATE", "HEALTH", "STARTED", "LAST ACTIVE", "REQUESTS", "WEIGHT", "PID", "URL", "TROUBLE"}}
	now := time.Now()
	for _, in := range list {
		rows = append(rows, []string{
			in.ID.String(), in.State.String(), string(in.Health), ago(in.StartedAt, now), ago(in.LastActiveAt, now),
			strconv.Itoa(in.Leases), strconv.Itoa(in.Weight), unlessZero(in.PID), in.URL, trouble(in),
		})
	}
	a.printTable(rows)
}

// trouble is why an instance is not ready, or what it has gone through.
func trouble(in api.Instance) string {
	if in.Reason == "" && in.OOMKills > 0 {
		return "out of memory, " + times(in.OOMKills)
	}
	return in.Reason
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func unlessZero(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

// inspected is everything there is to say about an instance.
type inspected struct {
	api.Instance
	Storage  api.Storage  `json:"storage"`
	Settings api.Settings `json:"settings"`
}

func (a *app) inspectCommand() *cobra.Command {
	return a.onInstance("inspect", "Show all about an instance", func(ctx context.Context, client *api.Client, id tenement.InstanceID) error {
		in, err := inspect(ctx, client, id)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(in)
		}
		a.printTable(in.rows())
		return nil
	})
}

func inspect(ctx context.Context, client *api.Client, id tenement.InstanceID) (in inspected, err error) {
	if in.Instance, err = client.Instance(ctx, id); err != nil {
		return in, err
	}
	if in.Storage, err = client.Storage(ctx, id); err != nil {
		return in, err
	}
	in.Settings, err = client.Settings(ctx, id)
	return in, err
}

// rows are the lines for people, without those that say nothing.
func (in inspected) rows() [][]string {
	now := time.Now()
	oomKills := ""
	if in.OOMKills > 0 {
		oomKills = times(in.OOMKills)
	}
	rows := [][]string{
		{"instance", in.Instance.ID.String()},
		{"state", in.State.String()},
		{"reason", in.Reason},
		{"next start", until(in.RetryAt, now)},
		{"health", string(in.Health)},
		{"url", in.URL},
		{"weight", strconv.Itoa(in.Weight)},
		{"pid", unlessZero(in.PID)},
		{"port", unlessZero(in.Port)},
		{"created", moment(in.CreatedAt, now)},
		{"started", moment(in.StartedAt, now)},
		{"busy", until(in.BusyUntil, now)},
		{"next alarm", until(in.NextAlarmAt, now)},
		{"next cron", until(in.NextCronAt, now)},
		{"last healthy", moment(in.HealthyAt, now)},
		{"last active", moment(in.LastActiveAt, now)},
		{"requests", fmt.Sprintf("%d under way, %d waiting", in.Leases, in.Waiting)},
		{"restarts", strconv.Itoa(in.Restarts)},
		{"out of memory", oomKills},
		{"data", in.Storage.Path},
		{"size", fmt.Sprintf("%s, %d files", size(in.Storage.UsedBytes), in.Storage.UsedFiles)},
		{"quota", quota(in.Storage)},
	}
	rows = append(rows, settingRows(in.Settings)...)
	return slices.DeleteFunc(rows, func(row []string) bool { return row[1] == "" || row[1] == "-" })
}

// quota says what an instance may store, and who sees to that.
func quota(s api.Storage) string {
	if s.LimitBytes == 0 {
		return ""
	}
	how := "measured: put to sleep when it is used up"
	if s.Enforcement == "project" {
		how = "kept by the file system: project quota"
	}
	return fmt.Sprintf("%s, %d files (%s)", size(s.LimitBytes), s.LimitFiles, how)
}

func (a *app) healthCommand() *cobra.Command {
	return a.onInstance("health", "Check an instance's health now", func(ctx context.Context, client *api.Client, id tenement.InstanceID) error {
		h, err := client.InstanceHealth(ctx, id)
		if err != nil {
			return err
		}
		if a.json {
			err = a.printJSON(h)
		} else {
			a.printTable([][]string{{h.ID.String(), string(h.Health), h.Detail}})
		}
		if err == nil && (h.Health == tenement.HealthDegraded || h.Health == tenement.HealthUnhealthy) {
			return errReported
		}
		return err
	})
}
