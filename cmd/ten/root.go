package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/config"
)

// app is one run of the program: where it writes and what the flags of every
// command say.
type app struct {
	stdout, stderr io.Writer

	config, dataDir, server, token string
	json                           bool

	began bool // the command line was understood and the command's own work began
}

// run is the whole program but for its signals; it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{stdout: stdout, stderr: stderr}
	root := a.rootCommand() //nolint:contextcheck // a cobra command carries its context
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	if err != nil && !a.began && tenement.CodeOf(err) == tenement.CodeInternal {
		err = usage(command, err)
	}
	a.report(err)
	return exitStatus(err)
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "ten",
		Short:         "Many single-tenant programs behind one command",
		Version:       programVersion(),
		Args:          knownCommand,
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,

		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRun: func(*cobra.Command, []string) {
			a.began = true
		},
	}
	root.SetVersionTemplate("ten {{.Version}}\n")
	flags := root.PersistentFlags()
	flags.StringVar(&a.config, "config", "", "configuration `file` (TENEMENT_CONFIG; otherwise ./tenement.toml, then "+systemConfig+")")
	flags.StringVar(&a.dataDir, "data-dir", "", "data `directory` of the daemon (TENEMENT_DATA_DIR; otherwise from the configuration)")
	flags.StringVar(&a.server, "server", "", "`URL` of a daemon to reach over HTTP(S) (TENEMENT_SERVER)")
	flags.StringVar(&a.token, "token", "", "`token` for the daemon (TENEMENT_TOKEN)")

	groups := []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"daemon", "The daemon:", []*cobra.Command{a.serveCommand(), a.reloadCommand(), a.upgradeCommand(), a.profileCommand(), a.alertsCommand(), a.initCommand(), a.configCommand(), a.doctorCommand(), a.installCommand(), a.uninstallCommand()}},
		{"instances", "Instances:", append(append(a.lifeCommands(), a.execCommands()...), a.cpCommand(), a.setCommand(), a.psCommand(), a.topCommand(), a.inspectCommand(), a.healthCommand(), a.logsCommand(), a.eventsCommand(), a.wakesCommand(), a.usageCommand())},
		{"traffic", "Traffic:", []*cobra.Command{a.weightCommand(), a.deployCommand(), a.routeCommand()}},
		{"access", "Access:", []*cobra.Command{a.tokenGenCommand(), a.tokenCommand()}},
	}
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, command := range g.commands {
			command.GroupID = g.id
			root.AddCommand(command)
		}
	}
	root.AddCommand(a.keepNamespacesCommand())
	a.addCompletion(root)
	return root
}

// knownCommand refuses what is left of the line when no command was found in it.
func knownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := usage(root, fmt.Errorf("there is no command %q", args[0]))
	if close := root.SuggestionsFor(args[0]); len(close) > 0 {
		err.Hint = "did you mean: ten " + strings.Join(close, ", ten ")
	}
	return err
}

// usage is a mistake in the command line.
func usage(cmd *cobra.Command, err error) *tenement.Error {
	return &tenement.Error{Code: tenement.CodeInvalid, Err: err, Hint: "see: " + cmd.CommandPath() + " --help"}
}

// arguments refuses any other number of arguments than from least to most.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if least <= len(args) && len(args) <= most {
			return nil
		}
		err := usage(cmd, errors.New("arguments are missing"))
		if len(args) > most {
			err.Err = fmt.Errorf("%q is one argument too many", args[most])
		}
		if !cmd.HasSubCommands() {
			err.Hint = "write: " + cmd.UseLine()
		}
		return err
	}
}

// exitStatus is the contract's: it follows from the code, but a mistake inside the
// configuration is no wrong use of the command.
func exitStatus(err error) int {
	var mistakes config.Mistakes
	var status exited
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &mistakes):
		return 1
	}
	return tenement.CodeOf(err).ExitStatus()
}

// errReported ends a command that failed and has said so in its output.
var errReported = errors.New("failed")

// report prints err for people.
func (a *app) report(err error) {
	var status exited
	if err == nil || errors.Is(err, errReported) || errors.As(err, &status) {
		return
	}
	fmt.Fprintf(a.stderr, "error: %s\n", visibleLines(err.Error()))
	if hint := tenement.HintOf(err); hint != "" {
		fmt.Fprintf(a.stderr, "hint: %s\n", visibleLines(hint))
	}
}

// withJSON adds --json to a command that prints.
func (a *app) withJSON(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&a.json, "json", false, "print JSON, for programs")
	return cmd
}
