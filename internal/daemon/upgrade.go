package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/fault"
)

// An upgrade, between a daemon and the one that it starts in its place:
//
//	old → new  starts it, with a socket for what follows and the front's listener
//	new → old  ready: the configuration is good
//	old        leaves every process running and gives up the data directory
//	old → new  go
//	new        takes over the data directory and the processes, and listens
//	new → old  serving
//	old        serves out what it has begun, with leases from the new one
//	old → new  events for the audit log
//
// Until the last message the old daemon accepts connections, and requests that need an
// instance wait. If the new one fails, the old one takes everything back.

// message is what the two tell each other, as JSON.
type message struct {
	Ready   bool   `json:"ready,omitempty"`
	Go      bool   `json:"go,omitempty"`
	Serving bool   `json:"serving,omitempty"`
	Version string `json:"version,omitempty"`
	Error   string `json:"error,omitempty"`

	Event *tenement.Event `json:"event,omitempty"` // for the audit log
}

// The new daemon's environment says that there is an old one, and what that was told
// to listen on. The descriptors have fixed numbers.
const (
	handoverVariable = "TENEMENT_HANDOVER"
	controlFD        = 3
	frontFD          = 4
)

// readyTime bounds what a new daemon may take to read its configuration, and
// servingTime what it may take to adopt everything. Requests wait for the latter.
const (
	readyTime   = 30 * time.Second
	servingTime = 30 * time.Second
)

// successor is the daemon that was started to take over.
type successor struct {
	process *os.Process
	control *net.UnixConn
	decoder *json.Decoder
	exited  chan struct{}
	state   *os.ProcessState // once exited is closed
}

// Upgrade implements [api.Backend]: it returns once another daemon, of the program as
// it is on the disk now, serves in this one's place; or with the reason why this one
// still does.
func (b *backend) Upgrade(ctx context.Context) (api.Upgraded, error) { return b.daemon.upgrade(ctx) }

// upgrade is not given up half way when ctx ends.
func (d *daemon) upgrade(ctx context.Context) (api.Upgraded, error) {
	const op = "upgrade"
	if !d.changing.TryLock() {
		return api.Upgraded{}, &tenement.Error{
			Code: tenement.CodeConflict, Op: op, Err: errors.New("the daemon is just being changed"), Hint: "try again",
		}
	}
	defer d.changing.Unlock()
	if d.isUpgraded() {
		return api.Upgraded{}, &tenement.Error{Code: tenement.CodeConflict, Op: op, Err: errors.New("it has been upgraded already")}
	}
	if err := d.tenancy.Load().store.CheckWritable(ctx); err != nil {
		return api.Upgraded{}, stillHere(op, err) // neither daemon could open the registry
	}
	s, err := d.startSuccessor()
	if err == nil {
		_, err = s.await(readyTime, func(m message) bool { return m.Ready })
	}
	if err != nil {
		s.abandon()
		return api.Upgraded{}, stillHere(op, err)
	}
	fault.Point(fault.SuccessorReady)
	return d.handOver(context.WithoutCancel(ctx), op, s)
}

func stillHere(op string, err error) error {
	return &tenement.Error{
		Code: tenement.CodeUnavailable, Op: op, Err: fmt.Errorf("the new daemon did not start: %w", err),
		Hint: "the old one serves on; the daemon's log may say more",
	}
}

// handOver gives the tenancy to a successor that is ready, or takes it back.
func (d *daemon) handOver(ctx context.Context, op string, s *successor) (api.Upgraded, error) {
	begun := time.Now()
	if err := d.tenancy.Load().end(true); err != nil {
		d.Log.Error("giving up the data directory", "error", err)
	}
	fault.Point(fault.GivenUp)
	err := s.send(message{Go: true})
	fault.Point(fault.GoSent)
	var m message
	if err == nil {
		m, err = s.await(servingTime, func(m message) bool { return m.Serving })
	}
	if err != nil {
		s.abandon()
		return api.Upgraded{}, d.takeBack(ctx, op, err)
	}
	fault.Point(fault.Replaced)
	d.notify(fmt.Sprintf("MAINPID=%d", s.process.Pid)) // it is believed from then on, and this one no more
	d.setHolder(relay{path: relayPath(d.Config.DataDir), config: d.config})
	d.Log.Info("another daemon serves", "pid", s.process.Pid, "version", m.Version, "after", time.Since(begun))
	d.next = s
	close(d.upgraded)
	return api.Upgraded{PID: s.process.Pid, Version: m.Version}, nil
}

// takeBack is what becomes of an upgrade whose new daemon has failed at the last.
func (d *daemon) takeBack(ctx context.Context, op string, reason error) error {
	t, err := d.openTenancy(ctx)
	if err == nil {
		d.tenancy.Store(t)
		d.setHolder(t)
		var local net.Listener
		if local, err = d.listenLocal(ctx); err == nil { // the new daemon may have taken the path
			d.serveLocal(local)
		}
	}
	if err != nil {
		err = fmt.Errorf("take everything back from a new daemon that failed (%w): %w", reason, err)
		d.broken <- err
		return err
	}
	return stillHere(op, reason)
}

