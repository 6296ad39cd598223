package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
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

// handover is what the new daemon's environment, as JSON, says of the old one's
// configuration.
type handover struct {
	Listen      string `json:"listen"`
	AdminListen string `json:"admin_listen,omitempty"` // "": there is no adminFD
	DataDir     string `json:"data_dir"`
}

// The descriptors that are passed on have fixed numbers.
const (
	handoverVariable = "TENEMENT_HANDOVER"
	controlFD        = 3
	frontFD          = 4
	adminFD          = 5
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
	relay   *relay           // once it serves
}

// Upgrade implements [api.Backend]: it returns once another daemon, of the program as
// it is on the disk now, serves in this one's place; or with the reason why this one
// still does.
func (b *backend) Upgrade(ctx context.Context) (api.Upgraded, error) { return b.daemon.upgrade(ctx) }

// upgrade is not given up half way when ctx ends, but when the daemon is told to end.
func (d *daemon) upgrade(ctx context.Context) (api.Upgraded, error) {
	const op = "upgrade"
	if !d.changing.TryLock() {
		return api.Upgraded{}, &tenement.Error{
			Code: tenement.CodeConflict, Op: op, Err: errors.New("the daemon is just being changed"), Hint: "try again",
		}
	}
	defer d.changing.Unlock()
	if err := d.canChange(op); err != nil {
		return api.Upgraded{}, err
	}
	if err := d.tenancy.Load().store.CheckWritable(ctx); err != nil {
		return api.Upgraded{}, stillHere(op, err) // neither daemon could open the registry
	}
	s, err := d.startSuccessor()
	if err == nil {
		_, err = s.await(d.told, readyTime, func(m message) bool { return m.Ready }) //nolint:contextcheck // the daemon's end, whoever asked
	}
	if err != nil {
		s.abandon()
		return api.Upgraded{}, stillHere(op, err)
	}
	fault.Point(fault.SuccessorReady)
	return d.handOver(context.WithoutCancel(ctx), op, s)
}

func stillHere(op string, err error) error {
	hint := "the old one serves on; the daemon's log may say more"
	if errors.Is(err, errToldToEnd) {
		hint = ""
	}
	return &tenement.Error{
		Code: tenement.CodeUnavailable, Op: op, Err: fmt.Errorf("the new daemon did not start: %w", err), Hint: hint,
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
		m, err = s.await(d.told, servingTime, func(m message) bool { return m.Serving }) //nolint:contextcheck // the daemon's end, whoever asked
	}
	if err != nil {
		s.abandon()
		return api.Upgraded{}, d.takeBack(ctx, op, err)
	}
	fault.Point(fault.Replaced)
	d.notify(fmt.Sprintf("MAINPID=%d", s.process.Pid)) // it is believed from then on, and this one no more
	s.relay = &relay{path: relayPath(d.Config.DataDir), config: d.config}
	d.setHolder(s.relay)
	d.Log.Info("another daemon serves", "pid", s.process.Pid, "version", m.Version, "after", time.Since(begun))
	d.next = s
	close(d.upgraded)
	return api.Upgraded{PID: s.process.Pid, Version: m.Version}, nil
}

// takeBack is what becomes of an upgrade whose new daemon has failed at the last.
func (d *daemon) takeBack(ctx context.Context, op string, reason error) error {
	before := d.tenancy.Load().supervisor
	t, err := d.openTenancy(ctx)
	if err == nil {
		d.tenancy.Store(t)
		d.setHolder(t)
		d.servers.Go(func() error { before.KeepHeld(d.told, d.hold); return nil })
		err = d.listenAgain(ctx)
	}
	if err != nil {
		err = fmt.Errorf("take everything back from a new daemon that failed (%w): %w", reason, err)
		d.fail(err)
		return err
	}
	return stillHere(op, reason)
}

