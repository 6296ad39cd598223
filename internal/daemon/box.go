package daemon

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/store"
)

// Box implements [api.Backend].
func (b *backend) Box(ctx context.Context) (api.Box, error) {
	box := api.Box{
		StartedAt: b.since,
		Services:  slices.Sorted(maps.Keys(b.daemon.config().Services)),
		Cores:     runtime.NumCPU(),
		Load:      number("/proc/loadavg", "%f"),
		Memory:    api.Room{Total: tenement.Bytes(number("/proc/meminfo", "MemTotal: %f")) << 10},
		Disk:      b.diskRoom(),
		Pressure: api.Pressure{
			CPU:    number("/proc/pressure/cpu", someWaited),
			Memory: number("/proc/pressure/memory", someWaited),
			IO:     number("/proc/pressure/io", someWaited),
		},
	}
	if available, err := b.isolation.availableMemory(); err == nil { // else the system does not say
		box.Memory.Available = available
	}
	err := b.countStates(ctx, &box)
	return box, err
}

// someWaited is the first line of /proc/pressure/* (Documentation/accounting/psi.rst).
const someWaited = "some avg10=%f"

// number is what stands first in a file of the kernel, in a format of fmt.Sscanf; 0 where
// there is no such file.
func number(path, format string) float64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	var n float64
	if _, err := fmt.Sscanf(string(bytes.SplitN(text, []byte("\n"), 2)[0]), format, &n); err != nil {
		return 0
	}
	return n
}

// diskRoom is that of the data directory's file system; Available is what others than
// root can have.
func (b *backend) diskRoom() api.Room {
	var fs unix.Statfs_t
	if unix.Statfs(b.daemon.Config.DataDir, &fs) != nil {
		return api.Room{}
	}
	block := tenement.Bytes(fs.Bsize)
	return api.Room{Total: tenement.Bytes(fs.Blocks) * block, Available: tenement.Bytes(fs.Bavail) * block}
}

// countStates fills in how many instances are in which state, and what they are asked.
// What has an owner is counted by its word, all else by rows, of which none is read: what
// is just between the two may be counted wrongly.
func (b *backend) countStates(ctx context.Context, box *api.Box) error {
	asleep, err := b.store.Count(ctx, store.Filter{})
	if err != nil {
		return err
	}
	box.States = map[string]int{}
	for _, st := range b.supervisor.Awake() {
		box.Leases += st.Leases
		box.Waiting += st.Waiting
		switch st.State {
		case tenement.Asleep, tenement.Suspended, tenement.Failed: // by their rows
		default:
			box.States[st.State.String()]++
			asleep--
		}
	}
	for _, state := range []tenement.State{tenement.Suspended, tenement.Failed} {
		n, err := b.store.Count(ctx, store.Filter{Resting: []tenement.State{state}})
		if err != nil {
			return err
		}
		if n > 0 {
			box.States[state.String()] = n
		}
		asleep -= n
	}
	if asleep > 0 {
		box.States[tenement.Asleep.String()] = asleep
	}
	return nil
}
