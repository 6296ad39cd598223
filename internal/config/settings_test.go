package config

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

// settled is a service as a file describes it.
func settled(t *testing.T, keys string) *tenement.Service {
	t.Helper()
	c, err := Parse("t.toml", []byte("[service.api]\ncommand = \"app\"\n"+keys), Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Services["api"]
}

func TestSettingsGoOverTheService(t *testing.T) {
	t.Parallel()
	service := settled(t, "memory_limit_mb = 128\npids_limit = 9\nidle_timeout = 300\nfreeze_timeout = 60\n[service.api.env]\nA = \"1\"\nB = \"2\"\n")
	before := *service
	own, err := Settings{
		Values: map[string]any{
			"memory_limit_mb": 512.0, "cpu_limit": 0.5, "cpu_shares": 200.0, "open_files_limit": 64.0, "storage_quota_mb": 1.0,
			"idle_timeout": "10m", "startup_timeout": 20.0, "request_timeout": 0.0, "stop_timeout": "1500ms",
		},
		Env:     map[string]any{"B": "{id}", "C": true, "D": 7.0},
		Secrets: []string{"TOKEN"},
	}.Apply(service)
	if err != nil {
		t.Fatal(err)
	}
	want := tenement.Limits{Memory: 512 << 20, CPU: 0.5, CPUShares: 200, OpenFiles: 64, Storage: 1 << 20, PIDs: 9}
	if diff := cmp.Diff(want, own.Limits); diff != "" {
		t.Error(diff)
	}
	if got := own.Timeouts; got.Idle != 10*time.Minute || got.Startup != 20*time.Second || got.Request != 0 || got.Stop != 1500*time.Millisecond || got.Freeze != time.Minute {
		t.Errorf("timeouts %+v", got)
	}
	texts := map[string]string{}
	for name, value := range own.Env {
		texts[name] = value.Expand(tenement.Vars{tenement.VarID: "alice"})
	}
	if diff := cmp.Diff(map[string]string{"A": "1", "B": "alice", "C": "true", "D": "7"}, texts); diff != "" {
		t.Error(diff)
	}
	if service.Limits != before.Limits || len(service.Env) != 2 || service.Env["B"].String() != "2" {
		t.Errorf("the service has changed: %+v", service)
	}
}

// TestSettingsMeetAnotherService: what the configuration says later does not keep an
// instance with settings of its own from starting where its own can win.
func TestSettingsMeetAnotherService(t *testing.T) {
	t.Parallel()
	own, err := Settings{Values: map[string]any{"idle_timeout": "30s"}}.Apply(settled(t, "idle_timeout = 300\nfreeze_timeout = 60\n"))
	if err != nil || own.Timeouts.Freeze != 0 || own.Timeouts.Idle != 30*time.Second {
		t.Errorf("%+v, %v", own.Timeouts, err)
	}
}

func TestSettingsAreCheckedAsTheFileIs(t *testing.T) {
	t.Parallel()
	service := settled(t, "idle_timeout = 300\n")
	long := strings.Repeat("x", maxVariable+1)
	for name, c := range map[string]struct {
		settings Settings
		want     []string
	}{
		"bounds":       {Settings{Values: map[string]any{"pids_limit": -1.0, "cpu_limit": 0.001, "memory_limit_mb": "much"}}, []string{"pids_limit must be", "cpu_limit must be", "memory_limit_mb must be"}},
		"unknown":      {Settings{Values: map[string]any{"memory_limit": 5.0}}, []string{`"memory_limit" is not a setting`}},
		"not for one":  {Settings{Values: map[string]any{"isolation": "process"}}, []string{`"isolation" is not a setting`}},
		"kinds":        {Settings{Values: map[string]any{"idle_timeout": []any{}, "stop_timeout": map[string]any{}, "pids_limit": nil}}, []string{"not an array", "not a table"}},
		"freeze":       {Settings{Values: map[string]any{"freeze_timeout": 300.0}}, []string{"freeze_timeout is not shorter than idle_timeout"}},
		"startup":      {Settings{Values: map[string]any{"startup_timeout": 41.0}}, []string{"wake_timeout (40s)"}},
		"reserved":     {Settings{Env: map[string]any{"PORT": "1", "LISTEN_FDS": "1"}, Secrets: []string{"TENEMENT_X", "NOTIFY_SOCKET"}}, []string{"PORT is set by", "LISTEN_FDS is set by", "TENEMENT_X is set by", "NOTIFY_SOCKET is set by"}},
		"names":        {Settings{Env: map[string]any{"A-B": "1"}, Secrets: []string{""}}, []string{`"A-B" is not a valid name`, `"" is not a valid name`}},
		"templates":    {Settings{Env: map[string]any{"A": "{nobody}"}}, []string{"unknown variable {nobody}"}},
		"zero":         {Settings{Env: map[string]any{"A": "a\x00"}}, []string{"U+0000"}},
		"twice":        {Settings{Env: map[string]any{"A": "1"}, Secrets: []string{"A"}}, []string{"A is a variable and a secret"}},
		"long":         {Settings{Env: map[string]any{"A": long}}, []string{"A is longer"}},
		"many secrets": {Settings{Secrets: strings.Split(strings.Repeat("A ", maxVariables)+"A", " ")}, []string{"201 variables"}},
	} {
		_, err := c.settings.Apply(service)
		if tenement.CodeOf(err) != tenement.CodeInvalid {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in %q", name, want, err)
			}
		}
	}
	for _, bad := range []string{"", "a\x00b", long} {
		if err := CheckSecret("TOKEN", bad); tenement.CodeOf(err) != tenement.CodeInvalid || len(bad) > 3 && strings.Contains(err.Error(), "xxx") {
			t.Errorf("secret of %d bytes: %v", len(bad), err)
		}
	}
	if err := CheckSecret("TOKEN", "{id} \n ü"); err != nil {
		t.Error(err)
	}
}

