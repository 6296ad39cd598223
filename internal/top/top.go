// Package top shows a daemon's instances live in a terminal, and acts on them.
//
// It is a program of package tea: a model that messages change and that is drawn after
// each of them. Whatever waits (a question to the daemon, a stream of it) is a tea.Cmd,
// which runs by itself and whose outcome is a message.
package top

import (
	"context"
	"errors"
	"os"

	tea "charm.land/bubbletea/v2"

	"tenement"
	"tenement/internal/api"
)

// Options is what the view needs.
type Options struct {
	Client *api.Client
	Where  string // the daemon, as the title calls it

	// Inspect is all about an instance, in pairs of a name and a value.
	Inspect func(context.Context, tenement.InstanceID) ([][]string, error)
}

// Run shows the view on the terminal that standard input and output are, until whoever
// sits there has enough of it, or ctx ends.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the streams
	program := tea.NewProgram(newModel(ctx, o), tea.WithContext(ctx), tea.WithoutSignalHandler(),
		tea.WithInput(os.Stdin), tea.WithOutput(os.Stdout))
	_, err := program.Run()
	if ctx.Err() != nil || errors.Is(err, tea.ErrInterrupted) {
		return nil //nolint:nilerr // it was asked to end
	}
	return err
}
