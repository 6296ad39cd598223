package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"tenement"
)

// Settings is what an instance has of its own, over its service's.
type Settings struct {
	ID      tenement.InstanceID `json:"id"`
	Values  map[string]any      `json:"values" doc:"by key of [service.NAME], such as memory_limit_mb"`
	Env     map[string]any      `json:"env" doc:"variables of its process; texts are templates, as in the configuration"`
	Secrets []string            `json:"secrets" nullable:"false" doc:"names of further variables; the values are never shown, and the names to admins only"`
	Cron    map[string]any      `json:"cron" doc:"by name, as [service.NAME.cron]; false where its service's line of that name is off for it"`

	RestartNeeded bool `json:"restart_needed,omitempty" doc:"in the answer to a change: its process runs with what was before, and its next one will not"`
}

// SettingsChange is a merge patch (RFC 7396): what it does not name stays, null takes away.
// A cron line is one value, and changes as a whole.
type SettingsChange struct {
	Values  map[string]any `json:"values,omitempty" doc:"by key of [service.NAME], such as memory_limit_mb"`
	Env     map[string]any `json:"env,omitempty" doc:"variables of its process"`
	Secrets map[string]any `json:"secrets,omitempty" doc:"variables that are encrypted and never shown"`
	Cron    map[string]any `json:"cron,omitempty" doc:"cron lines by name, each an object with schedule, path and what else [service.NAME.cron] takes but spread; false switches its service's off for it"`
}

// String says what changes, and no value.
func (s SettingsChange) String() string {
	var names []string
	for prefix, values := range map[string]map[string]any{"": s.Values, "env ": s.Env, "secret ": s.Secrets, "cron ": s.Cron} {
		for name, value := range values {
			if value == nil {
				name += " taken away"
			}
			names = append(names, prefix+name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// GoString is for %#v.
func (s SettingsChange) GoString() string { return s.String() }

func (s *Server) settings(ctx context.Context, c *call, in *onInstance) (*answer[Settings], error) {
	settings, err := s.backend.Settings(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if c.scope.Role != tenement.RoleAdmin {
		settings.Secrets = []string{}
	}
	return &answer[Settings]{settings}, nil
}

type settingsInput struct {
	ID   tenement.InstanceID `path:"instance" doc:"service:name" example:"api:alice"`
	Body SettingsChange
}

// maxNamed bounds what the audit log says of one change, in bytes.
const maxNamed = 500

func (s *Server) changeSettings(ctx context.Context, c *call, in *settingsInput) (*answer[Settings], error) {
	c.detail = in.Body.String()
	if len(c.detail) > maxNamed {
		c.detail = strings.ToValidUTF8(c.detail[:maxNamed], "") + "…"
	}
	settings, err := s.backend.ChangeSettings(ctx, in.ID, in.Body)
	if err != nil {
		return nil, err
	}
	return &answer[Settings]{settings}, nil
}

// Settings is what an instance has of its own.
func (c *Client) Settings(ctx context.Context, id tenement.InstanceID) (Settings, error) {
	var s Settings
	err := c.do(ctx, http.MethodGet, pathOf(id)+"/settings", nil, nil, &s)
	return s, err
}

// ChangeSettings changes what an instance has of its own, from its next start on.
func (c *Client) ChangeSettings(ctx context.Context, id tenement.InstanceID, change SettingsChange) (Settings, error) {
	var s Settings
	err := c.do(ctx, http.MethodPatch, pathOf(id)+"/settings", nil, change, &s)
	return s, err
}

// Has reports whether name is a variable, a secret or a value of its own, or cron. and the
// name of such a line.
func (s Settings) Has(name string) bool {
	_, isValue := s.Values[name]
	_, isVariable := s.Env[name]
	line, isCron := strings.CutPrefix(name, "cron.")
	if isCron {
		_, isCron = s.Cron[line]
	}
	return isValue || isVariable || isCron || slices.Contains(s.Secrets, name)
}

// Keys are the keys of the values, in order.
func (s Settings) Keys() []string { return slices.Sorted(maps.Keys(s.Values)) }
