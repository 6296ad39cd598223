package peers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"tenement"
	"tenement/bench/load"
	"tenement/bench/measure"
	"tenement/internal/api"
)

// Ten is a daemon of tenement's.
type Ten struct {
	API     *api.Client
	Address string
	PID     int // of the process that serves: an upgrade changes it

	program, dir string
	child        *Child
}

// stopTime is how long a daemon may take to end: it puts all of its instances to sleep.
const stopTime = 3 * time.Minute

// StartTen starts a daemon with a configuration, in a data directory that may have had
// one before. config is for all but [settings] listen, which is a free port.
func StartTen(program, dir, config string) (*Ten, error) {
	if err := writeFile(dir, "tenement.toml", config); err != nil {
		return nil, err
	}
	t := &Ten{program: program, dir: dir}
	return t, t.start()
}

func (t *Ten) start() error {
	stdout, announce, err := os.Pipe()
	if err != nil {
		return err
	}
	t.child, err = Start(Command{
		Args: []string{
			t.program, "serve", "--config", filepath.Join(t.dir, "tenement.toml"),
			"--data-dir", filepath.Join(t.dir, "data"), "--listen", "127.0.0.1:0",
		},
		Stdout: announce,
	})
	if err := errors.Join(err, announce.Close()); err != nil {
		return errors.Join(err, stdout.Close())
	}
	t.PID = t.child.PID
	line, err := bufio.NewReader(stdout).ReadString('\n')
	go func() { // and of those that take over from it
		_, _ = io.Copy(io.Discard, stdout) // until the last has ended
		_ = stdout.Close()
	}()
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on http://")
	if !ok {
		return errors.Join(fmt.Errorf("ten serve names no address: %q", line), err, t.child.Kill(), t.child.said())
	}
	t.Address = address
	t.API, err = api.NewClient(api.Target{Socket: filepath.Join(t.StateDir(), "ten.sock")})
	return err
}

// StateDir is where the daemon keeps its own state.
func (t *Ten) StateDir() string { return filepath.Join(t.dir, "data", ".tenement") }

// Stop ends the daemon and all of its instances.
func (t *Ten) Stop() error {
	t.API.CloseIdleConnections()
	err := t.end(syscall.SIGTERM)
	if err == nil {
		return nil
	}
	// What a daemon leaves behind, the next one ends.
	err = errors.Join(err, t.start())
	if t.child != nil {
		err = errors.Join(err, t.end(syscall.SIGTERM))
	}
	return err
}

// Crash kills the daemon; its instances run on.
func (t *Ten) Crash() error {
	t.API.CloseIdleConnections()
	return t.end(syscall.SIGKILL)
}

// Restart starts the daemon again after [Ten.Crash].
func (t *Ten) Restart() error { return t.start() }

// Upgrade has another process take over, and waits until the one before has ended.
func (t *Ten) Upgrade(ctx context.Context) error {
	u, err := t.API.Upgrade(ctx)
	if err != nil {
		return err
	}
	before := t.PID
	t.PID = u.PID
	return waitGone(before)
}

// end sends the serving process a signal and waits until it has gone.
func (t *Ten) end(signal syscall.Signal) error {
	if err := syscall.Kill(t.PID, signal); err != nil {
		return err
	}
	if err := waitGone(t.PID); err != nil {
		return errors.Join(err, syscall.Kill(t.PID, syscall.SIGKILL))
	}
	return nil
}

// waitGone waits for the end of a process that may not be our child.
func waitGone(pid int) error {
	for end := time.Now().Add(stopTime); time.Now().Before(end); measure.Nap(time.Millisecond) {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return nil
		}
	}
	return fmt.Errorf("process %d did not end within %v", pid, stopTime)
}

// Register makes instances known, asleep.
func (t *Ten) Register(ctx context.Context, service string, names ...string) error {
	var group errgroup.Group
	group.SetLimit(8)
	for _, name := range names {
		group.Go(func() error {
			_, err := t.API.Spawn(ctx, tenement.InstanceID{Service: service, Name: name}, api.SpawnOptions{})
			return err
		})
	}
	return group.Wait()
}

// Sleep stops instances of a service and waits until they have.
func (t *Ten) Sleep(ctx context.Context, service string, names ...string) error {
	var group errgroup.Group
	group.SetLimit(8)
	for _, name := range names {
		group.Go(func() error { return t.API.Stop(ctx, tenement.InstanceID{Service: service, Name: name}) })
	}
	return group.Wait()
}

// Wake asks every host for its root, a few at a time.
func (t *Ten) Wake(ctx context.Context, hosts ...string) error {
	var group errgroup.Group
	group.SetLimit(4)
	for _, host := range hosts {
		group.Go(func() error {
			conn := load.Conn{Address: t.Address}
			defer conn.Close()
			if err := conn.Exchange(ctx, load.Request(host, "/")); err != nil {
				return fmt.Errorf("wake %s: %w", host, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// Names are those of n instances, as [Hosts] has them.
func Names(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("t%d", i)
	}
	return names
}

// Proxy is a service of the daemon's as a contestant, with n tenants, of which the first
// is awake.
func (t *Ten) Proxy(ctx context.Context, service string, n int) (*Proxy, error) {
	hosts := Hosts(n, service+".localhost")
	if err := t.Register(ctx, service, Names(n)...); err != nil {
		return nil, err
	}
	if err := t.Wake(ctx, hosts[0]); err != nil {
		return nil, err
	}
	return &Proxy{
		wake: func(ctx context.Context) error { return t.Wake(ctx, hosts...) },
		Name: "tenement, " + service, Address: t.Address, H2C: t.Address, Hosts: hosts,
		PIDs: func() []int { return []int{t.PID} },
	}, nil
}

// Awake are all instances that are not asleep.
func (t *Ten) Awake(ctx context.Context) ([]api.Instance, error) {
	var list []api.Instance
	o := api.ListOptions{AwakeOnly: true, Limit: api.MaxInstances}
	for {
		page, err := t.API.Instances(ctx, o)
		if err != nil {
			return nil, err
		}
		list = append(list, page.Instances...)
		if o.After = page.Next; o.After.IsZero() {
			return list, nil
		}
	}
}

// PIDs are the main processes of instances, in order.
func PIDs(instances []api.Instance) []int {
	var pids []int
	for _, instance := range instances {
		if instance.PID != 0 {
			pids = append(pids, instance.PID)
		}
	}
	slices.Sort(pids)
	return pids
}
