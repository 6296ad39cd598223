package logs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// errNewer is a database that a later version wrote.
var errNewer = errors.New("a newer tenement wrote it")

// migrations lead from one version of the tables to the next: the nth makes version n.
// One that was released is never changed; add another.
var migrations = []string{`
CREATE TABLE counter (
	next    INTEGER NOT NULL, -- the id of the next line
	indexed INTEGER NOT NULL  -- chunks up to this id are in words
) STRICT;

-- A dropped instance has neither service nor name until its chunks are gone. Accounts
-- are not used again: chunks of a dropped one may be left.
CREATE TABLE instances (
	account INTEGER PRIMARY KEY AUTOINCREMENT,
	service TEXT,
	name    TEXT,
	bytes   INTEGER NOT NULL, -- of all its chunks
	UNIQUE (service, name)
) STRICT;
CREATE INDEX instances_by_name ON instances (name);
CREATE INDEX instances_by_bytes ON instances (bytes);

-- A chunk is the lines that one stream had printed since it was last asked.
CREATE TABLE chunks (
	id      INTEGER PRIMARY KEY, -- of its last line; the others' are those before it
	account INTEGER NOT NULL,
	level   TEXT NOT NULL,
	at      INTEGER NOT NULL,    -- Unix nanoseconds
	lines   INTEGER NOT NULL,
	text    TEXT NOT NULL        -- the lines, with \n between them
) STRICT;
CREATE INDEX chunks_by_account ON chunks (account);
CREATE INDEX chunks_by_time ON chunks (at);

-- Which words are in which chunk. What they are is decided in search.go alone: the
-- tokenizer gets them folded, with blanks between them, and only parts them again.
CREATE VIRTUAL TABLE words USING fts5 (word, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii');
`}

// migrate brings the tables to the last version, in a transaction of its caller's.
func migrate(ctx context.Context, conn *sql.Conn) error {
	var version int
	if err := conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("%w: it has version %d, this program knows up to %d", errNewer, version, len(migrations))
	}
	for n, migration := range migrations[version:] {
		if _, err := conn.ExecContext(ctx, migration); err != nil {
			return fmt.Errorf("to version %d: %w", version+n+1, err)
		}
	}
	if version == 0 {
		// A file that was lost has given ids to lines, and followers remember them. The
		// microseconds of the clock are above them all, unless it was a million lines a
		// second ever since.
		if _, err := conn.ExecContext(ctx, "INSERT INTO counter VALUES (?1, ?1 - 1)", time.Now().UnixMicro()); err != nil {
			return err
		}
	}
	if version == len(migrations) {
		return nil
	}
	// A pragma takes no parameters.
	_, err := conn.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(migrations)))
	return err
}
