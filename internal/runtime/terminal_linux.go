package runtime

import (
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Terminal is a pseudo-terminal (pty(7)): what is typed is written to it, and what is
// shown is read from it. Reading fails with EIO once nobody has the other end.
type Terminal struct {
	*os.File
	Other *os.File // the end that a program has
}

// OpenTerminal makes one, whose other end belongs to the user uid; 0 is the daemon's.
func OpenTerminal(uid int) (_ *Terminal, err error) {
	near, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	undo := cleanup{func() { _ = near.Close() }}
	defer undo.unless(&err)
	number := 0
	err = onDescriptor(near, func(fd int) (err error) {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if err != nil {
		return nil, err
	}
	far, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	undo.add(func() { _ = far.Close() })
	if uid != 0 {
		err = far.Chown(uid, uid)
	}
	return &Terminal{near, far}, err
}

// Resize tells the program how many characters there is room for.
func (t *Terminal) Resize(rows, columns uint16) error {
	return onDescriptor(t.File, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
}

// Keys are the signals that text means which is typed now (termios(3), ISIG). The kernel
// sends them itself, unless it does not know for whom the terminal is.
func (t *Terminal) Keys(text []byte) (signals []syscall.Signal) {
	var set *unix.Termios
	err := onDescriptor(t.File, func(fd int) (err error) {
		set, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	})
	if err != nil || set.Lflag&unix.ISIG == 0 {
		return nil
	}
	for _, key := range text {
		for at, signal := range map[int]syscall.Signal{unix.VINTR: unix.SIGINT, unix.VQUIT: unix.SIGQUIT, unix.VSUSP: unix.SIGTSTP} {
			if key != 0 && key == set.Cc[at] {
				signals = append(signals, signal)
			}
		}
	}
	return signals
}

// onDescriptor leaves the file in the poller, as Fd would not.
func onDescriptor(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = do(int(fd)) })
	return errors.Join(err, failed)
}
