package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tenement"
	"tenement/internal/config"
)

// setting is one key with the value in force, in the file's own words.
type setting struct {
	key   string
	value any // what JSON and TOML write alike: a text, a number, true or false, texts
}

// section is one table of the configuration.
type section struct {
	path     []string // "service", "api"
	settings []setting
}

// effective is cfg as a file that leaves nothing to defaults.
func effective(cfg *config.Config) []section {
	sections := []section{{[]string{"settings"}, []setting{
		{"data_dir", cfg.DataDir},
		{"domain", cfg.Domain},
		{"listen", cfg.Listen},
		{"admin_host", cfg.AdminHost},
		{"admin_listen", cfg.AdminListen},
		{"max_starting", cfg.MaxStarting},
		{"max_waiting", cfg.MaxWaiting},
		{"max_awake", cfg.MaxAwake},
		{"memory_reserve_mb", cfg.MemoryReserve >> 20},
		{"uid_first", cfg.FirstUID},
		{"log_instance_mb", cfg.LogInstance >> 20},
		{"log_total_mb", cfg.LogTotal >> 20},
		{"log_retention", seconds(cfg.LogRetention)},
		{"access_log", cfg.AccessLog},
	}}}
	if t := cfg.Tracing; t.Endpoint != "" {
		sections = append(sections, section{[]string{"settings", "tracing"}, []setting{{"endpoint", t.Endpoint}, {"sample", t.Sample}}})
	}
	if alerts := cfg.Alerts; alerts.URL != "" {
		sections = append(sections, section{[]string{"settings", "alerts"}, []setting{
			{"url", alerts.URL},
			{"secret_file", alerts.SecretFile},
			{"on", alerts.On},
			{"disk_low_mb", alerts.DiskLow >> 20},
		}})
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Services)) {
		service := cfg.Services[name]
		sections = append(sections,
			section{[]string{"service", name}, serviceSettings(service)},
			section{[]string{"service", name, "wake"}, []setting{{"self", service.Wake.Self}, {"health", service.Wake.Health}}},
			section{[]string{"service", name, "wake", "ignore"}, []setting{
				{"paths", service.Wake.Paths},
				{"user_agents", service.Wake.UserAgents},
				{"monitors", service.Wake.Monitors},
				{"methods", service.Wake.Methods},
			}},
			section{[]string{"service", name, "env"}, textSettings(templateTexts(service.Env))},
		)
		for _, c := range service.Cron {
			sections = append(sections, section{[]string{"service", name, "cron", c.Name}, []setting{
				{"schedule", c.Schedule},
				{"path", c.Path},
				{"method", c.Method},
				{"timezone", c.Zone},
				{"spread", seconds(c.Spread)},
				{"timeout", seconds(c.Timeout)},
			}})
		}
	}
	return append(sections,
		section{[]string{"instances"}, keptSettings(cfg.Instances)},
		section{[]string{"routing"}, []setting{{"default", cfg.Routing.Default}}},
		section{[]string{"routing", "subdomain"}, textSettings(cfg.Routing.Subdomain)},
		section{[]string{"routing", "path"}, textSettings(cfg.Routing.Path)},
	)
}

