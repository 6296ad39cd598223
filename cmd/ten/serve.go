package main

import (
	"errors"
	"log/slog"
	"net"
	"os"
	goruntime "runtime"
	"runtime/debug"
	"strconv"

	"github.com/spf13/cobra"

	"tenement"
	"tenement/internal/config"
	"tenement/internal/daemon"
	"tenement/internal/rootless"
	"tenement/internal/runtime"
)

func (a *app) serveCommand() *cobra.Command {
	var o config.Overrides
	var port uint16
	var keep bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon until it is told to end",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			onPort := cmd.Flags().Changed("port")
			if onPort && o.Listen != "" {
				return usage(cmd, errors.New("--listen and --port exclude each other"))
			}
			load := func() (*config.Config, error) {
				cfg, err := a.loadConfig(o)
				if err == nil && onPort {
					cfg, err = a.onPort(cfg, o, port)
				}
				return cfg, err
			}
			cfg, err := load()
			if err != nil {
				return daemon.Declined(err)
			}
			outside := enterNamespaces(cfg)
			log := slog.New(slog.NewTextHandler(a.stderr, nil))
			collectSeldom()
			if err := leaveRoomForRequests(); err != nil {
				log.Warn("requests wait for tenants that compute", "error", err)
			}
			return daemon.Run(cmd.Context(), daemon.Options{
				Config: cfg, Version: programVersion(), Stdout: a.stdout, Log: log,
				Load: load, Keep: keep, NoNamespaces: outside,
			})
		},
	}
	cmd.Flags().StringVar(&o.Domain, "domain", "", "domain below which the hosts are")
	cmd.Flags().StringVar(&o.Listen, "listen", "", "`address:port` to listen on")
	cmd.Flags().StringVar(&o.AdminListen, "admin-listen", "", "`address:port` at which the management API answers besides, and nothing else does")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave tenants running when the daemon ends, for the next one")
	cmd.Flags().Uint16Var(&port, "port", 0, "port to listen on, at the configured address")
	return cmd
}

// enterNamespaces gives an ordinary user's daemon, if its services ask for isolation or an
// earlier one's are still there, the namespaces that let it isolate. Then it does not
// return: the program begins again in them. An error says why that cannot be.
func enterNamespaces(cfg *config.Config) error {
	stateDir := daemon.StateDir(cfg.DataDir)
	if os.Geteuid() == 0 || !isolates(cfg) && !rootless.Kept(stateDir) {
		return nil
	}
	return rootless.Enter(stateDir)
}

func isolates(cfg *config.Config) bool {
	for _, service := range cfg.Services {
		if service.Isolation != tenement.IsolationProcess {
			return true
		}
	}
	return false
}

// keepNamespacesCommand is for processes that [rootless.Enter] starts.
func (a *app) keepNamespacesCommand() *cobra.Command {
	return &cobra.Command{
		Use:    rootless.KeeperCommand,
		Hidden: true,
		Args:   arguments(0, 0),
		RunE:   func(*cobra.Command, []string) error { return rootless.Keep() },
	}
}

// spareThreads is how many threads may run Go code beyond one for each core.
const spareThreads = 2

// leaveRoomForRequests has the kernel share the cores among threads, which it does
// better than Go among goroutines: a goroutine that computes (the log's index, a search,
// a collection of garbage) keeps its place for 10 ms, and with two places nobody looks
// at the network meanwhile. GOMAXPROCS in the environment is the operator's choice.
// The threads' short slices keep requests from waiting for tenants that compute.
func leaveRoomForRequests() error {
	if os.Getenv("GOMAXPROCS") == "" {
		goruntime.GOMAXPROCS(goruntime.GOMAXPROCS(0) + spareThreads)
	}
	return runtime.ShortenSlices()
}

// gcPercent lets the heap grow to five times what is in use, which is a few megabytes,
// before it is collected. At Go's own twice, a busy proxy with so small a heap spends a
// third of its time on that.
const gcPercent = 400

// collectSeldom changes nothing where GOGC in the environment is the operator's choice.
func collectSeldom() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// onPort is the configuration with another port at the address it has.
func (a *app) onPort(cfg *config.Config, o config.Overrides, port uint16) (*config.Config, error) {
	host, _, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, err
	}
	o.Listen = net.JoinHostPort(host, strconv.Itoa(int(port)))
	return a.loadConfig(o)
}
