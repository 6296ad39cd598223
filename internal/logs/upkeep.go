package logs

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"hash/maphash"
	"slices"
	"time"

	"tenement"
)

// What the writer does between two commits, in steps of some ten milliseconds.
const (
	indexStep = 256 << 10   // bytes of text in one transaction
	mostAhead = 2 << 20     // bytes that may wait for the index: a search reads them line by line
	indexIdle = time.Second // of quiet, after which less than a step is indexed

	checkPace  = 50 * time.Millisecond // between two looks at the bounds
	checkEvery = 10 * time.Minute      // the same, when nothing is printed: lines grow old
	checkShare = 64                    // of the bound in all was printed, and it is time as well

	trimShare  = 64   // of a bound is freed beyond it, so that not every commit has to
	trimChunks = 1000 // at most so many in one transaction
	trimBytes  = 1 << 20

	idlePages = 4 << 20 / pageSize // free pages that the file may keep
)

// upkeep does one step of everything that is due. When the file could not be written,
// it first clears away: the bound may be what it met.
func (w *writer) upkeep() {
	if w.resting() {
		return
	}
	d := w.db.Load()
	var err error
	if w.more || time.Since(w.checkedAt) >= checkPace || w.unchecked >= int64(w.limits.Total)/checkShare {
		err = w.check(d)
	}
	if err == nil {
		err = w.index(d)
	}
	if damaged(err) {
		err = w.beginAnew(err, nil)
	}
	if err != nil {
		w.report(err)
	}
}

// index puts what is waiting into the full-text index. Where it falls behind, commits
// have to wait for it.
func (w *writer) index(d *database) error {
	for w.pending >= w.limits.indexStep || w.pending > 0 && time.Since(w.commitEnd) >= w.limits.indexIdle {
		indexed, left := w.indexed, 0
		err := d.inTransaction(w.ctx, func() (err error) {
			indexed, left, err = w.indexSome(d)
			return err
		})
		if err != nil {
			return err
		}
		w.indexed, w.pending = indexed, left
		if left < mostAhead {
			return nil
		}
	}
	return nil
}

// indexSome returns up to where it came, and how many bytes wait beyond.
func (w *writer) indexSome(d *database) (indexed int64, left int, err error) {
	chunks, err := w.unindexed(d)
	if err != nil {
		return 0, 0, err
	}
	insert, err := d.write.PrepareContext(w.ctx, "INSERT INTO words (rowid, word) VALUES (?, CAST(? AS TEXT))")
	if err != nil {
		return 0, 0, err
	}
	defer insert.Close()
	indexed = w.indexed
	done := 0
	turn := startTurn()
	for _, c := range chunks {
		if _, err := insert.ExecContext(w.ctx, c.id, w.words.of(c.account, c.level, c.text)); err != nil {
			return 0, 0, err
		}
		indexed, done = c.id, done+len(c.text)+1
		w.endTurn(&turn)
	}
	if done >= w.limits.indexStep { // otherwise that was all: some of what waited was removed
		left = max(0, w.pending-done)
	}
	_, err = d.write.ExecContext(w.ctx, "UPDATE counter SET indexed = ?", indexed)
	return indexed, left, err
}

// turn is a time in which the writer computes, and after which it is others' turn.
type turn struct{ begun time.Time }

// turnLength is how long a turn is at least: a pause takes some time itself.
const turnLength = 200 * time.Microsecond

func startTurn() turn { return turn{time.Now()} }

// endTurn begins the next turn if this one was long enough; without a pause where the
// writer has fallen behind.
func (w *writer) endTurn(t *turn) {
	worked := time.Since(t.begun)
	if worked < turnLength || w.pending >= mostAhead {
		return
	}
	giveWay(worked)
	t.begun = time.Now()
}

// giveWay leaves the core to requests and tenants for as long as it was worked. What
// computes without a pause is taken off its core after 10 ms only, and until then nobody
// there looks at the network.
func giveWay(worked time.Duration) {
	time.Sleep(min(worked, time.Millisecond)) //nolint:forbidigo // it waits for nothing
}