// listenAgain takes back the paths of the sockets, which the new daemon may have taken.
func (d *daemon) listenAgain(ctx context.Context) error {
	local, err := d.listenLocal(ctx)
	if err != nil {
		return err
	}
	before := d.local
	d.serveLocal(local)
	_ = before.Close() // nobody can reach it any more
	path := relayPath(d.Config.DataDir)
	if d.relay == nil {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	relay, err := d.listenUnix(ctx, path)
	if err != nil {
		return err
	}
	_ = d.relay.Close()        // who has something from it keeps that
	d.openRelay(d.told, relay) //nolint:contextcheck // it outlives the upgrade
	return nil
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
		var err error
		if s.state, err = process.Wait(); err != nil { // it is the service manager's child
			awaitEnd(process)
		}
		close(s.exited)
	}()
	return s, nil
}

// startWith passes the listeners on, and control.
func (d *daemon) startWith(control int, program string) (pid int, err error) {
	environment := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "WATCHDOG_PID=") // ours; without it the watchdog is for whoever reads it
	})
	config, err := json.Marshal(handover{Listen: d.Config.Listen, AdminListen: d.Config.AdminListen, DataDir: d.Config.DataDir})
	if err != nil {
		return 0, err
	}
	environment = append(environment, handoverVariable+"="+string(config))
	start := func(listeners ...uintptr) (err error) {
		pid, err = syscall.ForkExec(program, os.Args, &syscall.ProcAttr{
			Env: environment, Files: append([]uintptr{0, 1, 2, controlFD: uintptr(control)}, listeners...), Sys: siblingOfManaged(),
		})
		if err != nil {
			err = fmt.Errorf("run %s: %w", program, err)
		}
		return err
	}
	err = withDescriptor(d.front, func(front uintptr) error {
		if d.admin == nil {
			return start(front)
		}
		return withDescriptor(d.admin, func(admin uintptr) error { return start(front, admin) })
	})
	return pid, err
}

// withDescriptor calls do with the descriptor of l as it is. An [os.File] would make the
// listener blocking on the way, for this process as well.
func withDescriptor(l net.Listener, do func(fd uintptr) error) error {
	conn, ok := l.(syscall.Conn)
	if !ok {
		return errors.ErrUnsupported
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = do(fd) })
	return errors.Join(err, failed)
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

// await reads messages until one is what is waited for, or the successor has failed, or
// told ends.
func (s *successor) await(told context.Context, limit time.Duration, done func(message) bool) (message, error) {
	if err := s.control.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return message{}, err
	}
	defer context.AfterFunc(told, func() { _ = s.control.SetReadDeadline(time.Now()) })()
	for {
		var m message
		switch err := s.decoder.Decode(&m); {
		case err != nil && told.Err() != nil:
			return m, errToldToEnd
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
		if s.state == nil {
			return errors.New("it has ended")
		}
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
func (d *daemon) leave(ctx context.Context, servers ...server) error {
	ctx = context.WithoutCancel(ctx)
	closeListeners := errors.Join(d.front.Close(), d.local.Close())
	if d.admin != nil {
		closeListeners = errors.Join(closeListeners, d.admin.Close())
	}
	var limit time.Duration
	for _, s := range d.config().Services {
		limit = max(limit, s.Timeouts.Drain)
	}
	var group errgroup.Group
	group.Go(func() error {
		time.Sleep(lingerTime) //nolint:forbidigo // nothing tells when a client has had its chance
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		err := d.shutdown(ctx, limit, servers...)
		waitUntil(ctx, &d.next.relay.held) // by upgraded connections, of which the servers know nothing
		return err
	})
	group.Go(func() error {
		d.tenancy.Load().supervisor.Drain(ctx, d.hold)
		return nil
	})
	group.Go(func() error { return d.leaveRelay(ctx, limit) })
	return errors.Join(closeListeners, group.Wait())
}

// leaveRelay serves those daemons out that this one has replaced and that have not
// ended yet. What they ask for from now on, they ask the next one.
func (d *daemon) leaveRelay(ctx context.Context, limit time.Duration) error {
	if d.relay == nil {
		return nil
	}
	if err := d.relay.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	waitUntil(ctx, &d.relayed)
	return nil
}

// waitUntil waits for group until ctx ends.
func waitUntil(ctx context.Context, group *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		group.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
