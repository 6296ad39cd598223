package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tenement"
	"tenement/internal/api"
)

// settingFlags are the flags of set, by the key of the configuration that each stands for.
var settingFlags = []struct{ flag, key, usage string }{
	{"memory", "memory_limit_mb", "memory and swap, in `MB`; 0 = no limit, here and below"},
	{"cpu", "cpu_limit", "processor time, in `cores`"},
	{"cpu-shares", "cpu_shares", "`weight` against other instances, from 1 to 10000"},
	{"pids", "pids_limit", "`number` of processes and threads"},
	{"open-files", "open_files_limit", "`number` of descriptors of each process"},
	{"storage", "storage_quota_mb", "its data directory, in `MB`"},
	{"idle", "idle_timeout", "`time` without traffic until it sleeps, such as 10m; 0 = never"},
	{"freeze", "freeze_timeout", "`time` without traffic until it is paused in memory; 0 = never"},
	{"startup", "startup_timeout", "`time` from start to ready"},
	{"request", "request_timeout", "`time` to the first byte of a response; 0 = none"},
	{"stop", "stop_timeout", "`time` from SIGTERM to SIGKILL; 0 = at once"},
}

// setOptions is what the command line of set says.
type setOptions struct {
	values             map[string]*string // by key
	secrets, cron      []string
	unset              []string
	envFile, secretSet string
	restart            bool
}

func (a *app) setCommand() *cobra.Command {
	o := setOptions{values: map[string]*string{}}
	cmd := a.withJSON(&cobra.Command{
		Use:   "set service:id [NAME=value...]",
		Short: "Give an instance variables, secrets, limits and times of its own",
		Long: `Give an instance variables, secrets, limits and times of its own, which come before
its service's. They hold from its next start on; --restart makes that now.

A secret is encrypted where it is kept and never shown again. --secret NAME reads its
value from standard input, or asks for it at a terminal, so that it stands in no shell's
history. A file has NAME=value lines, taken as they are; # begins a comment line.

A cron line is 'NAME=SCHEDULE PATH [method=M] [timezone=Z] [timeout=T]', such as
'nightly=0 3 * * * /jobs/nightly timezone=Europe/Berlin'. It holds at once, in the place
of its service's line of that name; NAME=off switches that off for this instance.`,
		Args:              arguments(1, maxSettings),
		ValidArgsFunction: a.completeInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := tenement.ParseInstanceID(args[0])
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			return a.set(cmd, client, id, o, args[1:])
		},
	})
	flags := cmd.Flags()
	for _, f := range settingFlags {
		o.values[f.key] = flags.String(f.flag, "", f.usage)
	}
	flags.StringArrayVar(&o.secrets, "secret", nil, "`NAME` of a secret whose value is read from standard input, or NAME=value")
	flags.StringVar(&o.envFile, "env-file", "", "`file` of variables")
	flags.StringVar(&o.secretSet, "secret-file", "", "`file` of secrets")
	flags.StringArrayVar(&o.cron, "cron", nil, "`line` that has it asked at certain times: 'NAME=SCHEDULE PATH', or NAME=off")
	flags.StringArrayVar(&o.unset, "unset", nil, "`NAME` of a variable, a secret, one of these flags or cron.LINE: what its service has holds again")
	flags.BoolVar(&o.restart, "restart", false, "restart it now if it is awake")
	return cmd
}

// maxSettings bounds the arguments of one command line.
const maxSettings = 1000

func (a *app) set(cmd *cobra.Command, client *api.Client, id tenement.InstanceID, o setOptions, pairs []string) error {
	ctx := cmd.Context()
	change, err := a.change(cmd, o, pairs)
	if err == nil {
		err = takeAway(ctx, client, id, o.unset, &change)
	}
	if err != nil {
		return err
	}
	atStart := len(change.Values)+len(change.Env)+len(change.Secrets) > 0
	if !atStart && len(change.Cron) == 0 {
		return usage(cmd, errors.New("nothing is to be set"))
	}
	settings, err := client.ChangeSettings(ctx, id, change)
	if err != nil {
		return err
	}
	when := "from its next start on"
	switch {
	case !atStart:
		when = "from now on"
	case len(change.Cron) > 0:
		when += ", cron lines from now on"
	}
	if settings.RestartNeeded && o.restart {
		if err := client.Restart(ctx, id); err != nil {
			return err
		}
		settings.RestartNeeded, when = false, "now: it was restarted"
	}
	if a.json {
		return a.printJSON(settings)
	}
	fmt.Fprintln(a.stdout, id)
	fmt.Fprintf(a.stderr, "it holds %s\n", when)
	if settings.RestartNeeded {
		fmt.Fprintf(a.stderr, "hint: it is awake and has what was before; ten restart %s\n", id)
	}
	return nil
}