func (d *daemon) isUpgraded() bool {
	select {
	case <-d.upgraded:
		return true
	default:
		return false
	}
}

// startSuccessor runs the program as it is on the disk now, with this one's arguments.
func (d *daemon) startSuccessor() (*successor, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ours, theirs, err := controlPair()
	if err != nil {
		return nil, err
	}
	pid, err := d.startWith(theirs, program)
	if err := errors.Join(err, unix.Close(theirs)); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	s := &successor{process: process, control: ours, decoder: json.NewDecoder(ours), exited: make(chan struct{})}
	go func() {
		s.state, _ = process.Wait() // fails only for what is no child of ours
		close(s.exited)
	}()
	return s, nil
}

// startWith passes descriptors on as they are. An [os.File] would make the listener
// blocking on the way, for this process as well.
func (d *daemon) startWith(control int, program string) (pid int, err error) {
	front, ok := d.front.(syscall.Conn)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	raw, err := front.SyscallConn()
	if err != nil {
		return 0, err
	}
	environment := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "WATCHDOG_PID=") // ours; without it the watchdog is for whoever reads it
	})
	environment = append(environment, handoverVariable+"="+d.Config.Listen)
	refused := raw.Control(func(fd uintptr) {
		pid, err = syscall.ForkExec(program, os.Args, &syscall.ProcAttr{
			Env: environment, Files: []uintptr{0, 1, 2, controlFD: uintptr(control), frontFD: fd},
		})
	})
	if err != nil {
		err = fmt.Errorf("run %s: %w", program, err)
	}
	return pid, errors.Join(refused, err)
}

// controlPair is a pair of connected sockets, the second one to be passed on.
func controlPair() (ours *net.UnixConn, theirs int, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, -1, err
	}
	file := os.NewFile(uintptr(fds[0]), "handover")
	conn, err := net.FileConn(file)
	err = errors.Join(err, file.Close()) // FileConn has a duplicate
	ours, ok := conn.(*net.UnixConn)
	if err != nil || !ok {
		return nil, -1, errors.Join(err, unix.Close(fds[1]))
	}
	return ours, fds[1], nil
}

func (s *successor) send(m message) error { return json.NewEncoder(s.control).Encode(m) }

// await reads messages until one is what is waited for, or the successor has failed.
func (s *successor) await(limit time.Duration, done func(message) bool) (message, error) {
	if err := s.control.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return message{}, err
	}
	for {
		var m message
		switch err := s.decoder.Decode(&m); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return m, fmt.Errorf("it said nothing for %s", limit)
		case err != nil:
			return m, s.silence()
		case m.Error != "":
			return m, errors.New(m.Error)
		case done(m):
			return m, nil
		}
	}
}

// silence is why the successor says nothing more: its socket is closed.
func (s *successor) silence() error {
	select {
	case <-s.exited:
		return errors.New(s.state.String())
	case <-time.After(time.Second):
		return errors.New("it closed its connection")
	}
}

// abandon makes sure that a successor which failed is gone.
func (s *successor) abandon() {
	if s == nil {
		return
	}
	_ = s.process.Kill() // fails when it is gone
	<-s.exited
	_ = s.control.Close()
}

// lingerTime is how long kept-alive connections of an upgraded daemon may still bring
// requests: each is answered, and its connection closed in good order.
const lingerTime = 2 * time.Second

// leave serves out what was begun before another daemon took over.
func (d *daemon) leave(ctx context.Context, servers ...*http.Server) error {
	ctx = context.WithoutCancel(ctx)
	closeListeners := errors.Join(d.front.Close(), d.local.Close())
	var limit time.Duration
	for _, s := range d.config().Services {
		limit = max(limit, s.Timeouts.Drain)
	}
	var group errgroup.Group
	group.Go(func() error {
		time.Sleep(lingerTime) //nolint:forbidigo // nothing tells when a client has had its chance
		return d.shutdown(ctx, limit, servers...)
	})
	group.Go(func() error {
		d.tenancy.Load().supervisor.Drain(ctx, d.hold)
		return nil
	})
	group.Go(func() error { return d.leaveRelay(limit) })
	return errors.Join(closeListeners, group.Wait())
}

// leaveRelay serves those daemons out that this one has replaced and that have not
// ended yet. What they ask for from now on, they ask the next one.
func (d *daemon) leaveRelay(limit time.Duration) error {
	if d.relay == nil {
		return nil
	}
	if err := d.relay.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	select {
	case <-d.relayed:
	case <-time.After(limit):
	}
	return nil
}
