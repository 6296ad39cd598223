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
)

// Box implements [api.Backend].
func (b *backend) Box(context.Context) (api.Box, error) {
	box := api.Box{
		StartedAt: b.since,
		Services:  slices.Sorted(maps.Keys(b.daemon.config().Services)),
		Cores:     runtime.NumCPU(),
		Load:      load(),
		Memory:    api.Room{Total: tenement.Bytes(number("/proc/meminfo", "MemTotal: %f")) << 10},
		Disk:      b.daemon.diskRoom(),
		Pressure:  pressure(),
	}
	if available, err := b.isolation.availableMemory(); err == nil { // else the system does not say
		box.Memory.Available = available
	}
	err := b.countStates(&box)
	return box, err
}

func load() float64 { return number("/proc/loadavg", "%f") }

func pressure() api.Pressure {
	return api.Pressure{
		CPU:    number("/proc/pressure/cpu", someWaited),
		Memory: number("/proc/pressure/memory", someWaited),
		IO:     number("/proc/pressure/io", someWaited),
	}
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
func (d *daemon) diskRoom() api.Room {
	var fs unix.Statfs_t
	if unix.Statfs(d.Config.DataDir, &fs) != nil {
		return api.Room{}
	}
	block := tenement.Bytes(fs.Bsize)
	return api.Room{Total: tenement.Bytes(fs.Blocks) * block, Available: tenement.Bytes(fs.Bavail) * block}
}

// countStates fills in how many instances are in which state, and what they are asked.
func (b *backend) countStates(box *api.Box) error {
	counts, err := b.tenancy.countStates()
	if err != nil {
		return err
	}
	box.States = map[string]int{}
	for state, n := range counts {
		if n > 0 {
			box.States[state.String()] = n
		}
	}
	for _, st := range b.supervisor.Awake() {
		box.Leases += st.Leases
		box.Waiting += st.Waiting
	}
	return nil
}
