package main

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/api"
)

func (a *app) wakesCommand() *cobra.Command {
	var o api.WakeOptions
	var since instant
	cmd := a.withJSON(&cobra.Command{
		Use:   "wakes [service:id]",
		Short: "Show who woke what, and what took how long",
		Long: `Show the last wakes: who asked first, how long each phase took, what came of it, and
how many requests waited.

QUEUE is until it was its turn, SPAWN until there was a process, READY until that was
ready, and FIRST BYTE from then until the first response began.`,
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
			page, err := client.Wakes(cmd.Context(), o)
			if err != nil {
				return err
			}
			return a.printWakes(page.Wakes)
		},
	})
	flags := cmd.Flags()
	flags.Var(&since, "since", "only wakes since then: an age such as 1h, or a `time` such as 2026-01-31T15:04:05Z")
	flags.IntVar(&o.Limit, "limit", 100, "at most so many, the last ones")
	return cmd
}

// printWakes prints a table, or as JSON an object on each line.
func (a *app) printWakes(list []api.Wake) error {
	rows := [][]string{{"AT", "INSTANCE", "CAUSE", "OUTCOME", "QUEUE", "SPAWN", "READY", "FIRST BYTE", "SHARED", "CLIENT", "PATH", "USER AGENT"}}
	for _, w := range list {
		if a.json {
			if err := a.printJSONLine(w); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{
			w.At.Local().Format(time.DateTime), w.Instance.String(), string(w.Cause), w.Outcome,
			phase(w.QueueMS), phase(w.SpawnMS), phase(w.ReadyMS), phase(w.FirstByteMS), strconv.Itoa(w.Shared),
			cmp.Or(w.Client, "-"), cmp.Or(w.Path, "-"), cmp.Or(w.UserAgent, "-"),
		})
	}
	if !a.json {
		a.printTable(rows)
	}
	return nil
}

// phase is how long a phase took; "-" for one that was not reached.
func phase(ms float64) string {
	switch {
	case ms == 0:
		return "-"
	case ms < 10:
		return fmt.Sprintf("%.1fms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.0fms", ms)
	}
	return fmt.Sprintf("%.1fs", ms/1000)
}
