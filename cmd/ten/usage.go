package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/api"
)

// usageSpan is how far back usage is shown unless the command line says otherwise.
const usageSpan = 30 * 24 * time.Hour

func (a *app) usageCommand() *cobra.Command {
	var o api.UsageOptions
	var since, until instant
	var asCSV bool
	cmd := a.withJSON(&cobra.Command{
		Use:   "usage [service:id]",
		Short: "Show what instances have used",
		Long: `Show what each instance has used, in all, since 30 days ago or --since.

With --csv or --json it is one line for each instance and hour in which it was awake.
Hours begin at the full hour, UTC; they are known for 400 days.`,
		Args:              arguments(0, 1),
		ValidArgsFunction: a.completeInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if len(args) == 1 {
				if o.Instance, err = tenement.ParseInstanceID(args[0]); err != nil {
					return err
				}
			}
			o.Since, o.Until = time.Time(since), time.Time(until)
			if o.Since.IsZero() {
				o.Since = time.Now().Add(-usageSpan)
			}
			o.Since = o.Since.Truncate(time.Hour) // the hour that it lies in
			client, err := a.client()
			if err != nil {
				return err
			}
			switch {
			case a.json:
				return eachUsage(cmd.Context(), client, o, func(u api.UsageHour) error { return a.printJSONLine(u) })
			case asCSV:
				return a.printUsageCSV(cmd.Context(), client, o)
			}
			return a.printUsage(cmd.Context(), client, o)
		},
	})
	flags := cmd.Flags()
	flags.Var(&since, "since", "only hours since then: an age such as 30d, or a `time` such as 2026-01-31T15:04:05Z")
	flags.Var(&until, "until", "only hours that begin before that `time`, or so long ago")
	flags.BoolVar(&asCSV, "csv", false, "print comma-separated values, a line for each instance and hour")
	cmd.MarkFlagsMutuallyExclusive("csv", "json")
	return cmd
}

// eachUsage asks for page after page.
func eachUsage(ctx context.Context, client *api.Client, o api.UsageOptions, each func(api.UsageHour) error) error {
	for {
		page, err := client.Usage(ctx, o)
		if err != nil {
			return err
		}
		for _, u := range page.Hours {
			if err := each(u); err != nil {
				return err
			}
		}
		if o.Since = page.Next; o.Since.IsZero() {
			return nil
		}
	}
}

func (a *app) printUsageCSV(ctx context.Context, client *api.Client, o api.UsageOptions) error {
	w := csv.NewWriter(a.stdout)
	_ = w.Write([]string{"hour", "service", "name", "awake_seconds", "cpu_seconds", "memory_byte_seconds", "requests", "bytes_in", "bytes_out", "storage_bytes"}) // w.Error says it
	err := eachUsage(ctx, client, o, func(u api.UsageHour) error {
		return w.Write([]string{
			u.Hour.UTC().Format(time.RFC3339), u.Instance.Service, u.Instance.Name,
			decimal(u.AwakeSeconds), decimal(u.CPUSeconds), strconv.FormatInt(u.MemoryByteSeconds, 10),
			strconv.FormatInt(u.Requests, 10), strconv.FormatInt(u.BytesIn, 10), strconv.FormatInt(u.BytesOut, 10),
			strconv.FormatInt(u.StorageBytes, 10),
		})
	})
	w.Flush()
	if err == nil {
		err = w.Error()
	}
	return err
}

func decimal(seconds float64) string { return strconv.FormatFloat(seconds, 'f', 3, 64) }

// printUsage prints the sum of each instance.
func (a *app) printUsage(ctx context.Context, client *api.Client, o api.UsageOptions) error {
	sums := map[tenement.InstanceID]api.UsageHour{}
	err := eachUsage(ctx, client, o, func(u api.UsageHour) error {
		sum := sums[u.Instance]
		sum.Instance = u.Instance
		sum.AwakeSeconds += u.AwakeSeconds
		sum.CPUSeconds += u.CPUSeconds
		sum.MemoryByteSeconds += u.MemoryByteSeconds
		sum.Requests += u.Requests
		sum.BytesIn += u.BytesIn
		sum.BytesOut += u.BytesOut
		if u.StorageBytes > 0 {
			sum.StorageBytes = u.StorageBytes // hours come in order
		}
		sums[u.Instance] = sum
		return nil
	})
	if err != nil {
		return err
	}
	rows := [][]string{{"INSTANCE", "AWAKE", "CPU", "MEMORY", "REQUESTS", "IN", "OUT", "STORAGE"}}
	list := make([]api.UsageHour, 0, len(sums))
	for _, sum := range sums {
		list = append(list, sum)
	}
	slices.SortFunc(list, func(a, b api.UsageHour) int { return a.Instance.Compare(b.Instance) })
	for _, sum := range list {
		rows = append(rows, []string{
			sum.Instance.String(), hours(sum.AwakeSeconds), strconv.FormatFloat(sum.CPUSeconds, 'f', 1, 64) + "s",
			fmt.Sprintf("%.2f GiB·h", float64(sum.MemoryByteSeconds)/(1<<30)/3600), strconv.FormatInt(sum.Requests, 10),
			size(tenement.Bytes(sum.BytesIn)), size(tenement.Bytes(sum.BytesOut)), size(tenement.Bytes(sum.StorageBytes)),
		})
	}
	a.printTable(rows)
	return nil
}

// hours is a long time in hours and minutes.
func hours(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	if d < time.Minute {
		return d.String()
	}
	return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
}
