package runtime

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/fault"
)

// fifoCapacity is how much a tenant can print while nobody reads, in bytes. The kernel
// counts it in pages, of which short writes may leave every other one almost empty: half
// of it must still hold more than MaxOffer, or a long line would fill the FIFO before
// its sink has to take it.
const fifoCapacity = 256 << 10

// crowded is from where on what is in a FIFO is pressing, in bytes: printed as fast again
// until the sink takes it, it may find no room.
const crowded = fifoCapacity / 8

// create makes the FIFOs of a new process of id, and claims them. The names are unlike
// those of every other daemon's life. They belong to uid, that a program may open
// /dev/stdout and /dev/stderr.
func (d *outputDir) create(id tenement.InstanceID, uid int) (ref tenement.Ref, err error) {
	name := filepath.Join(d.path, id.Service+"."+id.Name+"."+strconv.FormatUint(rand.Uint64(), 36))
	ref = tenement.Ref{Stdout: name + ".stdout", Stderr: name + ".stderr"}
	d.claim(ref)
	for _, path := range []string{ref.Stdout, ref.Stderr} {
		err := unix.Mkfifo(path, 0o600)
		if err == nil && uid != 0 {
			err = unix.Lchown(path, uid, uid)
		}
		if err != nil {
			return tenement.Ref{}, errors.Join(fmt.Errorf("make FIFO %s: %w", path, err), d.remove(ref))
		}
	}
	return ref, nil
}

// openStream opens the FIFO at path at both ends. Theirs is for reading, too: a process
// that is its own reader gets no SIGPIPE when the daemon dies. It is closed after ours
// was opened, and after a process has its own: only then is the end of the last writer
// an event (POLLHUP) for ours.
func openStream(path string, to Sink) (theirs *os.File, _ *stream, err error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	theirs = os.NewFile(uintptr(fd), path)
	undo := cleanup{func() { _ = theirs.Close() }}
	defer undo.unless(&err)
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil {
		return nil, nil, err
	}
	if info.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil, nil, fmt.Errorf("%s is no FIFO", path)
	}
	ours, err := os.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	// Both are refused to a user who has too many pipes (pipe(7), pipe-user-pages-soft).
	// Then what was read and not taken is in memory, and dies with the daemon.
	_, small := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, fifoCapacity)
	_, none := scratchPipes()
	return theirs, &stream{from: ours, to: to, staged: errors.Join(small, none) == nil}, nil
}

// copy offers what is printed until the last writer is gone or close ends it. What is
// not taken stays in the FIFO, which lives as long as the tenant: a daemon that is
// killed loses nothing. One that is killed after the sink has stored an offer and
// before it is removed from the FIFO leaves it there to be offered again, to the next.
//
// A tenant can only harm itself: with fcntl(2) or splice(2) it can make its FIFO so small
// that a long line fills it before it is taken.
func (s *stream) copy(detached *atomic.Bool) {
	if !s.staged {
		copyAll(s.from, s.to)
		return
	}
	conn, err := s.from.SyscallConn()
	if err != nil {
		return // closed before it began
	}
	known := 0 // bytes in the FIFO that were offered in vain
	var pause time.Duration
	for {
		pause = s.lookAgain(known, pause)
		var present int
		var hungUp bool
		look := func(fd uintptr) bool {
			present = buffered(int(fd))
			hungUp = present <= known && poll(int(fd), 0)&unix.POLLHUP != 0
			return hungUp || present > known
		}
		err := conn.Read(look)
		if err != nil && !s.stopping.Load() {
			_ = conn.Control(func(fd uintptr) { look(fd) }) // fails only on a closed file
		}
		switch {
		case detached.Load():
			return
		case hungUp, s.stopping.Load() && err != nil:
			s.drain(conn)
			return
		case present <= known:
			continue
		}
		shown, taken := s.offer(conn, present)
		known, pause = shown-taken, 0
		if taken == 0 {
			known = present // even if not all was shown: nothing but more can help
		}
	}
}

// longestPause is how long at most a tenant is blocked that writes more than the FIFO
// holds, in one call, after an unfinished line.
const longestPause = time.Second

