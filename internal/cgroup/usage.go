package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tenement"
)

// meter is what a group keeps from one look at what it uses to the next: all that is awake
// is looked at again and again, and most of it has done nothing meanwhile.
type meter struct {
	mu      sync.Mutex
	stat    *os.File // cpu.stat: to open it takes several times as long as to read it
	closed  bool
	used    tenement.Usage // at the last look
	weighed time.Time      // when its memory was read
}

// weighAge is how old the memory may be of a group that has not run since: the kernel may have
// taken some of it away.
const weighAge = time.Minute

// Usage is what everything in the group uses together. Without the memory controller
// Memory is what its processes have resident, pages they share counted for each. That of a
// group that has not run since may be a minute old.
//
// From the first call on the group keeps a descriptor, until [Group.Remove] or [Group.Close].
// It may be called concurrently.
func (g *Group) Usage() (tenement.Usage, error) {
	m := &g.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	cpu, err := m.processorTime(g.dir)
	if err != nil {
		return tenement.Usage{}, err
	}
	if cpu == m.used.CPU && time.Since(m.weighed) < weighAge {
		return m.used, nil
	}
	memory, err := g.memory()
	if err == nil {
		m.used, m.weighed = tenement.Usage{CPU: cpu, Memory: memory}, time.Now()
	}
	return tenement.Usage{CPU: cpu, Memory: memory}, err
}

// processorTime is that of everything that has run in the group in dir. It needs mu.
func (m *meter) processorTime(dir string) (time.Duration, error) {
	if m.closed {
		return 0, os.ErrClosed
	}
	if m.stat == nil {
		path := filepath.Join(dir, "cpu.stat")
		fd, err := openToRead(path)
		if err != nil {
			return 0, err
		}
		m.stat = os.NewFile(uintptr(fd), path)
	}
	var text [1 << 10]byte
	n, err := unix.Pread(int(m.stat.Fd()), text[:], 0)
	if err != nil {
		return 0, &os.PathError{Op: "read", Path: m.stat.Name(), Err: err}
	}
	micros, _, err := valueOf(strings.Fields(string(text[:n])), "usage_usec")
	return time.Duration(micros) * time.Microsecond, err
}

func (g *Group) memory() (tenement.Bytes, error) {
	metered, known, err := g.number("memory.current", "")
	if known || err != nil {
		return tenement.Bytes(metered), err
	}
	pids, err := g.Processes()
	return Resident(pids), err
}

// Close lets go of the descriptor that Usage keeps; the group stays. What it uses cannot be
// told afterwards.
func (g *Group) Close() {
	g.meter.mu.Lock()
	defer g.meter.mu.Unlock()
	g.meter.closed = true
	_ = g.meter.stat.Close() // nothing was written; without a file it does nothing
	g.meter.stat = nil
}

// Resident is what processes have in memory, all together. One that is gone counts nothing.
func Resident(pids []int) (memory tenement.Bytes) {
	for _, pid := range pids {
		text, err := read(filepath.Join("/proc", strconv.Itoa(pid), "statm")) // in pages: size, resident, …
		if fields := strings.Fields(string(text)); err == nil && len(fields) > 1 {
			pages, _ := strconv.ParseInt(fields[1], 10, 64)
			memory += tenement.Bytes(pages) * tenement.Bytes(os.Getpagesize())
		}
	}
	return memory
}

// read is [os.ReadFile] for what the kernel writes when it is read, for two thirds of the time:
// nobody asks what kind of file it is, nor how large. All that is awake is looked at again and again.
func read(path string) ([]byte, error) {
	fd, err := openToRead(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	text := make([]byte, 0, 1<<10)
	for {
		text = slices.Grow(text, 1)
		n, err := unix.Read(fd, text[len(text):cap(text)])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return text, nil
		default:
			text = text[:len(text)+n]
		}
	}
}

func openToRead(path string) (fd int, err error) {
	fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}
