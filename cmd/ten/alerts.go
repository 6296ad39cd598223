package main

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tenement/internal/api"
)

func (a *app) alertsCommand() *cobra.Command {
	cmd := a.withJSON(&cobra.Command{
		Use:   "alerts",
		Short: "Show the alerts that their receiver does not have yet, and test it",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			list, err := client.Alerts(cmd.Context())
			if err != nil {
				return err
			}
			return a.printAlerts(list)
		},
	})
	cmd.AddCommand(a.withJSON(&cobra.Command{
		Use:   "test",
		Short: "Send a test alert, and say what the receiver answers",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			test, err := client.TestAlert(cmd.Context())
			if err != nil {
				return err
			}
			return a.printAlertTest(test)
		},
	}))
	return cmd
}

// printAlerts prints a table, or as JSON an object on each line.
func (a *app) printAlerts(list []api.PendingAlert) error {
	rows := [][]string{{"AT", "KIND", "INSTANCE", "ATTEMPTS", "NEXT", "ERROR"}}
	for _, p := range list {
		if a.json {
			if err := a.printJSONLine(p); err != nil {
				return err
			}
			continue
		}
		instance := "-"
		if !p.Instance.IsZero() {
			instance = p.Instance.String()
		}
		rows = append(rows, []string{
			p.At.Local().Format(time.DateTime), string(p.Kind), instance, strconv.Itoa(p.Attempts),
			p.NextAt.Local().Format(time.DateTime), cmp.Or(p.Error, "-"),
		})
	}
	if !a.json {
		a.printTable(rows)
	}
	return nil
}

// printAlertTest fails if the receiver does not have the alert.
func (a *app) printAlertTest(test api.AlertTest) error {
	var err error
	if !test.Delivered {
		err = errReported
	}
	switch {
	case a.json:
		if failed := a.printJSON(test); failed != nil {
			return failed
		}
	case test.Delivered:
		fmt.Fprintf(a.stdout, "%s was delivered: status %d after %.0f ms\n", visible(test.ID), test.Status, test.TookMS)
	default:
		fmt.Fprintf(a.stdout, "%s was not delivered: %s\n", visible(test.ID), visible(test.Error))
	}
	return err
}
