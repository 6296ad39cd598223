package runtime_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"tenement/internal/cgroup"
	"tenement/internal/listening"
	"tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
)

var kinds = map[string]runtimetest.Opener{"host": openHost, "host with cgroups": openHostWithCgroups}

func TestMain(m *testing.M) {
	runtimetest.TenantMain()
	runtimetest.DaemonMain(kinds)
	runtimetest.OwnNetwork()
	os.Exit(m.Run())
}

func openHost(dir string) (runtime.Runtime, func() error, error) {
	rt, err := runtime.NewHost(filepath.Join(dir, "output"), nil, nil, nil, slog.New(slog.DiscardHandler))
	return rt, func() error { return nil }, err
}

func openHostWithCgroups(dir string) (runtime.Runtime, func() error, error) {
	tree, err := cgroup.Open(fmt.Sprintf("tenement-test-%x", sha256.Sum256([]byte(dir))))
	if err != nil {
		return nil, nil, err
	}
	events, closeEvents, err := openEvents(tree)
	if err != nil {
		return nil, nil, err
	}
	rt, err := runtime.NewHost(filepath.Join(dir, "output"), tree, nil, events, slog.New(slog.DiscardHandler))
	return rt, func() error { return errors.Join(closeEvents(), tree.Close()) }, err
}

// openEvents gives what tells who listens in the tree, or nil where nothing does.
func openEvents(tree *cgroup.Tree) (_ *listening.Events, closeEvents func() error, err error) {
	events, err := listening.Open(tree.Path())
	switch {
	case err != nil && slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), "bpf"):
		return nil, nil, err
	case err != nil:
		return nil, func() error { return nil }, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { events.Run(ctx, slog.New(slog.DiscardHandler)) })
	return events, func() error {
		cancel()
		running.Wait()
		return events.Close()
	}, nil
}

func TestHostWithoutCgroups(t *testing.T) {
	t.Parallel()
	runtimetest.Suite(t, kinds, "host")
}

func TestHostWithCgroups(t *testing.T) {
	t.Parallel()
	_, closeTree, err := openHostWithCgroups(t.TempDir())
	if err != nil {
		if strings.Contains(os.Getenv("TENEMENT_REQUIRE"), "cgroup") {
			t.Fatal(err)
		}
		t.Skipf("%v (run as root on a machine with a cgroup v2 hierarchy)", err)
	}
	if err := closeTree(); err != nil {
		t.Fatal(err)
	}
	runtimetest.Suite(t, kinds, "host with cgroups")
}