// change is what the command line says, but for what is to be taken away.
func (a *app) change(cmd *cobra.Command, o setOptions, pairs []string) (api.SettingsChange, error) {
	c := api.SettingsChange{Values: map[string]any{}, Env: map[string]any{}, Secrets: map[string]any{}, Cron: map[string]any{}}
	for _, f := range settingFlags {
		if cmd.Flags().Changed(f.flag) {
			c.Values[f.key] = numberOrText(*o.values[f.key])
		}
	}
	for path, into := range map[string]map[string]any{o.envFile: c.Env, o.secretSet: c.Secrets} {
		if path != "" {
			if err := readVariables(path, into); err != nil {
				return c, err
			}
		}
	}
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return c, usage(cmd, fmt.Errorf("%q is not NAME=value", pair))
		}
		c.Env[name] = value
	}
	for _, text := range o.cron {
		name, line, ok := strings.Cut(text, "=")
		if !ok {
			return c, usage(cmd, fmt.Errorf("%q is not NAME=SCHEDULE PATH", text))
		}
		if c.Cron[name], ok = cronLine(line); !ok {
			return c, usage(cmd, fmt.Errorf("cron line %q is not SCHEDULE PATH [key=value...]", line))
		}
	}
	piped := false
	for _, secret := range o.secrets {
		name, value, given := strings.Cut(secret, "=")
		if !given {
			if piped {
				return c, usage(cmd, errors.New("standard input has the value of one secret"))
			}
			var err error
			if value, piped, err = a.askSecret(name); err != nil {
				return c, err
			}
		}
		c.Secrets[name] = value
	}
	return c, nil
}

// cronOff is what stands for a line that is none.
const cronOff = "off"

// cronLine is a line as the API takes it. What each of its parts may be is left to the daemon.
func cronLine(text string) (line any, ok bool) {
	words := strings.Fields(text)
	at := slices.IndexFunc(words, func(word string) bool { return strings.HasPrefix(word, "/") })
	switch {
	case len(words) == 1 && words[0] == cronOff:
		return false, true
	case at <= 0:
		return nil, false
	}
	keys := map[string]any{"schedule": strings.Join(words[:at], " "), "path": words[at]}
	for _, word := range words[at+1:] {
		key, value, ok := strings.Cut(word, "=")
		if _, twice := keys[key]; !ok || twice {
			return nil, false
		}
		keys[key] = numberOrText(value)
	}
	return keys, true
}

// shownLine is what cronLine reads.
func shownLine(line any) string {
	keys, ok := line.(map[string]any)
	if !ok {
		return cronOff
	}
	words := []string{shown(keys["schedule"]), shown(keys["path"])}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if key != "schedule" && key != "path" {
			words = append(words, key+"="+shown(keys[key]))
		}
	}
	return strings.Join(words, " ")
}

// numberOrText leaves it to the daemon to say what a key takes.
func numberOrText(text string) any {
	if number, err := strconv.ParseFloat(text, 64); err == nil {
		if _, err := json.Marshal(number); err == nil { // not NaN
			return number
		}
	}
	return text
}

// takeAway adds what unset names. What is not there is most likely a slip.
func takeAway(ctx context.Context, client *api.Client, id tenement.InstanceID, unset []string, change *api.SettingsChange) error {
	if len(unset) == 0 {
		return nil
	}
	now, err := client.Settings(ctx, id)
	if err != nil {
		return err
	}
	for _, name := range unset {
		key := name
		for _, f := range settingFlags {
			if f.flag == name {
				key = f.key
			}
		}
		if !now.Has(key) {
			return &tenement.Error{
				Code: tenement.CodeNotFound, Op: "unset", Err: fmt.Errorf("%s has no %s of its own", id, name),
				Hint: "see what it has: ten inspect " + id.String(),
			}
		}
		if _, ok := now.Values[key]; ok {
			change.Values[key] = nil
		}
		if _, ok := now.Env[key]; ok {
			change.Env[key] = nil
		}
		if slices.Contains(now.Secrets, key) {
			change.Secrets[key] = nil
		}
		if line, ok := strings.CutPrefix(key, "cron."); ok {
			change.Cron[line] = nil
		}
	}
	return nil
}

// maxSecret bounds what is read of a secret, in bytes: more than the daemon accepts.
const maxSecret = 128 << 10

// askSecret reads a value where no history keeps it. A line end after it is not part of it.
func (a *app) askSecret(name string) (value string, piped bool, err error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		text, err := io.ReadAll(io.LimitReader(os.Stdin, maxSecret))
		return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), true, err
	}
	fmt.Fprintf(a.stderr, "%s: ", visible(name))
	text, err := term.ReadPassword(fd)
	fmt.Fprintln(a.stderr)
	return string(text), false, err
}

// readVariables reads the lines of a file. Its error tells no value.
func readVariables(path string, into map[string]any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxSecret)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return &tenement.Error{Code: tenement.CodeInvalid, Op: "read variables", Err: fmt.Errorf("%s:%d is not NAME=value", path, number)}
		}
		into[name] = value
	}
	return lines.Err()
}

// settingRows are the lines of inspect about what an instance has of its own.
func settingRows(s api.Settings) [][]string {
	var rows [][]string
	for _, key := range s.Keys() {
		rows = append(rows, []string{key, shown(s.Values[key])})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		rows = append(rows, []string{"env " + name, shown(s.Env[name])})
	}
	for _, name := range s.Secrets {
		rows = append(rows, []string{"secret " + name, tenement.Secret("").String()})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Cron)) {
		rows = append(rows, []string{"cron " + name, shownLine(s.Cron[name])})
	}
	return rows
}

// shown is a value as it was set; numbers are never written with exponents.
func shown(value any) string {
	if number, ok := value.(float64); ok {
		return strconv.FormatFloat(number, 'f', -1, 64)
	}
	return fmt.Sprint(value)
}
