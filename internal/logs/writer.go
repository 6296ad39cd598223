package logs

import (
	"bytes"
	"context"
	"errors"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"tenement"
)

// The pace of commits. The first line after a pause is committed at once. What comes
// right after waits a little, so that a thousand lines a second from each of fifty
// tenants are 250 chunks a second and not fifty thousand: what a chunk costs is mostly not
// its text. It waits where it was printed, and nobody is held up. Less where a stream says
// that it is pressing, for then a tenant may soon wait for us.
const (
	calmPace     = 200 * time.Millisecond
	pressingPace = 2 * time.Millisecond
)

// rest is how long nothing is tried after the database could not be written: what is
// printed meanwhile is dropped at once, and the disk is left alone.
const rest = time.Second

// chunkOverhead is what a chunk counts besides its text: its row and its indexes.
const chunkOverhead = 64

// writer is the goroutine that alone changes the database.
type writer struct {
	*Store
	ctx  context.Context // of no request
	next int64           // the id of the next line
	last int64           // the time of the last chunk

	indexed int64 // chunks up to this id are in the index
	pending int   // bytes of text that are not
	words   wordSet

	spare     []*batch
	drops     []tenement.InstanceID // that could not be carried out yet
	commitEnd time.Time             // of the last commit
	checkedAt time.Time             // when the bounds were last looked at
	unchecked int64                 // bytes printed since then
	more      bool                  // there is more to clear away
	failedAt  time.Time             // zero while all is well
}

// resume finds out where an earlier writer stopped.
func (w *writer) resume() error {
	d := w.db.Load()
	err := d.write.QueryRowContext(w.ctx, "SELECT next, indexed FROM counter").Scan(&w.next, &w.indexed)
	if err != nil {
		return err
	}
	err = d.write.QueryRowContext(w.ctx, "SELECT coalesce(sum(octet_length(text) + 1), 0) FROM chunks WHERE id > ?", w.indexed).Scan(&w.pending)
	if err != nil {
		return err
	}
	err = d.write.QueryRowContext(w.ctx, "SELECT coalesce((SELECT at FROM chunks ORDER BY id DESC LIMIT 1), 0)").Scan(&w.last)
	w.advance(w.next - 1)
	return err
}

func (w *writer) run() {
	for {
		closed := w.wait()
		list := w.queue.take(w.spare)
		w.commit(list)
		w.spare = list
		if closed {
			return
		}
		w.upkeep()
	}
}