// serviceSettings names the restart policy and the check interval with the service,
// though the file has them for all services at once.
func serviceSettings(s *tenement.Service) []setting {
	command := make([]string, len(s.Command))
	for i, word := range s.Command {
		command[i] = word.String()
	}
	return []setting{
		{"command", command},
		{"workdir", s.Workdir.String()},
		{"isolation", s.Isolation},
		{"readable", s.Readable},
		{"writable", s.Writable},
		{"egress", s.Egress},
		{"listen", s.Listen},
		{"ready", s.Ready},
		{"health", s.Health.Path},
		{"health_check_interval", seconds(s.Health.Interval)},
		{"freeze_timeout", seconds(s.Timeouts.Freeze)},
		{"idle_timeout", seconds(s.Timeouts.Idle)},
		{"startup_timeout", seconds(s.Timeouts.Startup)},
		{"wake_timeout", seconds(s.Timeouts.Wake)},
		{"request_timeout", seconds(s.Timeouts.Request)},
		{"drain_timeout", seconds(s.Timeouts.Drain)},
		{"stop_timeout", seconds(s.Timeouts.Stop)},
		{"restart", s.Restart.Mode},
		{"max_restarts", s.Restart.Max},
		{"restart_window", seconds(s.Restart.Window)},
		{"backoff_base_ms", s.Restart.BackoffBase.Milliseconds()},
		{"backoff_max_ms", s.Restart.BackoffMax.Milliseconds()},
		{"create", s.Create},
		{"storage_persist", s.Persist},
		{"storage_quota_mb", s.Limits.Storage >> 20},
		{"max_body_mb", s.MaxBody >> 20},
		{"server_timing", s.ServerTiming},
		{"memory_limit_mb", s.Limits.Memory >> 20},
		{"cpu_shares", s.Limits.CPUShares},
		{"cpu_limit", s.Limits.CPU},
		{"pids_limit", s.Limits.PIDs},
		{"io_weight", s.Limits.IOWeight},
		{"open_files_limit", s.Limits.OpenFiles},
	}
}

// seconds is d as the file writes it: a whole number where it is one.
func seconds(d time.Duration) any {
	if d%time.Second == 0 {
		return int64(d / time.Second)
	}
	return d.Seconds()
}

func templateTexts(templates map[string]tenement.Template) map[string]string {
	texts := make(map[string]string, len(templates))
	for name, t := range templates {
		texts[name] = t.String()
	}
	return texts
}

func textSettings(texts map[string]string) []setting {
	var settings []setting
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		settings = append(settings, setting{name, texts[name]})
	}
	return settings
}

func keptSettings(ids []tenement.InstanceID) []setting {
	var settings []setting
	for _, id := range ids {
		i := slices.IndexFunc(settings, func(s setting) bool { return s.key == id.Service })
		if i < 0 {
			settings = append(settings, setting{id.Service, []string{id.Name}})
			continue
		}
		names, _ := settings[i].value.([]string)
		settings[i].value = append(names, id.Name)
	}
	return settings
}

// printConfig prints cfg in the form of the file, or as JSON of the same shape.
func (a *app) printConfig(cfg *config.Config) error {
	sections := effective(cfg)
	if a.json {
		return a.printJSON(nested(sections))
	}
	fmt.Fprintf(a.stdout, "# %s\n", visible(cfg.Path))
	for _, s := range sections {
		if err := a.printSection(s); err != nil {
			return err
		}
	}
	return nil
}

// printSection leaves out empty texts: they stand for what was not set and has no
// default.
func (a *app) printSection(s section) error {
	var b bytes.Buffer
	for _, setting := range s.settings {
		if setting.value == "" {
			continue
		}
		fmt.Fprintf(&b, "%s = ", tomlKey(setting.key))
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(setting.value); err != nil {
			return err
		}
	}
	if b.Len() > 0 {
		fmt.Fprintf(a.stdout, "\n[%s]\n", strings.Join(s.path, "."))
		return writeJSON(a.stdout, bytes.TrimSuffix(b.Bytes(), []byte("\n")))
	}
	return nil
}

// tomlKey quotes what is not a bare key, such as the paths of [routing.path].
func tomlKey(key string) string {
	const bare = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	if strings.Trim(key, bare) == "" {
		return key
	}
	text, _ := json.Marshal(key) // a text can always be written
	return string(text)
}

// nested makes objects within objects of the sections' paths.
func nested(sections []section) map[string]any {
	root := map[string]any{}
	for _, s := range sections {
		table := root
		for _, name := range s.path {
			inner, ok := table[name].(map[string]any)
			if !ok {
				inner = map[string]any{}
				table[name] = inner
			}
			table = inner
		}
		for _, setting := range s.settings {
			table[setting.key] = setting.value
		}
	}
	return root
}
