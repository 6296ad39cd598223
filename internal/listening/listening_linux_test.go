package listening_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/cgroup"
	"tenement/internal/listening"
)

// patience bounds every wait for what comes at once on a machine that does nothing else.
const patience = 2 * time.Minute

// listenerArg makes the test binary be a program that listens on the addresses that
// standard input names, and says so.
const listenerArg = "listener-program"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == listenerArg {
		if err := listener(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// listener takes one line for each socket: "4" or "6", and a port.
func listener() error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var family, port int
		if _, err := fmt.Sscan(lines.Text(), &family, &port); err != nil {
			return err
		}
		if err := listenOn(family, port); err != nil {
			return err
		}
		fmt.Println("listens")
	}
	return lines.Err()
}

// listenOn listens on the wildcard address, plainly: net would open more than one socket
// to find out what there is.
func listenOn(family, port int) error {
	domain, address := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: port})
	if family == 6 {
		domain, address = unix.AF_INET6, &unix.SockaddrInet6{Port: port}
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, address); err != nil {
		return err
	}
	return unix.Listen(fd, 16) // and stays open until the program ends
}

// world is a cgroup in which there are listeners, in a network of their own.
type world struct {
	t      *testing.T
	group  *cgroup.Group
	events *listening.Events
}

func newWorld(t *testing.T) *world {
	t.Helper()
	tree, err := cgroup.Open(fmt.Sprintf("tenement-listening-%d-%s", os.Getpid(), t.Name()))
	if err != nil {
		missing(t, "cgroup", err)
	}
	t.Cleanup(func() { check(t, tree.Close()) })
	group, err := tree.New("api.alice", tenement.Limits{})
	check(t, err)
	t.Cleanup(func() { check(t, group.Remove()) })
	w := &world{t: t, group: group}
	w.events = w.open(tree.Path())
	return w
}

// open gives what tells of dir, and runs until the test ends.
func (w *world) open(dir string) *listening.Events {
	w.t.Helper()
	events, err := listening.Open(dir)
	if err != nil {
		missing(w.t, "bpf", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		events.Run(ctx, slog.New(slog.DiscardHandler))
	}()
	w.t.Cleanup(func() {
		cancel()
		<-ran
		check(w.t, events.Close())
	})
	return events
}

func missing(t *testing.T, what string, err error) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("TENEMENT_REQUIRE"), ","), what) {
		t.Fatal(err)
	}
	t.Skipf("%v (%s)", err, tenement.HintOf(err))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// program is a listener in a network namespace of its own.
type program struct {
	network uint64
	listen  func(family, port int)
}

func (w *world) start() *program {
	w.t.Helper()
	self, err := os.Executable()
	check(w.t, err)
	dir, err := w.group.Open()
	check(w.t, err)
	defer dir.Close()
	cmd := exec.CommandContext(context.WithoutCancel(w.t.Context()), self, listenerArg) // it ends with its input
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Cloneflags: syscall.CLONE_NEWNET}
	in, err := cmd.StdinPipe()
	check(w.t, err)
	out, err := cmd.StdoutPipe()
	check(w.t, err)
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		check(w.t, in.Close())
		check(w.t, cmd.Wait())
	})
	answers := bufio.NewReader(out)
	return &program{network: networkOf(w.t, cmd.Process.Pid), listen: func(family, port int) {
		w.t.Helper()
		_, err := fmt.Fprintln(in, family, port)
		check(w.t, err)
		if _, err := answers.ReadString('\n'); err != nil {
			w.t.Fatalf("it does not listen: %v", err)
		}
	}}
}

// networkOf is the cookie of a process's network namespace, as seen by a thread in it.
func networkOf(t *testing.T, pid int) (cookie uint64) {
	t.Helper()
	var thread sync.WaitGroup
	thread.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		check(t, err)
		defer namespace.Close()
		check(t, unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET))
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		check(t, err)
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		check(t, err)
	})
	thread.Wait()
	return cookie
}

func told(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatal("nobody told")
	}
}

func untold(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
		t.Error("told of what was not awaited")
	default:
	}
}

func TestListenersAreTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, family := range []int{4, 6} {
		p := w.start()
		began, done := w.events.Await(p.network, 8080)
		p.listen(family, 8080)
		told(t, began)
		done()
	}
}

// TestOnlyWhatIsAwaited: another port, another network, another cgroup and what was told
// already. That each is settled is known by an event that comes after it.
func TestOnlyWhatIsAwaited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, other := w.start(), w.start()
	began, done := w.events.Await(p.network, 8080)
	defer done()
	last, lastDone := w.events.Await(p.network, 9090)
	defer lastDone()
	other.listen(4, 8080)
	p.listen(4, 8081)
	p.listen(4, 9090)
	told(t, last)
	untold(t, began)
	p.listen(4, 8080)
	told(t, began)
}

func TestWhatIsNotAwaitedAnyMoreIsNotTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start()
	began, done := w.events.Await(p.network, 8080)
	last, lastDone := w.events.Await(p.network, 9090)
	defer lastDone()
	done()
	p.listen(4, 8080)
	p.listen(4, 9090)
	told(t, last)
	untold(t, began)
}

// TestTwoDaemons: during an upgrade there are two, and each is told.
func TestTwoDaemons(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	another := w.open(w.group.Path())
	p := w.start()
	one, oneDone := w.events.Await(p.network, 8080)
	defer oneDone()
	two, twoDone := another.Await(p.network, 8080)
	defer twoDone()
	p.listen(4, 8080)
	told(t, one)
	told(t, two)
}

// TestNobodyAttached: what listens does so as well without a daemon, and after one.
func TestNobodyAttached(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	events, err := listening.Open(w.group.Path())
	check(t, err)
	p := w.start()
	_, done := events.Await(p.network, 8080)
	check(t, events.Close())
	p.listen(4, 8080)
	done()
}

// TestAwaitedAtTheEnd: nobody waits for those who await something before a daemon ends.
func TestAwaitedAtTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 20 {
		events, err := listening.Open(w.group.Path())
		check(t, err)
		_, earlier := events.Await(1, 1)
		var awaiting sync.WaitGroup
		for port := range 4 {
			awaiting.Go(func() {
				_, done := events.Await(1, port)
				done()
			})
		}
		awaiting.Go(earlier)
		check(t, events.Close())
		awaiting.Wait()
	}
}

func TestManyAwaited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	full := false
	for port := range 1 << 16 {
		began, done := w.events.Await(1, port)
		defer done()
		if full = began == nil; full {
			break
		}
	}
	if !full {
		t.Error("there is no bound")
	}
}

func TestNeverTells(t *testing.T) {
	t.Parallel()
	var none *listening.Events
	began, done := none.Await(1, 8080)
	done()
	if began != nil {
		t.Error("a channel from which nothing ever comes would be waited for")
	}
}

func TestNoCgroup(t *testing.T) {
	t.Parallel()
	if _, err := listening.Open(t.TempDir()); tenement.CodeOf(err) != tenement.CodeUnavailable || tenement.HintOf(err) == "" {
		t.Errorf("error %v, hint %q", err, tenement.HintOf(err))
	}
}
