package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tenement"
	"tenement/internal/probe"
	"tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
)

// machine is what a runtime may leave behind, as one process sees it.
type machine struct {
	processes, mounts, networks, links, files int
}

// lookAround counts processes with the uids of instances, the network namespaces that they
// are in or that this process holds, the mounts and interfaces that it sees, and its
// descriptors.
func lookAround(tb testing.TB, first, last int) (m machine) {
	tb.Helper()
	networks := make(map[string]bool)
	for _, pattern := range []string{"/proc/[0-9]*", "/proc/self/task/*", "/proc/self/fd/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			tb.Fatal(err)
		}
		for _, path := range paths {
			link := path
			if !strings.HasPrefix(path, "/proc/self/fd/") {
				link += "/ns/net"
			}
			if uid := uidOf(path); pattern == "/proc/[0-9]*" {
				if uid < first || last < uid {
					continue
				}
				m.processes++
			}
			if network, err := os.Readlink(link); err == nil && strings.HasPrefix(network, "net:") {
				networks[network] = true
			}
		}
	}
	m.networks = len(networks)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		tb.Fatal(err)
	}
	m.mounts = strings.Count(string(mounts), "\n")
	links, err := net.Interfaces()
	if err != nil {
		tb.Fatal(err)
	}
	m.links = len(links)
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	m.files = len(files)
	return m
}

func uidOf(proc string) int {
	text, _ := os.ReadFile(proc + "/status") // it may have ended
	_, after, _ := strings.Cut(string(text), "\nUid:\t")
	uid, _, _ := strings.Cut(after, "\t")
	n, _ := strconv.Atoi(uid)
	return n
}

// BenchmarkManyAwake starts as many instances as TENEMENT_AWAKE says, 100 unless it does,
// has each answer, and ends them: nothing may be left. It reports what one costs the
// daemon while awake, and processes beyond one each.
func BenchmarkManyAwake(b *testing.B) {
	n := 100
	if text := os.Getenv("TENEMENT_AWAKE"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	program := compileTenant(b)
	for b.Loop() {
		dir := b.TempDir()
		rt, closeRuntime, err := openNamespace(dir)
		if err != nil {
			b.Skip(err)
		}
		awaken(b, rt, dir, program, 1) // what is made once: templates, rules
		specs := manySpecs(b, dir, program, n)
		first, last := specs[0].UID, specs[n-1].UID
		before, memory := lookAround(b, first, last), inUse()
		begin := time.Now()
		processes := startAll(b, rt, specs)
		b.ReportMetric(time.Since(begin).Seconds(), "s-to-start-all")
		awake := lookAround(b, first, last)
		b.ReportMetric(float64(int64(inUse())-int64(memory))/1024/float64(n), "KiB-each")
		b.ReportMetric(float64(awake.files-before.files)/float64(n), "descriptors-each")
		if awake.processes != n || awake.networks-before.networks != n || awake.mounts != before.mounts {
			b.Errorf("%d are awake: %+v, before %+v", n, awake, before)
		}
		begin = time.Now()
		endAll(b, processes)
		b.ReportMetric(time.Since(begin).Seconds(), "s-to-end-all")
		if after := lookAround(b, first, last); after != before {
			b.Errorf("left: %+v, before %+v", after, before)
		}
		if err := closeRuntime(); err != nil { // a cgroup that is left is an error
			b.Error(err)
		}
	}
}

// inUse is the memory that Go has in use for objects and stacks, in bytes.
func inUse() uint64 {
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func manySpecs(b *testing.B, dir, program string, n int) (specs []runtime.Spec) {
	b.Helper()
	for i := range n {
		dataDir := filepath.Join(dir, "data", "api", fmt.Sprint("c", i))
		if err := os.MkdirAll(dataDir, 0o700); err != nil {
			b.Fatal(err)
		}
		uid, err := runtimetest.OwnUID("namespace", dataDir)
		if err != nil {
			b.Fatal(err)
		}
		specs = append(specs, runtime.Spec{
			Instance: tenement.InstanceID{Service: "api", Name: filepath.Base(dataDir)}, DataDir: dataDir, UID: uid,
			Service: &tenement.Service{
				Name: "api", DataDir: filepath.Dir(dataDir), Egress: tenement.EgressAllow,
				Command: []tenement.Template{tenement.MustTemplate(program)},
			},
		})
	}
	return specs
}

func awaken(b *testing.B, rt runtime.Runtime, dir, program string, n int) {
	b.Helper()
	endAll(b, startAll(b, rt, manySpecs(b, dir, program, n)))
}

// startAll starts as many at once as there are cores, as a daemon does.
func startAll(b *testing.B, rt runtime.Runtime, specs []runtime.Spec) []runtime.Process {
	b.Helper()
	processes := make([]runtime.Process, len(specs))
	each(len(specs), func(i int) {
		p, err := rt.Start(b.Context(), specs[i])
		if err != nil {
			b.Error(err)
			return
		}
		processes[i] = p
		if err := probe.Ready(b.Context(), probe.Target{Dial: p.Dial, Path: "/"}); err != nil {
			b.Error(err)
		}
	})
	if b.Failed() {
		b.FailNow()
	}
	return processes
}

// endAll ends all at the same time, as a daemon does that stops.
func endAll(b *testing.B, processes []runtime.Process) {
	b.Helper()
	ended, cancel := context.WithCancel(b.Context())
	cancel()
	var all sync.WaitGroup
	for _, p := range processes {
		all.Go(func() {
			err := p.Kill()
			<-p.Exited()
			if err := errors.Join(err, p.Release(ended)); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
}

func each(n int, do func(i int)) {
	var all sync.WaitGroup
	next := make(chan int)
	for range goruntime.NumCPU() {
		all.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
}
