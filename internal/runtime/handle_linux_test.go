package runtime

import (
	"errors"
	"log/slog"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tenement"
)

// startChild runs a shell's script as the leader of a process group, as a former daemon
// would have, and gives its record. It is reaped by reap, at the latest after the test.
func startChild(t *testing.T, script string) (_ tenement.Ref, reap func()) {
	t.Helper()
	shell := exec.CommandContext(t.Context(), "sh", "-c", script)
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	reap = sync.OnceFunc(func() { _ = shell.Wait() }) // killed: an error by design
	t.Cleanup(func() {
		_ = syscall.Kill(-shell.Process.Pid, syscall.SIGKILL)
		reap()
	})
	stat, err := readStat(shell.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return tenement.Ref{PID: shell.Process.Pid, StartTime: stat.startTime, BootID: bootID()}, reap
}

// eventually is runtimetest.Eventually, which this package cannot import.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for tick := time.Tick(time.Millisecond); !ok(); <-tick {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func zombie(pid int) bool {
	stat, err := readStat(pid)
	return err == nil && stat.ended
}

func TestZombieIsGoneAndItsGroupIsEnded(t *testing.T) {
	t.Parallel()
	ref, _ := startChild(t, "sleep 1000 & exit 0")
	eventually(t, "zombie", func() bool { return zombie(ref.PID) })
	if err := syscall.Kill(-ref.PID, 0); err != nil {
		t.Fatalf("the group is empty: the test shows nothing: %v", err)
	}
	_, err := adopt(ref)
	if errors.Is(err, unix.EINVAL) {
		t.Skip("needs Linux 6.9: PIDFD_SIGNAL_PROCESS_GROUP")
	}
	if tenement.CodeOf(err) != tenement.CodeNotFound {
		t.Errorf("error %v", err)
	}
	eventually(t, "end of the group", func() bool { return len(livingOf(t, ref.PID)) == 0 })
}

// livingOf lists the processes of group that are no zombies.
func livingOf(t *testing.T, group int) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ps", "-e", "-o", "pgid=,stat=,pid=").Output()
	if err != nil {
		t.Skipf("needs ps(1): %v", err)
	}
	var living []string
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); fields[0] == strconv.Itoa(group) && fields[1][0] != 'Z' {
			living = append(living, fields[2])
		}
	}
	return living
}

func TestRestOfAGroupIsReachedAfterItsLeaderWasReaped(t *testing.T) {
	t.Parallel()
	ref, reap := startChild(t, "sleep 1000 & read x < /dev/zero")
	h, err := adopt(ref)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	eventually(t, "child", func() bool { return len(livingOf(t, ref.PID)) > 1 })
	if err := h.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	reap()
	if err := h.signal(syscall.SIGKILL); err != nil {
		t.Errorf("signal to what is gone: %v", err)
	}
	if err := h.signalGroup(syscall.SIGKILL); err != nil {
		t.Errorf("signal to the rest of the group: %v", err)
	}
	eventually(t, "end of the group", func() bool { return len(livingOf(t, ref.PID)) == 0 })
	h.close()
	if err := h.signal(syscall.SIGKILL); err != nil {
		t.Errorf("signal after the handle was closed: %v", err)
	}
}

func TestExitStatusIsKnownOnceSomebodyHasReaped(t *testing.T) {
	t.Parallel()
	ref, reap := startChild(t, "exit 3")
	h := open(t, ref)
	eventually(t, "zombie", func() bool { return zombie(ref.PID) })
	var old bool
	if err := h.control(func(fd int) { _, old = exitInfo(fd) }); err != nil || old {
		t.Skipf("needs Linux 6.15: PIDFD_INFO_EXIT (%v)", err)
	}
	if exit := h.wait(); exit != (tenement.Exit{Status: -1}) {
		t.Errorf("%+v of a zombie", exit)
	}
	again := open(t, ref)
	go reap()
	if exit := again.wait(); exit != (tenement.Exit{Status: 3, Known: true}) {
		t.Errorf("%+v", exit)
	}
}

func TestExitStatusIsKnownBeforeAnybodyHasReaped(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]tenement.Exit{
		"exit 3":     {Status: 3, Known: true},
		"exit 0":     {Known: true},
		"kill -9 $$": {Status: -1, Signal: "killed", Known: true},
	} {
		ref, _ := startChild(t, script)
		h := open(t, ref)
		h.startTime = ref.StartTime
		if exit := h.wait(); exit != want {
			t.Errorf("%s: %+v, want %+v", script, exit, want)
		}
	}
}

// open is adopt without its checks, and without the right to look at a zombie's status.
func open(t *testing.T, ref tenement.Ref) *handle {
	t.Helper()
	fd, err := unix.PidfdOpen(ref.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	h := newHandle(ref.PID, fd)
	t.Cleanup(h.close)
	return h
}

func TestNoDescriptorsLeftDoesNotMeanGone(t *testing.T) {
	ref, _ := startChild(t, "read x < /dev/zero")
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Skip(err)
	}
	_, err := adopt(ref)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if tenement.CodeOf(err) != tenement.CodeInternal {
		t.Errorf("error %v", err)
	}
	if zombie(ref.PID) {
		t.Error("it was ended")
	}
}

// BenchmarkAdopt adopts 200 live processes, as a restarted daemon does, and reports the
// time for one.
func BenchmarkAdopt(b *testing.B) {
	const count = 200
	dir := b.TempDir()
	first, err := NewHost(dir, nil, nil, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	s := Spec{
		Instance: tenement.InstanceID{Service: "api", Name: "alice"},
		Service:  &tenement.Service{Name: "api", Command: []tenement.Template{tenement.MustTemplate("sleep"), tenement.MustTemplate("1000")}},
		DataDir:  dir,
	}
	refs := make([]tenement.Ref, count)
	begin := time.Now()
	for i := range refs {
		p, err := first.Start(b.Context(), s)
		if err != nil {
			b.Fatal(err)
		}
		refs[i] = p.Ref()
		defer func() {
			if err := errors.Join(p.Kill(), p.Release(b.Context())); err != nil {
				b.Error(err)
			}
		}()
		p.Detach()
	}
	b.ReportMetric(float64(time.Since(begin).Microseconds())/count, "µs/start")
	var adopted []*hostProcess
	for b.Loop() {
		again, err := NewHost(dir, nil, nil, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		for _, ref := range refs {
			p, err := again.Adopt(b.Context(), s, ref)
			if err != nil {
				b.Fatal(err)
			}
			adopted = append(adopted, p.(*hostProcess))
		}
		b.StopTimer()
		for _, p := range adopted {
			p.Detach()
			p.handle.close()
		}
		adopted = adopted[:0]
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/count, "µs/adoption")
}

// cpuTime is what this process has used, in nanoseconds.
func cpuTime(b *testing.B) int64 {
	b.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}
