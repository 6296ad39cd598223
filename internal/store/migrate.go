package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"tenement/internal/fault"
)

// migrations lead from one version of the tables to the next: the nth makes
// version n. One that was released is never changed; add another.
var migrations = []string{
	`
CREATE TABLE instances (
	service    TEXT NOT NULL CHECK (` + validLabel("service", "a-z0-9-") + `),
	name       TEXT NOT NULL CHECK (` + validLabel("name", "a-z0-9_-") + `),
	weight     INTEGER NOT NULL DEFAULT 0 CHECK (weight BETWEEN 0 AND 1000),
	suspended  INTEGER NOT NULL DEFAULT 0,
	created_at INTEGER NOT NULL,            -- times are Unix nanoseconds; 0 = none
	crashes    TEXT NOT NULL DEFAULT '',    -- JSON array of times, oldest first
	retry_at   INTEGER NOT NULL DEFAULT 0,
	reason     TEXT NOT NULL DEFAULT '',
	PRIMARY KEY (service, name)
) STRICT, WITHOUT ROWID;

-- What one tenant has in all services.
CREATE INDEX instances_by_name ON instances (name, service);

-- Read whole at every start, and small however many instances there are.
CREATE INDEX instances_with_weight ON instances (service, name) WHERE weight > 0;

-- What failed is listed with what is awake.
CREATE INDEX instances_failed ON instances (service, name) WHERE retry_at > 0;

-- No foreign key: a process whose instance was deleted must still be found, to end it.
CREATE TABLE processes (
	service    TEXT NOT NULL CHECK (` + validLabel("service", "a-z0-9-") + `),
	name       TEXT NOT NULL CHECK (` + validLabel("name", "a-z0-9_-") + `),
	pid        INTEGER NOT NULL,
	start_time INTEGER NOT NULL,
	boot_id    TEXT NOT NULL,
	port       INTEGER NOT NULL,
	cgroup     TEXT NOT NULL,
	PRIMARY KEY (service, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
	id         TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
	hash       BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
	tenant     TEXT NOT NULL,               -- '' = everything
	created_at INTEGER NOT NULL,
	expires_at INTEGER NOT NULL,
	last_used  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
	id      INTEGER PRIMARY KEY,
	at      INTEGER NOT NULL,
	actor   TEXT NOT NULL,
	action  TEXT NOT NULL,
	target  TEXT NOT NULL,
	outcome TEXT NOT NULL,
	detail  TEXT NOT NULL
) STRICT;
`,
	// What a process needs to be taken over, not only to be found and ended.
	`
ALTER TABLE processes ADD COLUMN isolation       TEXT NOT NULL DEFAULT 'process';
ALTER TABLE processes ADD COLUMN stdout          TEXT NOT NULL DEFAULT '';
ALTER TABLE processes ADD COLUMN stderr          TEXT NOT NULL DEFAULT '';
ALTER TABLE processes ADD COLUMN state           TEXT NOT NULL DEFAULT 'ready';
ALTER TABLE processes ADD COLUMN started_at      INTEGER NOT NULL DEFAULT 0;
ALTER TABLE processes ADD COLUMN active_at       INTEGER NOT NULL DEFAULT 0;
ALTER TABLE processes ADD COLUMN health_failures INTEGER NOT NULL DEFAULT 0;
`,
	// A user of its own for each instance.
	`
ALTER TABLE instances ADD COLUMN uid INTEGER NOT NULL DEFAULT 0; -- 0 = none yet
CREATE UNIQUE INDEX instances_by_uid ON instances (uid) WHERE uid > 0;

-- What was ever given: the uids from first up to, and without, next.
CREATE TABLE uid_blocks (
	first  INTEGER NOT NULL PRIMARY KEY CHECK (first > 0),
	next   INTEGER NOT NULL CHECK (next >= first),
	chosen INTEGER NOT NULL DEFAULT 0        -- 1: this registry's own, chosen at random
) STRICT;
CREATE UNIQUE INDEX uid_blocks_chosen ON uid_blocks (chosen) WHERE chosen = 1;
`,
	// How often the kernel has ended it because memory was short.
	`
ALTER TABLE instances ADD COLUMN oom_kills INTEGER NOT NULL DEFAULT 0;
`,
	// Where its network is, beside the process.
	`
ALTER TABLE processes ADD COLUMN slot INTEGER NOT NULL DEFAULT 0;
`,
	// What a monitor is told while it sleeps.
	`
ALTER TABLE instances ADD COLUMN healthy_at INTEGER NOT NULL DEFAULT 0;
`,
	// What instances do without a request.
	`
ALTER TABLE processes ADD COLUMN busy_until INTEGER NOT NULL DEFAULT 0;

CREATE TABLE alarms (
	service TEXT NOT NULL,
	name    TEXT NOT NULL,
	label   TEXT NOT NULL,
	at      INTEGER NOT NULL, -- as asked for
	due     INTEGER NOT NULL, -- the next attempt
	PRIMARY KEY (service, name, label)
) STRICT, WITHOUT ROWID;
CREATE INDEX alarms_by_due ON alarms (due);
`,
	// How far the cron lines have come. A line has one row, however many instances it is for.
	`
CREATE TABLE cron (
	service  TEXT NOT NULL,
	line     TEXT NOT NULL,
	schedule TEXT NOT NULL,
	slot     INTEGER NOT NULL, -- for which time it was run last; when it was first seen, at first
	reached  TEXT NOT NULL,    -- the last instance that it was run on then
	done     INTEGER NOT NULL, -- 1: on all of them
	PRIMARY KEY (service, line)
) STRICT, WITHOUT ROWID;
`,
	// What an instance has of its own.
	`
CREATE TABLE settings (
	service TEXT NOT NULL,
	name    TEXT NOT NULL,
	key     TEXT NOT NULL CHECK (key <> ''),
	value   BLOB NOT NULL,
	PRIMARY KEY (service, name, key),
	FOREIGN KEY (service, name) REFERENCES instances (service, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
`,
	// What a token is for, and what its maker calls it.
	`
ALTER TABLE tokens ADD COLUMN role TEXT NOT NULL DEFAULT ''; -- '' = nothing
ALTER TABLE tokens ADD COLUMN name TEXT NOT NULL DEFAULT '';
UPDATE tokens SET role = iif(tenant = '', 'admin', 'tenant');
`,
	// From where something was asked; and two rings of events, each with its own bound.
	`
ALTER TABLE events ADD COLUMN client TEXT NOT NULL DEFAULT '';
CREATE INDEX events_of_strangers ON events (id) WHERE actor = 'stranger';
CREATE INDEX events_of_others ON events (id) WHERE actor <> 'stranger';
`,
	// Who woke what, how long each phase took, in nanoseconds, and what each instance used.
	`
CREATE TABLE wakes (
	id         INTEGER PRIMARY KEY,
	service    TEXT NOT NULL,
	name       TEXT NOT NULL,
	at         INTEGER NOT NULL,
	cause      TEXT NOT NULL,
	client     TEXT NOT NULL,
	agent      TEXT NOT NULL,
	path       TEXT NOT NULL,
	queue      INTEGER NOT NULL,
	spawn      INTEGER NOT NULL,
	ready      INTEGER NOT NULL,
	first_byte INTEGER NOT NULL,
	outcome    TEXT NOT NULL,
	shared     INTEGER NOT NULL
) STRICT;
CREATE INDEX wakes_by_instance ON wakes (name, service, id);

CREATE TABLE usage (
	hour      INTEGER NOT NULL, -- its beginning
	service   TEXT NOT NULL,
	name      TEXT NOT NULL,
	awake     INTEGER NOT NULL, -- nanoseconds
	cpu       INTEGER NOT NULL, -- nanoseconds
	memory    INTEGER NOT NULL, -- bytes times seconds
	requests  INTEGER NOT NULL,
	bytes_in  INTEGER NOT NULL,
	bytes_out INTEGER NOT NULL,
	PRIMARY KEY (hour, service, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_instance ON usage (name, service, hour);
`,
	// What is counted whenever somebody reads the metrics.
	`
CREATE INDEX instances_suspended ON instances (service, name) WHERE suspended <> 0;
`,
	// What its data took when it was last looked at; 0 = not known.
	`
ALTER TABLE usage ADD COLUMN storage INTEGER NOT NULL DEFAULT 0; -- bytes
`,
	// What the operator is to be told by a webhook, and when they were told of it last.
	`
CREATE TABLE alerts (
	seq      INTEGER PRIMARY KEY,
	id       TEXT NOT NULL UNIQUE CHECK (id <> ''),
	kind     TEXT NOT NULL,
	service  TEXT NOT NULL, -- '' = not about an instance; here and below
	name     TEXT NOT NULL,
	at       INTEGER NOT NULL,
	body     BLOB NOT NULL,
	attempts INTEGER NOT NULL, -- that have failed
	due      INTEGER NOT NULL, -- the next one
	error    TEXT NOT NULL
) STRICT;

CREATE TABLE alerted (
	service TEXT NOT NULL,
	name    TEXT NOT NULL,
	kind    TEXT NOT NULL,
	at      INTEGER NOT NULL,
	PRIMARY KEY (service, name, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX alerted_by_time ON alerted (at) WHERE service <> '';
`,
}

// validLabel is what tenement.CheckInstanceName checks, so that no other program
// can put a name into the database that is dangerous as a path or a host. The
// bytes are counted too, because length and GLOB stop at a NUL.
func validLabel(column, characters string) string {
	return fmt.Sprintf("length(%[1]s) BETWEEN 1 AND 63 AND length(CAST(%[1]s AS BLOB)) = length(%[1]s)"+
		" AND %[1]s NOT GLOB '*[^%[2]s]*' AND %[1]s GLOB '[a-z0-9]*' AND %[1]s GLOB '*[a-z0-9]'", column, characters)
}

// migrate brings the tables to the last version of steps, wholly or not at all.
func migrate(ctx context.Context, db *sql.DB, steps []string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := migrateIn(ctx, tx, steps); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func migrateIn(ctx context.Context, tx *sql.Tx, steps []string) error {
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version >= len(steps) {
		return nil
	}
	for n, step := range steps[version:] {
		if _, err := tx.ExecContext(ctx, step); err != nil {
			return fmt.Errorf("to version %d: %w", version+n+1, err)
		}
		fault.Point(fault.MigrationHalf)
	}
	// A pragma takes no parameters.
	_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(steps)))
	return err
}