func TestCronOfAnInstance(t *testing.T) {
	t.Parallel()
	service := settled(t, `[service.api.cron]
nightly = { schedule = "0 3 * * *", path = "/nightly" }
hourly = { schedule = "@hourly", path = "/hourly" }
report = { schedule = "@daily", path = "/report" }
`)
	lines, err := Settings{Cron: map[string]any{
		"nightly": map[string]any{"schedule": "0 4 * * *", "path": "/own", "method": "PUT", "timezone": "Europe/Berlin", "timeout": 90.0},
		"hourly":  false,
		"mine":    map[string]any{"schedule": "@weekly", "path": "/mine"},
	}}.CronLines(service)
	var got []string
	for _, c := range lines {
		got = append(got, fmt.Sprintf("%s %s %s %s %s %s %s", c.Name, c.Schedule, c.Zone, c.Method, c.Path, c.Timeout, c.Times.Next(time.Unix(0, 0)).UTC().Format(time.RFC3339)))
	}
	want := []string{
		"report @daily UTC POST /report 1h0m0s 1970-01-02T00:00:00Z",
		"mine @weekly UTC POST /mine 1h0m0s 1970-01-04T00:00:00Z",
		"nightly 0 4 * * * Europe/Berlin PUT /own 1m30s 1970-01-01T03:00:00Z",
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if len(service.Cron) != 3 || service.Cron[0].Path != "/nightly" {
		t.Errorf("the service's are %+v", service.Cron)
	}
	lines, err = Settings{Cron: map[string]any{
		"A": map[string]any{"schedule": "@daily", "path": "/"}, "b": true, "c": map[string]any{"schedule": "61 * * * *"},
		"d": map[string]any{"schedule": "@daily", "path": "here", "every": "hour"}, "e": map[string]any{"schedule": "@daily", "path": "/", "spread": "5m"},
	}}.CronLines(service)
	if len(lines) != 3+3 || tenement.CodeOf(err) != tenement.CodeInvalid {
		t.Errorf("%d lines, %v", len(lines), err)
	}
	for _, want := range []string{`"A" is not a valid name`, "cron.b must be a table", `"c" has no path`, "schedule: ", "path must be", "unknown key \"every\" in [cron.d]", `"e" has a spread`} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}
