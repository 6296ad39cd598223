package main

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/config"
	"tenement/internal/daemon"
	"tenement/internal/rootless"
)

const (
	localConfig  = "tenement.toml"
	systemConfig = "/etc/tenement/tenement.toml"
)

// configPath is the configuration file to use; CodeNotFound when none was named and
// none is where it is looked for.
func (a *app) configPath() (string, error) {
	if path := cmp.Or(a.config, os.Getenv("TENEMENT_CONFIG")); path != "" {
		return path, nil
	}
	for _, path := range []string{localConfig, systemConfig} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
	}
	return "", &tenement.Error{
		Code: tenement.CodeNotFound, Op: "find the configuration",
		Err:  errors.New("there is neither ./" + localConfig + " nor " + systemConfig),
		Hint: "write one with: ten init; or name it with --config or TENEMENT_CONFIG",
	}
}

// loadConfig reads the configuration; what the command line says comes before it.
func (a *app) loadConfig(o config.Overrides) (*config.Config, error) {
	path, err := a.configPath()
	if err != nil {
		return nil, err
	}
	o.DataDir, o.User = a.givenDataDir(), rootless.Inside()
	return config.Load(path, o)
}

func (a *app) givenDataDir() string { return cmp.Or(a.dataDir, os.Getenv("TENEMENT_DATA_DIR")) }

// client speaks to the daemon that the flags, the environment or the configuration
// name.
func (a *app) client() (*api.Client, error) {
	target, err := a.target()
	if err != nil {
		return nil, err
	}
	return api.NewClient(target)
}

// target prefers what stands on the command line. A flag that means a daemon on this
// machine is not outdone by TENEMENT_SERVER, and the environment's token goes to no
// other server than the environment's.
func (a *app) target() (api.Target, error) {
	server, token := os.Getenv("TENEMENT_SERVER"), os.Getenv("TENEMENT_TOKEN")
	t := api.Target{Server: a.server, Token: a.token}
	if t.Server == "" && a.dataDir == "" && a.config == "" {
		t.Server = server
	}
	if t.Token == "" && (server == "" || server == t.Server) {
		t.Token = token
	}
	if t.Server != "" {
		return t, nil
	}
	dataDir, err := a.findDataDir()
	t.Socket = daemon.SocketPath(dataDir)
	return t, err
}

// findDataDir needs the configuration only when nothing else names the directory.
func (a *app) findDataDir() (string, error) {
	if given := a.givenDataDir(); given != "" {
		return filepath.Abs(given)
	}
	cfg, err := a.loadConfig(config.Overrides{})
	if err == nil {
		return cfg.DataDir, nil
	}
	return "", &tenement.Error{
		Code: tenement.CodeOf(err), Err: err,
		Hint: "the configuration says where the daemon's socket is; without it, use --data-dir or --server",
	}
}
