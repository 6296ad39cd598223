package runtime

import (
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// wishes takes the connections on which one process asks something of us, at a stream
// socket with an abstract name: see notices. A nil one takes none. It is the listener that
// whoever answers gets.
type wishes struct {
	name    string
	socket  *net.UnixListener
	belongs func(pid int) bool
	places  chan struct{} // an element for each connection that is open
	pace    *time.Ticker
	closed  chan struct{}
	once    sync.Once // closes closed
	server  sync.WaitGroup
}

const (
	// maxWishes is how many connections are open at once; the next one waits.
	maxWishes = 4

	// wishPace bounds what a program that asks without end costs.
	wishPace = 20 * time.Millisecond
)

// openWishes binds a name in the network of the calling thread.
func openWishes(name string) (*wishes, error) {
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@" + name, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return &wishes{
		name: name, socket: socket, places: make(chan struct{}, maxWishes),
		pace: time.NewTicker(wishPace), closed: make(chan struct{}),
	}, nil
}

// environment is what the process must know.
func (w *wishes) environment() []string {
	if w == nil {
		return nil
	}
	return []string{socketVariable + "=@" + w.name}
}

// start has serve answer, until close, those that belong to the process.
func (w *wishes) start(serve func(net.Listener), belongs func(pid int) bool) {
	if w != nil {
		w.belongs = belongs
		w.server.Go(func() { serve(w) })
	}
}

// close returns when serve has. To close again does nothing.
func (w *wishes) close() {
	if w == nil {
		return
	}
	_ = w.Close() // fails when whoever answers has closed it
	w.server.Wait()
}

// Accept implements [net.Listener]: strangers are turned away.
func (w *wishes) Accept() (net.Conn, error) {
	for {
		select {
		case w.places <- struct{}{}:
		case <-w.closed:
			return nil, net.ErrClosed
		}
		conn, err := w.socket.AcceptUnix()
		if err != nil {
			<-w.places
			return nil, err
		}
		select {
		case <-w.pace.C:
		case <-w.closed:
		}
		c := &wish{UnixConn: conn, leave: sync.OnceFunc(func() { <-w.places })}
		if pid := peer(conn); pid > 0 && w.belongs(pid) {
			return c, nil
		}
		_ = c.Close() // nothing was written
	}
}

// Close implements [net.Listener].
func (w *wishes) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.socket.Close()
}

// Addr implements [net.Listener].
func (w *wishes) Addr() net.Addr { return w.socket.Addr() }

// wish is one connection, which has one of the places.
type wish struct {
	*net.UnixConn
	leave func()
}

// Close implements [net.Conn].
func (c *wish) Close() error {
	defer c.leave()
	return c.UnixConn.Close()
}

// peer is the pid of who has connected, as seen from here; 0 if it cannot be seen
// (unix(7), SO_PEERCRED).
func peer(conn *net.UnixConn) int {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	var credentials *unix.Ucred
	control := raw.Control(func(fd uintptr) {
		credentials, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if errors.Join(control, err) != nil {
		return 0
	}
	return int(credentials.Pid)
}
