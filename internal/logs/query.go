package logs

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"tenement"
)

// Query says which lines are meant. Zero fields ask for everything.
type Query struct {
	Instance tenement.InstanceID
	Tenant   string // only instances of that name, of any service
	Level    Level
	Search   string // see search; docs/logs.md says it for people
	Since    time.Time
	Until    time.Time
	After    int64 // only lines with a higher id: of these the first, and not the last
	Before   int64 // only lines with a lower id
	Limit    int   // at most so many lines; 0 = 1,000
}

const (
	defaultLimit = 1000

	// mostText bounds the answer to one query, in bytes of text; it gives at least one
	// line.
	mostText = 16 << 20
)

// Query returns the newest lines that match q, or with After the oldest of them, in
// any case in the order of their ids: at most q.Limit, and 16 MiB of text. An error is
// CodeCanceled or CodeTimeout when ctx has ended, otherwise CodeInternal.
func (s *Store) Query(ctx context.Context, q Query) ([]Line, error) {
	lines, _, err := s.query(ctx, q, mostText)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return lines, failure("read logs", err)
}

// query also says whether there may be more lines that match.
func (s *Store) query(ctx context.Context, q Query, most int) (lines []Line, more bool, err error) {
	tx, err := s.db.Load().read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = tx.Rollback() }() // nothing was changed
	r := reading{tx: tx, Query: q, search: newSearch(q.Search), forward: q.After > 0, most: most}
	if r.Limit <= 0 {
		r.Limit = defaultLimit
	}
	if err := r.findRange(ctx); err != nil {
		return nil, false, err
	}
	accounts, err := r.accounts(ctx)
	if err != nil {
		return nil, false, err
	}
	for _, account := range accounts {
		p := page{reading: &r}
		if err := p.fill(ctx, account); err != nil {
			return nil, false, err
		}
		r.take(&p)
	}
	return r.merge(), r.more, nil
}

// reading is one query under way, in one transaction: it sees one state of the file.
type reading struct {
	Query
	tx      *sql.Tx
	search  *search
	forward bool
	most    int   // bytes of text
	from    int64 // chunks with ids from here
	to      int64 // to here, both included
	indexed int64 // chunks up to this id are in the index

	lines []Line // of all pages
	more  bool   // a page was full
	end   int64  // of the shortest of the full pages, as its last id
}

// findRange turns times into ids, which rise with them.
func (r *reading) findRange(ctx context.Context) error {
	r.from, r.to = r.After+1, math.MaxInt64
	if r.Before > 0 { // the chunk that the line is in may hold others
		if err := r.bound(ctx, &r.to, "SELECT id FROM chunks WHERE id >= ? ORDER BY id LIMIT 1", r.Before, math.MaxInt64); err != nil {
			return err
		}
	}
	if !r.Since.IsZero() {
		var first int64
		if err := r.bound(ctx, &first, "SELECT id FROM chunks WHERE at >= ? ORDER BY at, id LIMIT 1", r.Since.UnixNano(), math.MaxInt64); err != nil {
			return err
		}
		r.from = max(r.from, first)
	}
	if !r.Until.IsZero() {
		var last int64
		if err := r.bound(ctx, &last, "SELECT id FROM chunks WHERE at <= ? ORDER BY at DESC, id DESC LIMIT 1", r.Until.UnixNano(), 0); err != nil {
			return err
		}
		r.to = min(r.to, last)
	}
	return r.tx.QueryRowContext(ctx, "SELECT indexed FROM counter").Scan(&r.indexed)
}

// bound reads an id, or takes none when there is no row.
func (r *reading) bound(ctx context.Context, id *int64, query string, key, none int64) error {
	err := r.tx.QueryRowContext(ctx, query, key).Scan(id)
	if errors.Is(err, sql.ErrNoRows) {
		*id, err = none, nil
	}
	return err
}

// accounts lists those that are meant; 0 is all of them.
func (r *reading) accounts(ctx context.Context) ([]int64, error) {
	if r.Instance.IsZero() && r.Tenant == "" {
		return []int64{0}, nil
	}
	if r.Tenant != "" && r.Instance.Name != "" && r.Tenant != r.Instance.Name {
		return nil, nil
	}
	rows, err := r.tx.QueryContext(ctx, "SELECT account FROM instances WHERE name = ? AND (? = '' OR service = ?)",
		cmp.Or(r.Instance.Name, r.Tenant), r.Instance.Service, r.Instance.Service)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []int64
	for rows.Next() {
		var account int64
		if err := rows.Scan(&account); err != nil {
			return nil, err
		}
		list = append(list, account)
	}
	return list, rows.Err()
}