// wait returns when there is something to do.
func (w *writer) wait() (closed bool) {
	for {
		waiting, pressing, closed := w.queue.look()
		delay := w.delay(waiting, pressing)
		if closed || delay <= 0 {
			return closed
		}
		timer := time.NewTimer(delay)
		select {
		case <-w.queue.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (w *writer) delay(waiting, pressing bool) time.Duration {
	switch {
	case w.resting() && !waiting:
		return rest - time.Since(w.failedAt)
	case w.more && !w.resting():
		return 0
	case pressing:
		return pressingPace - time.Since(w.commitEnd)
	case waiting:
		return w.limits.pace - time.Since(w.commitEnd)
	case w.pending > 0:
		return w.limits.indexIdle - time.Since(w.commitEnd)
	}
	return checkEvery - time.Since(w.checkedAt)
}

// commit stores all batches or none, and tells everybody which.
func (w *writer) commit(list []*batch) {
	if len(list) == 0 {
		return
	}
	err := errResting
	if !w.resting() {
		err = w.store(list)
		if damaged(err) {
			err = w.beginAnew(err, list)
		}
		w.report(err)
	}
	turn := startTurn()
	if err == nil {
		for _, b := range list {
			if b.remove != nil {
				b.remove(b.taken)
			}
			w.endTurn(&turn)
		}
		w.advance(w.next - 1)
	}
	for _, b := range list {
		if err != nil && b.drop {
			w.drops = append(w.drops, b.instance)
		}
		b.answer(err)
		w.endTurn(&turn)
	}
	w.commitEnd = time.Now()
}

var errResting = errors.New("the log could not be written a moment ago")

func (w *writer) resting() bool {
	return !w.failedAt.IsZero() && time.Since(w.failedAt) < rest
}

// report logs when storing begins to fail and when it works again.
func (w *writer) report(err error) {
	switch {
	case err != nil && w.failedAt.IsZero():
		hint := "see what is wrong with the file"
		switch resultOf(err) {
		case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR:
			hint = "is the disk full? make room"
		case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
			hint = "the file and its directory must be writable for this user"
		}
		w.log.Error("what instances print cannot be stored and is dropped", "file", w.path, "error", err, "hint", hint)
	case err == nil && !w.failedAt.IsZero():
		w.log.Info("what instances print is stored again", "file", w.path)
	}
	w.failedAt = time.Time{}
	if err != nil {
		w.failedAt, w.more = time.Now(), true
	}
}

// beginAnew replaces a database that turned out to be damaged, and stores the list in
// the new one.
func (w *writer) beginAnew(cause error, list []*batch) error {
	fresh, err := w.replace(w.ctx, cause)
	if err != nil {
		return errors.Join(cause, err)
	}
	_ = w.db.Swap(fresh).close() // it is damaged: there is no more to say
	if err := w.resume(); err != nil || len(list) == 0 {
		return err
	}
	return w.store(list)
}

const (
	upsertAccount = `INSERT INTO instances (service, name, bytes) VALUES (?, ?, ?)
		ON CONFLICT (service, name) DO UPDATE SET bytes = bytes + excluded.bytes RETURNING account, bytes`
	insertChunk = "INSERT INTO chunks (id, account, level, at, lines, text) VALUES (?, ?, ?, ?, ?, coalesce(CAST(? AS TEXT), ''))" // no bytes are NULL
	updateNext  = "UPDATE counter SET next = ?"
)

// store is one transaction; what the writer knows changes only when it is committed.
func (w *writer) store(list []*batch) error {
	changed := *w
	d := w.db.Load()
	err := d.inTransaction(w.ctx, func() error {
		for _, id := range w.drops {
			if err := changed.drop(d, id); err != nil {
				return err
			}
		}
		turn := startTurn()
		for _, b := range list {
			if err := changed.apply(d, b); err != nil {
				return err
			}
			w.endTurn(&turn)
		}
		_, err := d.stmts.counter.ExecContext(w.ctx, changed.next)
		return err
	})
	if err != nil {
		return err
	}
	w.next, w.last, w.pending, w.unchecked = changed.next, changed.last, changed.pending, changed.unchecked
	w.more, w.drops = changed.more, nil
	return nil
}

func (w *writer) apply(d *database, b *batch) error {
	if b.drop {
		return w.drop(d, b.instance)
	}
	size := int64(len(b.text) + chunkOverhead)
	var account, total int64
	err := d.stmts.account.QueryRowContext(w.ctx, b.instance.Service, b.instance.Name, size).Scan(&account, &total)
	if err != nil {
		return err
	}
	w.next += int64(b.lines)
	w.last = w.timeOf(b)
	w.pending += len(b.text) + 1
	w.unchecked += size
	_, err = d.stmts.insert.ExecContext(w.ctx, w.next-1, account, string(b.level), w.last, b.lines, b.text)
	if over := total - int64(w.limits.Instance); err == nil && over > 0 {
		err = w.trim(d, account, over+int64(w.limits.Instance)/trimShare)
	}
	return err
}

// backward is how far the clock may be set back before times in the log follow it.
const backward = time.Hour

// timeOf is when b was printed. Times rise with ids, so that a time finds its place
// by them: while the clock makes up for a small step back, it stands still here.
func (w *writer) timeOf(b *batch) int64 {
	at := b.at.UnixNano()
	if at < w.last && w.last-at < int64(backward) {
		return w.last
	}
	return at
}

// drop takes an instance's name from its lines. They are cleared away later.
func (w *writer) drop(d *database, id tenement.InstanceID) error {
	_, err := d.write.ExecContext(w.ctx, "UPDATE instances SET service = NULL, name = NULL WHERE service = ? AND name = ?", id.Service, id.Name)
	w.more = true
	return err
}

// newRemark splits text into lines.
func newRemark(id tenement.InstanceID, level Level, text string) *batch {
	b := &batch{instance: id, level: level, at: time.Now()}
	for left := []byte(text); len(left) > 0; {
		var line []byte
		line, left, _ = bytes.Cut(left, []byte{'\n'})
		b.begin()
		b.text = appendLine(b.text, line)
	}
	return b
}
