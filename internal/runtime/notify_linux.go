package runtime

import (
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// notices takes what one process says of itself, from a datagram socket with an abstract
// name: it is reached from any root, and has no file that could be left. A nil one takes
// nothing.
type notices struct {
	name   string
	conn   *net.UnixConn
	said   chan Notice
	closed chan struct{}
	reader sync.WaitGroup
}

// openNotices binds a name in the network of the calling thread.
func openNotices(name string) (*notices, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@" + name, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		control := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		err = errors.Join(control, err)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &notices{name: name, conn: conn, said: make(chan Notice), closed: make(chan struct{})}, nil
}

// environment is what the process must know.
func (n *notices) environment() []string {
	if n == nil {
		return nil
	}
	return []string{notifyVariable + "=@" + n.name}
}

// start reads on, until close, what those say that belong to the process.
func (n *notices) start(belongs func(pid int) bool) {
	if n != nil {
		n.reader.Go(func() { n.read(belongs) })
	}
}

// close returns when nothing is said any more. To close again does nothing.
func (n *notices) close() {
	if n == nil || n.conn.Close() != nil {
		return
	}
	close(n.closed)
	n.reader.Wait()
}

const (
	maxNotice = 4096 // bytes of a message; what is longer is cut

	// noticePace bounds what a program that talks without end costs: who sends more
	// often waits.
	noticePace = time.Millisecond
)

func (n *notices) read(belongs func(pid int) bool) {
	message := make([]byte, maxNotice)
	// Room for the sender's credentials only: descriptors that come along are closed by
	// the kernel, which is also what BARRIER=1 waits for.
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	pace := time.NewTicker(noticePace)
	defer pace.Stop()
	for {
		size, controlSize, _, _, err := n.conn.ReadMsgUnix(message, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if pid := sender(control[:controlSize]); err == nil && pid > 0 && belongs(pid) {
			if notice, ok := parseNotice(string(message[:size])); ok && !n.pass(notice) {
				return
			}
		}
		<-pace.C
	}
}

// pass hands a notice on. False: nobody wants it any more.
func (n *notices) pass(notice Notice) bool {
	select {
	case n.said <- notice:
		return true
	case <-n.closed:
		return false
	}
}

// sender is the pid in the credentials of a message, as seen from here; 0 if it cannot be
// seen (unix(7), SCM_CREDENTIALS).
func sender(control []byte) int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) == 0 {
		return 0
	}
	credentials, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		return 0
	}
	return int(credentials.Pid)
}
