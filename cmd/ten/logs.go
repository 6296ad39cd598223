package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/api"
)

func (a *app) logsCommand() *cobra.Command {
	var o api.LogOptions
	var since instant
	var follow bool
	cmd := a.withJSON(&cobra.Command{
		Use:   "logs [service:id]",
		Short: "Show, search and follow what instances printed",
		Long: `Show the last lines that instances printed, or those that match.

A search is words that must all be in a line; upper and lower case are the same.
"two words" must stand in a row, begin* is the beginning of a word.`,
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
				return a.followLogs(cmd.Context(), client, o)
			}
			lines, err := client.Logs(cmd.Context(), o)
			for _, l := range lines {
				if err == nil {
					err = a.printLine(l, o.Instance.IsZero())
				}
			}
			return err
		},
	})
	flags := cmd.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "go on with what is printed, until Ctrl-C; sleeps and restarts do not end it")
	flags.StringVar(&o.Level, "level", "", "only stdout, or only stderr")
	flags.StringVar(&o.Search, "search", "", "only lines with these `words`")
	flags.Var(&since, "since", "only lines since then: an age such as 1h, or a `time` such as 2026-01-31T15:04:05Z")
	flags.IntVar(&o.Limit, "limit", 100, "at most so many lines, the last ones")
	_ = cmd.RegisterFlagCompletionFunc("level", cobra.FixedCompletions([]string{"stdout", "stderr"}, cobra.ShellCompDirectiveNoFileComp)) // fails only for an unknown flag
	return cmd
}

// followLogs prints until it is interrupted, which is how it is meant to end.
func (a *app) followLogs(ctx context.Context, client *api.Client, o api.LogOptions) error {
	err := client.FollowLogs(ctx, o, a.remarkLost, func(l api.LogLine) error { return a.printLine(l, o.Instance.IsZero()) })
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Ctrl-C
	}
	return err
}

// remarkLost is for a stream whose daemon does not answer.
func (a *app) remarkLost(err error) {
	fmt.Fprintf(a.stderr, "the daemon is away (%s): waiting for it\n", visible(err.Error()))
}

// printLine prints a line, named when others may be of other instances; as JSON an
// object.
func (a *app) printLine(l api.LogLine, named bool) error {
	if a.json {
		return a.printJSONLine(l)
	}
	name := ""
	if named {
		name = l.Instance.String() + " "
	}
	_, err := fmt.Fprintf(a.stdout, "%s %s%s  %s\n", l.At.Local().Format("2006-01-02 15:04:05.000"), name, visible(l.Level), escape(l.Text, "\t"))
	return err
}

// instant is a point in time on the command line: an age, as [span] reads it, or a
// time of RFC 3339.
type instant time.Time

// String makes an instant a pflag.Value; it is the default that help shows.
func (i *instant) String() string { return "" }

// Type makes an instant a pflag.Value.
func (i *instant) Type() string { return "time" }

// Set makes an instant a pflag.Value.
func (i *instant) Set(text string) error {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		*i = instant(at)
		return nil
	}
	var age span
	if err := age.Set(text); err != nil {
		return errors.New("write an age like 90s, 10m, 1h or 30d, or a time like 2026-01-31T15:04:05Z")
	}
	*i = instant(time.Now().Add(-time.Duration(age)))
	return nil
}
