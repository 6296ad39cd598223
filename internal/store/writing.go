package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
)

// writing is whether the registry can be written, as the last attempt found.
type writing struct {
	mu      sync.Mutex
	failed  error // nil = it can
	changed func(failed error)
}

func (w *writing) refused() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

func (w *writing) set(failed error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	news := (failed == nil) != (w.failed == nil)
	w.failed = failed
	if news && w.changed != nil {
		w.changed(failed)
	}
}

// OnWritable has changed called once when the disk begins to refuse what is written,
// with an error of CodeUnavailable that has a hint, and once, with nil, when it takes
// it again. It is learned from the writes that are made anyway, and from
// [Store.CheckWritable]; changed is called by whoever writes and must not use the store.
func (s *Store) OnWritable(changed func(failed error)) {
	s.writing.mu.Lock()
	defer s.writing.mu.Unlock()
	s.writing.changed = changed
}

// Refused is the error with which the disk has begun to refuse what is written; nil while
// it takes it, as far as is known.
func (s *Store) Refused() error { return s.writing.refused() }

// enoughRoom is what the disk must have for it to count as writable again, in bytes. A page
// may fit where the next change does not: who is told that it can be written, and that it
// cannot, again and again, is told nothing.
const enoughRoom = 256 << 10

// CheckWritable writes one page, that of the version, to the disk itself and changes
// nothing by it: for who waits for room while nobody else writes. It is
// CodeUnavailable when the disk is full, or almost, read-only or failing.
func (s *Store) CheckWritable(ctx context.Context) error {
	err := s.durable(s.inTransaction(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(migrations)))
		return err
	}))
	if err == nil {
		err = s.findRoom()
	}
	switch {
	case err == nil:
		s.writing.set(nil)
	case troubleOf(err) != "":
		err = failureIn(s.dir, "write state", err)
		s.writing.set(err)
	default:
		err = failure("write state", err)
	}
	return err
}

// findRoom fails unless enoughRoom is there, for this user.
func (s *Store) findRoom() error {
	file, err := os.CreateTemp(s.dir, partialName+"*")
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, enoughRoom))
	return errors.Join(err, file.Close(), os.Remove(file.Name()))
}

// wrote is [failure] for what was to be written. Success alone does not show that the
// disk takes something again: SQLite writes no page that would stay as it is.
func (s *Store) wrote(ctx context.Context, op string, err error) error {
	broken := troubleOf(err) != ""
	err = failureIn(s.dir, op, err)
	switch {
	case broken:
		s.writing.set(err)
	case err == nil && s.writing.refused() != nil:
		_ = s.CheckWritable(context.WithoutCancel(ctx)) // notes by itself what it finds
	}
	return err
}