// chunk is one row.
type chunk struct {
	id, account, at int64
	instance        tenement.InstanceID
	level           Level
	lines           int64
	text            string
}

func (w *writer) unindexed(d *database) ([]chunk, error) {
	rows, err := d.write.QueryContext(w.ctx, "SELECT id, account, level, text FROM chunks WHERE id > ? ORDER BY id", w.indexed)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []chunk
	for size := 0; size < w.limits.indexStep && rows.Next(); {
		var c chunk
		if err := rows.Scan(&c.id, &c.account, &c.level, &c.text); err != nil {
			return nil, err
		}
		list, size = append(list, c), size+len(c.text)+1
	}
	return list, rows.Err()
}

// wordSet makes what the index is told about a chunk.
type wordSet struct {
	list []byte         // the words, with blanks between them
	seen map[uint64]int // where in list a word of that hash ends
	seed maphash.Seed
}

func newWordSet() wordSet {
	return wordSet{seen: make(map[uint64]int), seed: maphash.MakeSeed()}
}

// of lists every word of a chunk once, and who printed it where. The list is valid until
// the next.
func (s *wordSet) of(account int64, level Level, text string) []byte {
	clear(s.seen)
	s.list = append(s.list[:0], accountToken(account)+" "+levelToken(level)...)
	for from, to := range words(text) {
		s.add(text[from:to])
	}
	return s.list
}

// add appends a word to the list, unless it is there.
func (s *wordSet) add(word string) {
	start := len(s.list)
	s.list = appendToken(append(s.list, ' '), word)
	token := s.list[start:] // and the blank before it
	hash := maphash.Bytes(s.seed, token)
	if end, known := s.seen[hash]; known && bytes.HasSuffix(s.list[:end], token) {
		s.list = s.list[:start]
		return
	}
	s.seen[hash] = len(s.list)
}

// check holds the bounds, a step at a time; w.more says that there is more to do.
func (w *writer) check(d *database) error {
	w.checkedAt, w.unchecked, w.more = time.Now(), 0, false
	for _, step := range []func(*database) error{w.clearDropped, w.clearAge, w.clearInstance, w.clearTotal, w.shrink} {
		if err := step(d); err != nil {
			return err
		}
	}
	return nil
}

// clearDropped removes what instances left that were dropped.
func (w *writer) clearDropped(d *database) error {
	return w.clearFrom(d, "SELECT account, bytes FROM instances WHERE service IS NULL LIMIT 1")
}

// clearInstance holds the bound of instances that print nothing, when it was lowered.
func (w *writer) clearInstance(d *database) error {
	return w.clearFrom(d, "SELECT account, bytes - ?1 FROM instances WHERE bytes > ?1 AND service IS NOT NULL LIMIT 1", int64(w.limits.Instance))
}

// clearTotal takes from the instance that has most, until few enough pages are in use.
// Where that falls behind, commits have to wait for it.
func (w *writer) clearTotal(d *database) error {
	for {
		used, _, err := pages(w.ctx, d.write)
		if err != nil || used <= w.limits.enoughPages() {
			return err
		}
		err = w.clearFrom(d, "SELECT account, ? FROM instances ORDER BY bytes DESC LIMIT 1", (used-w.limits.enoughPages())*pageSize)
		if err != nil || used <= w.limits.mostPages() {
			return err
		}
	}
}

// clearFrom trims the instance that query finds, if there is one, by as many bytes as
// it says, or by a step.
func (w *writer) clearFrom(d *database, query string, args ...any) error {
	return d.inTransaction(w.ctx, func() error {
		var account, bytes int64
		err := d.write.QueryRowContext(w.ctx, query, args...).Scan(&account, &bytes)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		w.more = true
		return w.trim(d, account, min(max(bytes, 1), trimBytes))
	})
}

// clearAge drops chunks that are too old.
func (w *writer) clearAge(d *database) error {
	oldest := time.Now().Add(-w.limits.Retention).UnixNano()
	return d.inTransaction(w.ctx, func() error {
		pieces, err := w.pick(d, trimBytes, "SELECT id, account, octet_length(text) FROM chunks WHERE at < ? ORDER BY at LIMIT ?", oldest, trimChunks)
		if err != nil || len(pieces) == 0 {
			return err
		}
		w.more = true
		return w.remove(d, pieces)
	})
}

