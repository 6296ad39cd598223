package main

import (
	"context"
	"database/sql"
	"net/url"
	"sync"
	"time"

	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

// pragmas stand in the DSN so that every pooled connection has them. WAL lets
// readers and a replicator work beside the writer; busy_timeout (milliseconds)
// makes a writer wait its turn instead of failing.
const pragmas = "_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)"

const schema = `CREATE TABLE IF NOT EXISTS notes (
	id         INTEGER PRIMARY KEY,
	text       TEXT NOT NULL,
	created_at INTEGER NOT NULL -- Unix time in milliseconds
) STRICT`

// note is one entry of the notebook.
type note struct {
	ID        int64     `json:"id"`
	Text      string    `json:"text"`
	CreatedAt time.Time `json:"created_at"`
}

// notebook keeps notes in one SQLite file. The file is opened by the first call
// that needs it, so that the program listens, and is ready, before that.
// All methods may be called concurrently.
type notebook struct {
	path string

	mu sync.Mutex
	db *sql.DB // nil until first needed
}

func newNotebook(path string) *notebook { return &notebook{path: path} }

// open gives the database with its schema. A failure is not remembered: the next
// call tries again.
func (n *notebook) open(ctx context.Context) (*sql.DB, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.db != nil {
		return n.db, nil
	}
	// The path is escaped: a '?' or '%' in it is no part of the DSN's query.
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: n.path}).EscapedPath(), RawQuery: pragmas}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		_ = db.Close() // the schema's error is the one to tell
		return nil, err
	}
	n.db = db
	return db, nil
}

// Add keeps text as a new note.
func (n *notebook) Add(ctx context.Context, text string) (note, error) {
	db, err := n.open(ctx)
	if err != nil {
		return note{}, err
	}
	added := note{Text: text, CreatedAt: time.Now().UTC().Truncate(time.Millisecond)}
	result, err := db.ExecContext(ctx, "INSERT INTO notes (text, created_at) VALUES (?, ?)",
		added.Text, added.CreatedAt.UnixMilli())
	if err != nil {
		return note{}, err
	}
	added.ID, err = result.LastInsertId()
	return added, err
}

// List gives all notes, the newest first; never nil without an error.
func (n *notebook) List(ctx context.Context) ([]note, error) {
	db, err := n.open(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := db.QueryContext(ctx, "SELECT id, text, created_at FROM notes ORDER BY id DESC")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []note{}
	for rows.Next() {
		var one note
		var millis int64
		if err := rows.Scan(&one.ID, &one.Text, &millis); err != nil {
			return nil, err
		}
		one.CreatedAt = time.UnixMilli(millis).UTC()
		list = append(list, one)
	}
	return list, rows.Err()
}

// Close closes the file, if it was ever opened.
func (n *notebook) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.db == nil {
		return nil
	}
	return n.db.Close()
}