// lookAgain sets the time when a FIFO that is not empty is looked into although there was
// no event, and returns the pause till then, twice the one before. It is needed because
// the kernel, when a write fills a pipe and has to wait for room, wakes the readers only
// if the pipe had been empty (pipe_write() in fs/pipe.c).
func (s *stream) lookAgain(known int, pause time.Duration) time.Duration {
	if known == 0 {
		s.setDeadline(time.Time{})
		return 0
	}
	pause = min(max(2*pause, time.Millisecond), longestPause)
	s.setDeadline(time.Now().Add(pause))
	return pause
}

// offer shows the sink the oldest of the present bytes, and removes from the FIFO what it
// takes.
func (s *stream) offer(conn syscall.RawConn, present int) (shown, taken int) {
	n := min(present, MaxOffer)
	pool := buffersFor(n)
	buf := pool.Get().(*[]byte)
	defer pool.Put(buf)
	_ = conn.Control(func(fd uintptr) { shown = peek(int(fd), (*buf)[:n]) }) // fails only on a closed file
	if shown == 0 {
		return 0, 0
	}
	s.to.Take((*buf)[:shown], present >= crowded, false, func(n int) {
		fault.Point(fault.OutputTaken)
		taken = n
		_, _ = io.ReadFull(held{conn}, (*buf)[:n]) // it is there, unless somebody else has read it
	})
	return shown, taken
}

// drain offers all that is in the FIFO now, as the last: with the last writer, or with
// the tree, went the reason to leave anything in it.
func (s *stream) drain(conn syscall.RawConn) {
	left := 0
	_ = conn.Control(func(fd uintptr) { left = buffered(int(fd)) }) // fails only on a closed file
	copyAll(io.LimitReader(held{conn}, int64(left)), s.to)
}

// held reads what is in a FIFO and does not wait for more.
type held struct{ conn syscall.RawConn }

func (h held) Read(buf []byte) (n int, err error) {
	control := h.conn.Control(func(fd uintptr) {
		n, err = ignoringEINTR(func() (int, error) { return unix.Read(int(fd), buf) })
	})
	if err := errors.Join(control, err); err != nil || n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// buffered is how many bytes are in the FIFO (FIONREAD in pipe(7), by its other name).
func buffered(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// peek copies the oldest bytes of the FIFO and leaves them there: tee(2) fills a second
// pipe, which is empty again afterwards. It may copy fewer than buf holds.
func peek(fifo int, buf []byte) int {
	pipes, err := scratchPipes()
	if err != nil {
		return 0
	}
	p := <-pipes
	defer func() { pipes <- p }()
	n, err := ignoringEINTR(func() (int, error) {
		n, err := unix.Tee(fifo, p.to, len(buf), unix.SPLICE_F_NONBLOCK)
		return int(n), err
	})
	if err != nil {
		return 0
	}
	for done := 0; done < n; {
		m, err := ignoringEINTR(func() (int, error) { return unix.Read(p.from, buf[done:n]) })
		if err != nil || m == 0 {
			panic(fmt.Sprintf("a pipe has lost %d bytes: %v", n-done, err))
		}
		done += m
	}
	return n
}

func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// scratch is a pipe that peek copies through.
type scratch struct{ from, to int }

// scratchPipes holds as many as can be in use at once, for all processes: each is used
// for the microseconds of two system calls.
var scratchPipes = sync.OnceValues(func() (chan scratch, error) {
	const count = 4
	pipes := make(chan scratch, count)
	for range count {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			return nil, err
		}
		if _, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, fifoCapacity); err != nil {
			return nil, err
		}
		pipes <- scratch{from: fds[0], to: fds[1]}
	}
	return pipes, nil
})

// The buffers of offers: most are short, and none is held while nothing is printed.
var shortBuffers, longBuffers = buffersOf(firstRead), buffersOf(MaxOffer)

func buffersOf(size int) *sync.Pool {
	return &sync.Pool{New: func() any { buf := make([]byte, size); return &buf }}
}

func buffersFor(n int) *sync.Pool {
	if n <= firstRead {
		return shortBuffers
	}
	return longBuffers
}
