package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"tenement/internal/api"
)

func (a *app) profileCommand() *cobra.Command {
	during := span(api.DefaultProfile)
	var output string
	kinds := make([]string, len(api.ProfileKinds))
	for n, kind := range api.ProfileKinds {
		kinds[n] = string(kind)
	}
	cmd := &cobra.Command{
		Use:       "profile [cpu|heap|allocs|goroutine|trace]",
		Short:     "Write where the daemon itself spends time (cpu) or memory, for go tool pprof",
		Args:      arguments(0, 1),
		ValidArgs: kinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			kind := string(api.ProfileCPU)
			if len(args) > 0 {
				kind = args[0]
			}
			if !slices.Contains(kinds, kind) {
				return usage(cmd, fmt.Errorf("there is no profile %q", kind))
			}
			if limit := time.Duration(during); limit < time.Second || limit > api.MaxProfile {
				return usage(cmd, fmt.Errorf("--for is from 1s to %v", api.MaxProfile))
			}
			if output == "" {
				output = "ten-" + kind + ".pprof"
			}
			return a.writeProfile(cmd, api.ProfileKind(kind), time.Duration(during), output)
		},
	}
	cmd.Flags().Var(&during, "for", "how long to look, for cpu and trace")
	cmd.Flags().StringVarP(&output, "output", "o", "", "`file` to write; ten-<kind>.pprof by default")
	return cmd
}

// writeProfile opens the file first, so that nobody waits for what cannot be kept.
func (a *app) writeProfile(cmd *cobra.Command, kind api.ProfileKind, during time.Duration, output string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	file, err := os.OpenFile(output, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	profile, err := client.Profile(cmd.Context(), kind, during)
	if err == nil {
		_, err = file.Write(profile)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(output))
	}
	tool := "pprof -http :"
	if kind == api.ProfileTrace {
		tool = "trace"
	}
	fmt.Fprintf(a.stdout, "%s\nhint: go tool %s %s\n", output, tool, output)
	return nil
}
