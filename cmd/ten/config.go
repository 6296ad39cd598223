package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/config"
)

func (a *app) configCommand() *cobra.Command {
	cmd := a.withJSON(&cobra.Command{
		Use:   "config",
		Short: "Show the configuration in force, with every default filled in",
		Args:  arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := a.loadConfig(config.Overrides{})
			if err != nil {
				return err
			}
			return a.printConfig(cfg)
		},
	})
	cmd.AddCommand(a.withJSON(&cobra.Command{
		Use:   "check",
		Short: "Check the configuration without a daemon",
		Args:  arguments(0, 0),
		RunE:  func(*cobra.Command, []string) error { return a.checkConfig() },
	}))
	return cmd
}

func (a *app) checkConfig() error {
	_, err := a.loadConfig(config.Overrides{})
	var mistakes config.Mistakes
	switch {
	case err != nil && !errors.As(err, &mistakes):
		return err
	case a.json:
		if jsonErr := a.printJSON(checked{OK: err == nil, Mistakes: mistakesOf(mistakes)}); jsonErr != nil {
			return jsonErr
		}
		if err != nil {
			return errReported
		}
	case err == nil:
		fmt.Fprintln(a.stdout, "ok")
	}
	return err
}

// checked is the outcome of config check.
type checked struct {
	OK       bool      `json:"ok"`
	Mistakes []mistake `json:"mistakes"`
}

type mistake struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func mistakesOf(list config.Mistakes) []mistake {
	out := make([]mistake, len(list))
	for i, m := range list {
		out[i] = mistake{File: m.File, Line: m.Line, Column: m.Column, Message: m.Message, Hint: m.Hint}
	}
	return out
}

func (a *app) initCommand() *cobra.Command {
	var name, command string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a first configuration",
		Args:  arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			path := cmp.Or(a.config, os.Getenv("TENEMENT_CONFIG"), localConfig)
			if err := writeExample(path, name, command); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "wrote %s\n", visible(path))
			fmt.Fprintf(a.stderr, "next: ten serve, and in another terminal: ten spawn %s:alice\n", name)
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "api", "name of the service")
	cmd.Flags().StringVar(&command, "command", "python3 app.py", "what runs one instance of it")
	return cmd
}

// writeExample writes a configuration that the daemon would accept, where there is
// no file yet.
func writeExample(path, name, command string) error {
	const op = "write configuration"
	if err := tenement.CheckServiceName(name); err != nil {
		return err
	}
	text := config.Example(name, command)
	if _, err := config.Parse(path, []byte(text), config.Overrides{}); err != nil {
		return &tenement.Error{
			Code: tenement.CodeInvalid, Op: op, Err: fmt.Errorf("%q cannot be a command", command),
			Hint: "write the program and its arguments as in a shell, with quotes in pairs",
		}
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	switch {
	case errors.Is(err, fs.ErrExist):
		return &tenement.Error{
			Code: tenement.CodeConflict, Op: op, Err: fmt.Errorf("%s is there already", path),
			Hint: "remove it first, or name another file with --config",
		}
	case err != nil:
		return fmt.Errorf("%s: %w", op, err)
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}
