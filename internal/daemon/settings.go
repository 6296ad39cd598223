package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tenement"
	"tenement/internal/agenda"
	"tenement/internal/api"
	"tenement/internal/config"
)

// What the registry calls an instance's settings: the values by their key, and variables
// and cron lines by their name behind one of these. All but secrets are JSON.
const (
	envKey    = "env."
	secretKey = "secret."
	cronKey   = agenda.CronSetting
)

// settings is what id has of its own, and its secrets as they are kept.
func (t *tenancy) settings(ctx context.Context, id tenement.InstanceID) (config.Settings, map[string][]byte, error) {
	own := config.Settings{Values: map[string]any{}, Env: map[string]any{}, Secrets: []string{}, Cron: map[string]any{}}
	sealed := map[string][]byte{}
	kept, err := t.store.Settings(ctx, id)
	if err != nil {
		return own, nil, err
	}
	for key, text := range kept {
		if name, ok := strings.CutPrefix(key, secretKey); ok {
			sealed[name] = text
			continue
		}
		into := own.Values
		if name, ok := strings.CutPrefix(key, envKey); ok {
			into, key = own.Env, name
		} else if name, ok := strings.CutPrefix(key, cronKey); ok {
			into, key = own.Cron, name
		}
		var value any
		if err := json.Unmarshal(text, &value); err != nil {
			return own, nil, fmt.Errorf("read setting %s of %s: %w", key, id, err)
		}
		into[key] = value
	}
	own.Secrets = slices.AppendSeq(own.Secrets, maps.Keys(sealed))
	slices.Sort(own.Secrets)
	return own, sealed, nil
}

// recipe is service as id is started with it, and what only id's process is to see.
// CodeUnavailable: what id has of its own is out of the bounds that there are now.
func (t *tenancy) recipe(ctx context.Context, id tenement.InstanceID, service *tenement.Service) (*tenement.Service, map[string]tenement.Secret, error) {
	own, sealed, err := t.settings(ctx, id)
	if err != nil || len(own.Values)+len(own.Env)+len(own.Secrets) == 0 {
		return service, nil, err
	}
	settled, err := own.Apply(service)
	if err != nil {
		hint := "change it: ten set " + id.String()
		if more := tenement.HintOf(err); more != "" {
			hint += "; " + more
		}
		return service, nil, &tenement.Error{Code: tenement.CodeUnavailable, Op: "settings of " + id.String(), Err: err, Hint: hint}
	}
	opened, err := t.open(id, sealed)
	return settled, opened, err
}

// open gives the secrets of id as its process is to see them.
func (t *tenancy) open(id tenement.InstanceID, sealed map[string][]byte) (map[string]tenement.Secret, error) {
	opened := make(map[string]tenement.Secret, len(sealed))
	for name, text := range sealed {
		plain, err := t.key.Open(text)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", name, id, err)
		}
		opened[name] = tenement.Secret(plain)
	}
	return opened, nil
}

// cronLines are those that are run on id: its own, and its service's that it has no own ones
// in the place of.
func (t *tenancy) cronLines(ctx context.Context, id tenement.InstanceID) ([]tenement.CronLine, error) {
	own, _, err := t.settings(ctx, id)
	if err != nil {
		return nil, err
	}
	service := t.daemon.config().Services[id.Service]
	if service == nil {
		service = &tenement.Service{Name: id.Service}
	}
	return own.CronLines(service)
}

// shownSettings is own as the API shows it.
func shownSettings(id tenement.InstanceID, own config.Settings) api.Settings {
	return api.Settings{ID: id, Values: own.Values, Env: own.Env, Secrets: own.Secrets, Cron: own.Cron}
}

// Settings implements [api.Backend].
func (b *backend) Settings(ctx context.Context, id tenement.InstanceID) (api.Settings, error) {
	if _, err := b.row(ctx, id); err != nil {
		return api.Settings{}, err
	}
	own, _, err := b.settings(ctx, id)
	return shownSettings(id, own), err
}