// shrink gives free pages back to the disk.
func (w *writer) shrink(d *database) error {
	used, free, err := pages(w.ctx, d.write)
	if err != nil {
		return err
	}
	if free > max(idlePages, used/4) {
		w.more = true
		if err := drain(w.ctx, d.write, "PRAGMA incremental_vacuum(256)"); err != nil {
			return err
		}
	}
	if w.walBytes() > w.limits.mostLog() {
		return drain(w.ctx, d.write, "PRAGMA wal_checkpoint(RESTART)")
	}
	return nil
}

// piece is a chunk that is to go.
type piece struct{ id, account, size int64 }

// trim removes the oldest chunks of an account, about as many bytes as it is told.
func (w *writer) trim(d *database, account, bytes int64) error {
	pieces, err := w.pick(d, bytes, "SELECT id, account, octet_length(text) FROM chunks WHERE account = ? ORDER BY id LIMIT ?", account, trimChunks)
	if err != nil {
		return err
	}
	if len(pieces) == 0 { // so that it is not met again and again
		_, err = d.write.ExecContext(w.ctx, "DELETE FROM instances WHERE account = ?", account)
		return err
	}
	return w.remove(d, pieces)
}

// pick reads pieces until they have so many bytes.
func (w *writer) pick(d *database, bytes int64, query string, args ...any) ([]piece, error) {
	rows, err := d.write.QueryContext(w.ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []piece
	for bytes > 0 && rows.Next() {
		var p piece
		if err := rows.Scan(&p.id, &p.account, &p.size); err != nil {
			return nil, err
		}
		p.size += chunkOverhead
		list, bytes = append(list, p), bytes-p.size
	}
	return list, rows.Err()
}

// remove deletes chunks, and the accounts that have no others.
func (w *writer) remove(d *database, pieces []piece) error {
	const fromIndex, fromChunks = "DELETE FROM words WHERE rowid = ?", "DELETE FROM chunks WHERE id = ?"
	freed := make(map[int64]int64)
	ids := make([]any, 0, len(pieces))
	inIndex := 0
	for _, p := range pieces {
		freed[p.account] += p.size
		ids = append(ids, p.id)
		if p.id <= w.indexed {
			inIndex++
		}
	}
	if err := w.forEach(d, fromChunks, ids); err != nil {
		return err
	}
	slices.SortFunc(ids, func(a, b any) int { return cmp.Compare(a.(int64), b.(int64)) })
	if err := w.forEach(d, fromIndex, ids[:inIndex]); err != nil {
		return err
	}
	for account, bytes := range freed {
		if _, err := d.write.ExecContext(w.ctx, "UPDATE instances SET bytes = bytes - ? WHERE account = ?", bytes, account); err != nil {
			return err
		}
		if _, err := d.write.ExecContext(w.ctx, "DELETE FROM instances WHERE account = ?1 AND NOT EXISTS (SELECT 1 FROM chunks WHERE account = ?1)", account); err != nil {
			return err
		}
	}
	return nil
}

// forEach runs a statement for each of some ids.
func (w *writer) forEach(d *database, query string, ids []any) error {
	stmt, err := d.write.PrepareContext(w.ctx, query)
	if err != nil {
		return err
	}
	defer stmt.Close()
	for _, id := range ids {
		if _, err := stmt.ExecContext(w.ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// pages is how many pages of the file are in use, and how many are free.
func pages(ctx context.Context, db *sql.Conn) (used, free int64, err error) {
	var all int64
	if err := db.QueryRowContext(ctx, "PRAGMA page_count").Scan(&all); err != nil {
		return 0, 0, err
	}
	err = db.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&free)
	return all - free, free, err
}

// drain runs a pragma that works for as long as it has rows to give.
func drain(ctx context.Context, db *sql.Conn, pragma string) error {
	rows, err := db.QueryContext(ctx, pragma)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}
