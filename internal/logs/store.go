// Package logs keeps what instances print on disk: bounded, searchable, followable,
// and across restarts of the daemon.
package logs

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"tenement"
)

// Limits bounds what a [Store] keeps. A field that is 0 means its default.
type Limits struct {
	// Instance bounds the text of one instance, and a little for every piece it came
	// in; 16 MiB. It holds within what one commit brings, about 128 KiB.
	Instance tenement.Bytes
	// Total bounds what the database takes on the disk, the index and the write-ahead
	// log included; 1 GiB. When it is reached, the instance that has most loses its
	// oldest lines, so that nobody can erase what another has within its fair share.
	Total tenement.Bytes
	// Retention is how long a line is kept; 14 days.
	Retention time.Duration

	indexStep int           // bytes of text; tests index sooner
	indexIdle time.Duration // the same
	pace      time.Duration // tests commit sooner
}

const (
	defaultInstance  = 16 << 20
	defaultTotal     = 1 << 30
	defaultRetention = 14 * 24 * time.Hour

	pageSize = 4 << 10 // SQLite's default
)

// enoughPages is how many pages in use make the oldest lines go: 12/16 of the bound.
func (l Limits) enoughPages() int64 { return int64(l.Total) / pageSize / 16 * 12 }

// mostPages is how many make commits wait until enough has gone: 13/16. What is left
// is for the write-ahead log, and for merging the index.
func (l Limits) mostPages() int64 { return int64(l.Total) / pageSize / 16 * 13 }

// logPages is from where the write-ahead log is written back and begins anew, as long
// as nobody is reading just then: 16 MiB at most, for what every commit changes is then
// written back once for many. mostLog, in bytes, is from where readers are waited for.
func (l Limits) logPages() int64 { return min(int64(l.Total)/pageSize/32, 4000) }

func (l Limits) mostLog() int64 { return min(int64(l.Total)/16, 32<<20) }

// Store is the daemon's logs. All methods may be called concurrently, before and
// after Close.
//
// One goroutine writes. It commits what all streams have to give at once, then does a
// small step of what else is to be done: index, drop what is too old or too much.
// Nothing is held in memory for an instance that prints nothing.
type Store struct {
	path   string
	limits Limits
	log    *slog.Logger
	queue  queue
	db     atomic.Pointer[database] // replaced when it is found damaged
	writer writer
	ended  sync.WaitGroup // the writer
	taken  atomic.Int64   // bytes

	mu        sync.Mutex
	committed int64         // the id of the last line that was committed
	changed   chan struct{} // closed when committed rises
}

// Open opens the logs in dir, which must exist. A database that is damaged, or that a
// newer version wrote, is moved aside and a fresh one begun: logs must not keep a
// daemon from starting. It is CodeInternal if there can be none.
//
// The store does not end with ctx but with Close, for instances print until the end.
func Open(ctx context.Context, dir string, l Limits, log *slog.Logger) (*Store, error) {
	s := &Store{
		path: filepath.Join(dir, fileName),
		limits: Limits{
			Instance:  cmp.Or(max(l.Instance, 0), defaultInstance),
			Total:     cmp.Or(max(l.Total, 0), defaultTotal),
			Retention: cmp.Or(max(l.Retention, 0), defaultRetention),
			indexStep: cmp.Or(l.indexStep, indexStep),
			indexIdle: cmp.Or(l.indexIdle, indexIdle),
			pace:      cmp.Or(l.pace, calmPace),
		},
		log:     log,
		queue:   queue{changed: make(chan struct{}, 1)},
		changed: make(chan struct{}),
	}
	d, err := openDatabase(ctx, s.path, s.limits)
	if err != nil && unusable(err) {
		d, err = s.replace(ctx, err)
	}
	if err != nil {
		return nil, failure("open logs "+s.path, err)
	}
	s.db.Store(d)
	s.writer = writer{Store: s, ctx: context.WithoutCancel(ctx), words: newWordSet()}
	if err := s.writer.resume(); err != nil {
		return nil, failure("open logs "+s.path, errors.Join(err, d.close()))
	}
	s.ended.Go(s.writer.run)
	return s, nil
}

// replace begins a fresh database in place of one that is of no use.
func (s *Store) replace(ctx context.Context, cause error) (*database, error) {
	aside, err := setAside(s.path, time.Now())
	if err != nil {
		return nil, errors.Join(cause, err)
	}
	s.log.Error("the logs of instances cannot be read and begin anew", "error", cause, "kept", aside)
	return openDatabase(ctx, s.path, s.limits)
}

// Close commits what was taken and ends the store. It may be called again.
func (s *Store) Close() error {
	s.queue.close()
	s.ended.Wait()
	return failure("close logs", s.db.Load().close())
}

// Taken is how many bytes of output were taken, or dropped, since Open.
func (s *Store) Taken() int64 { return s.taken.Load() }

// Append adds remarks of the daemon's own about an instance, a line for each line of
// text. It does not wait: in a flood of remarks, some are lost.
func (s *Store) Append(id tenement.InstanceID, level Level, text string) {
	if b := newRemark(id, level, text); b.lines > 0 {
		s.queue.put(b)
	}
}

// Drop forgets all lines of id. The lines it is given afterwards stay.
func (s *Store) Drop(id tenement.InstanceID) {
	b := &batch{instance: id, drop: true, pressing: true, done: make(chan error, 1)}
	if err := s.put(b); err != nil {
		s.log.Error("the logs of a deleted instance are still there", "instance", id, "error", err)
	}
}

// put gives b to the writer and waits for the outcome.
func (s *Store) put(b *batch) error {
	if !s.queue.put(b) {
		return errClosed
	}
	return <-b.done
}

// progress is the id of the last line that can be read, and what is closed when there
// is another.
func (s *Store) progress() (int64, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.committed, s.changed
}

func (s *Store) advance(committed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if committed > s.committed {
		s.committed = committed
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// walBytes is the size of the write-ahead log.
func (s *Store) walBytes() int64 {
	info, err := os.Stat(s.path + "-wal")
	if err != nil {
		return 0
	}
	return info.Size()
}