// take adds a page. Beyond the end of one that is full, all others end as well: lines
// of its account would be missing there.
func (r *reading) take(p *page) {
	r.lines = append(r.lines, p.lines...)
	if !p.full() {
		return
	}
	end := p.lines[len(p.lines)-1].ID
	if !r.more || (end < r.end) == r.forward {
		r.end = end
	}
	r.more = true
}

// merge puts the lines of all pages in order and cuts them to size.
func (r *reading) merge() []Line {
	if r.more {
		r.lines = slices.DeleteFunc(r.lines, func(l Line) bool { return l.ID != r.end && (l.ID > r.end) == r.forward })
	}
	slices.SortFunc(r.lines, func(a, b Line) int { return cmp.Compare(a.ID, b.ID) })
	excess := max(0, len(r.lines)-r.Limit)
	if r.forward {
		return r.lines[:len(r.lines)-excess]
	}
	return r.lines[excess:]
}

// page collects the lines of one account, or of all.
type page struct {
	*reading
	lines []Line
	bytes int
}

// fill reads the lines of one account, or with 0 of all, in the direction of r.
func (p *page) fill(ctx context.Context, account int64) error {
	expression := p.search.expression(account, p.Level)
	if expression == "" {
		return p.scan(ctx, account, p.from, p.to)
	}
	byIndex := func() error { return p.find(ctx, expression, p.from, min(p.to, p.indexed)) }
	byScan := func() error { return p.scan(ctx, account, max(p.from, p.indexed+1), p.to) }
	steps := []func() error{byScan, byIndex}
	if p.forward {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

const columns = "SELECT c.id, c.account, c.at, c.level, c.lines, c.text, i.service, i.name"

// scan looks at all chunks.
func (p *page) scan(ctx context.Context, account, from, to int64) error {
	query := columns + " FROM chunks c CROSS JOIN instances i ON i.account = c.account WHERE c.id BETWEEN ? AND ?"
	args := []any{from, to}
	if account != 0 {
		query += " AND c.account = ?"
		args = append(args, account)
	}
	return p.read(ctx, query+" AND i.service IS NOT NULL ORDER BY c.id", from, to, args)
}

// find looks at the chunks that the index names.
func (p *page) find(ctx context.Context, expression string, from, to int64) error {
	return p.read(ctx, columns+` FROM words CROSS JOIN chunks c ON c.id = words.rowid CROSS JOIN instances i ON i.account = c.account
		WHERE words MATCH ? AND words.rowid BETWEEN ? AND ? AND i.service IS NOT NULL ORDER BY words.rowid`, from, to, []any{expression, from, to})
}

func (p *page) read(ctx context.Context, query string, from, to int64, args []any) error {
	if from > to || p.full() {
		return nil
	}
	if !p.forward {
		query += " DESC"
	}
	rows, err := p.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for begun := time.Now(); !p.full() && rows.Next(); {
		var c chunk
		err := rows.Scan(&c.id, &c.account, &c.at, &c.level, &c.lines, &c.text, &c.instance.Service, &c.instance.Name)
		if err != nil {
			return err
		}
		p.add(&c)
		if worked := time.Since(begun); worked > 3*time.Millisecond {
			giveWay(worked / 10) // somebody waits for the search, too
			begun = time.Now()
		}
	}
	return rows.Err()
}

func (p *page) full() bool { return len(p.lines) >= p.Limit || p.bytes >= p.most }

// add takes the lines of c that match.
func (p *page) add(c *chunk) {
	if p.Level != "" && p.Level != c.level ||
		!p.Since.IsZero() && c.at < p.Since.UnixNano() || !p.Until.IsZero() && c.at > p.Until.UnixNano() {
		return
	}
	text := c.text
	for n := range c.lines {
		if p.full() {
			return
		}
		var line string
		id := c.id - n
		if p.forward {
			id = c.id - c.lines + 1 + n
			line, text, _ = strings.Cut(text, "\n")
		} else {
			start := strings.LastIndexByte(text, '\n')
			line, text = text[start+1:], text[:max(0, start)]
		}
		if id <= p.After || p.Before > 0 && id >= p.Before || !p.search.matches(line) {
			continue
		}
		// Cloned, or one line that is found would hold its whole chunk in memory.
		p.lines = append(p.lines, Line{id, time.Unix(0, c.at), c.instance, c.level, strings.Clone(line)})
		p.bytes += len(line)
	}
}