// ChangeSettings implements [api.Backend]. What is checked is what they come to.
func (b *backend) ChangeSettings(ctx context.Context, id tenement.InstanceID, change api.SettingsChange) (api.Settings, error) {
	b.settling.Lock()
	defer b.settling.Unlock()
	if _, err := b.row(ctx, id); err != nil {
		return api.Settings{}, err
	}
	if err := b.serviceExists(id.Service); err != nil {
		return api.Settings{}, err
	}
	own, _, err := b.settings(ctx, id)
	if err != nil {
		return api.Settings{}, err
	}
	rows := map[string][]byte{}
	if err := errors.Join(merge(own.Values, change.Values, "", rows), merge(own.Env, change.Env, envKey, rows), merge(own.Cron, change.Cron, cronKey, rows)); err != nil {
		return api.Settings{}, err
	}
	if own.Secrets, err = b.mergeSecrets(own.Secrets, change.Secrets, rows); err != nil {
		return api.Settings{}, err
	}
	service := b.daemon.config().Services[id.Service]
	_, err = own.Apply(service)
	lines, cronErr := own.CronLines(service)
	if err := errors.Join(err, cronErr, checkOff(service, change.Cron)); err != nil {
		return api.Settings{}, err
	}
	if err := b.store.PutSettings(ctx, id, rows, nextRuns(lines, change.Cron)); err != nil {
		return api.Settings{}, err
	}
	b.agenda.Poke()
	answer := shownSettings(id, own)
	st, err := b.Instance(ctx, id)
	answer.RestartNeeded = st.State.HasProcess() && len(change.Values)+len(change.Env)+len(change.Secrets) > 0
	return answer, err
}

// checkOff wants lines that are switched off to be the service's: all else is a slip.
func checkOff(service *tenement.Service, change map[string]any) error {
	for name, value := range change {
		if value == false && !slices.ContainsFunc(service.Cron, func(c tenement.CronLine) bool { return c.Name == name }) {
			return &tenement.Error{
				Code: tenement.CodeInvalid, Op: "switch a cron line off", Err: fmt.Errorf("%s has none of the name %q", service.Name, name),
				Hint: "one of the instance's own is taken away: --unset " + cronKey + "NAME",
			}
		}
	}
	return nil
}

// nextRuns is when the lines that are changed are run next, of those that are taken away or
// off the zero time.
func nextRuns(lines []tenement.CronLine, change map[string]any) map[string]time.Time {
	next := map[string]time.Time{}
	for name := range change {
		next[name] = time.Time{}
	}
	for _, c := range lines {
		if value := change[c.Name]; value != nil && value != false {
			next[c.Name] = c.Times.Next(time.Now())
		}
	}
	return next
}

// merge changes values, and notes the rows in which that is kept.
func merge(values, change map[string]any, prefix string, rows map[string][]byte) error {
	for name, value := range change {
		if value == nil {
			if _, known := values[name]; known {
				delete(values, name)
				rows[prefix+name] = nil
			}
			continue
		}
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		values[name], rows[prefix+name] = value, text
	}
	return nil
}

// mergeSecrets seals what is new, and gives all names.
func (b *backend) mergeSecrets(names []string, change map[string]any, rows map[string][]byte) ([]string, error) {
	for name, value := range change {
		names = slices.DeleteFunc(names, func(known string) bool { return known == name })
		if value == nil {
			rows[secretKey+name] = nil
			continue
		}
		text, ok := value.(string)
		if !ok {
			return nil, &tenement.Error{Code: tenement.CodeInvalid, Op: "set a secret", Err: fmt.Errorf("%q must be a text", name)}
		}
		if err := config.CheckSecret(name, text); err != nil {
			return nil, err
		}
		sealed, err := b.key.Seal([]byte(text))
		if err != nil {
			return nil, err
		}
		rows[secretKey+name] = sealed
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}
