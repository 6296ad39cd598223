package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"tenement"
)

// lock is a file that one process at a time holds by flock(2), so that it is free
// again as soon as that process is gone, however it ended. The file itself stays:
// removing it would let two processes hold two files of the same name.
type lock struct{ file *os.File }

// acquireLock does not wait: CodeConflict if another one holds the file.
func acquireLock(path string) (*lock, error) {
	const op = "lock state"
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, failureIn(filepath.Dir(path), op, err)
	}
	err = flock(file, syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = &tenement.Error{
			Code: tenement.CodeConflict, Op: op,
			Err:  fmt.Errorf("%s is held by another daemon", path),
			Hint: holder(file) + " uses this data directory: stop it, or choose another directory with --data-dir",
		}
		return nil, errors.Join(err, file.Close())
	case err != nil:
		err = failureIn(filepath.Dir(path), op, fmt.Errorf("%s: %w", path, err))
		return nil, errors.Join(err, file.Close())
	}
	l := &lock{file}
	if err := l.writePID(); err != nil {
		err = failureIn(filepath.Dir(path), op, err)
		return nil, errors.Join(err, l.release())
	}
	return l, nil
}

func (l *lock) writePID() error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// release unlocks before it closes: a child that is just being started has a copy
// of the descriptor until it executes its program.
func (l *lock) release() error {
	unlocked := flock(l.file, syscall.LOCK_UN)
	closed := l.file.Close()
	if errors.Is(closed, os.ErrClosed) { // released before
		return nil
	}
	return errors.Join(unlocked, closed)
}

// holder names the process that wrote its id into file.
func holder(file *os.File) string {
	text, err := io.ReadAll(io.NewSectionReader(file, 0, 32))
	if pid, parseErr := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && parseErr == nil {
		return fmt.Sprintf("process %d", pid)
	}
	return "another process"
}

// flock does not use file.Fd, whose descriptor could be closed and reused meanwhile.
func flock(file *os.File, how int) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = syscall.Flock(int(fd), how) }); err != nil {
		return err
	}
	return failed
}
