-- migrations 487b2cd14bb95d5b78997778564dac4a94f523d30bb40a489011e479efe47ffe
CREATE TABLE instances (
	service    TEXT NOT NULL CHECK (length(service) BETWEEN 1 AND 63 AND length(CAST(service AS BLOB)) = length(service) AND service NOT GLOB '*[^a-z0-9-]*' AND service GLOB '[a-z0-9]*' AND service GLOB '*[a-z0-9]'),
	name       TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 63 AND length(CAST(name AS BLOB)) = length(name) AND name NOT GLOB '*[^a-z0-9_-]*' AND name GLOB '[a-z0-9]*' AND name GLOB '*[a-z0-9]'),
	weight     INTEGER NOT NULL DEFAULT 0 CHECK (weight BETWEEN 0 AND 1000),
	suspended  INTEGER NOT NULL DEFAULT 0,
	created_at INTEGER NOT NULL,            -- times are Unix nanoseconds; 0 = none
	crashes    TEXT NOT NULL DEFAULT '',    -- JSON array of times, oldest first
	retry_at   INTEGER NOT NULL DEFAULT 0,
	reason     TEXT NOT NULL DEFAULT '', uid INTEGER NOT NULL DEFAULT 0, oom_kills INTEGER NOT NULL DEFAULT 0, healthy_at INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (service, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX instances_by_name ON instances (name, service);
CREATE INDEX instances_with_weight ON instances (service, name) WHERE weight > 0;
CREATE INDEX instances_failed ON instances (service, name) WHERE retry_at > 0;
CREATE TABLE processes (
	service    TEXT NOT NULL CHECK (length(service) BETWEEN 1 AND 63 AND length(CAST(service AS BLOB)) = length(service) AND service NOT GLOB '*[^a-z0-9-]*' AND service GLOB '[a-z0-9]*' AND service GLOB '*[a-z0-9]'),
	name       TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 63 AND length(CAST(name AS BLOB)) = length(name) AND name NOT GLOB '*[^a-z0-9_-]*' AND name GLOB '[a-z0-9]*' AND name GLOB '*[a-z0-9]'),
	pid        INTEGER NOT NULL,
	start_time INTEGER NOT NULL,
	boot_id    TEXT NOT NULL,
	port       INTEGER NOT NULL,
	cgroup     TEXT NOT NULL, isolation       TEXT NOT NULL DEFAULT 'process', stdout          TEXT NOT NULL DEFAULT '', stderr          TEXT NOT NULL DEFAULT '', state           TEXT NOT NULL DEFAULT 'ready', started_at      INTEGER NOT NULL DEFAULT 0, active_at       INTEGER NOT NULL DEFAULT 0, health_failures INTEGER NOT NULL DEFAULT 0, slot INTEGER NOT NULL DEFAULT 0, busy_until INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (service, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE tokens (
	id         TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
	hash       BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
	tenant     TEXT NOT NULL,               -- '' = everything
	created_at INTEGER NOT NULL,
	expires_at INTEGER NOT NULL,
	last_used  INTEGER NOT NULL
, role TEXT NOT NULL DEFAULT '', name TEXT NOT NULL DEFAULT '') STRICT, WITHOUT ROWID;
CREATE TABLE events (
	id      INTEGER PRIMARY KEY,
	at      INTEGER NOT NULL,
	actor   TEXT NOT NULL,
	action  TEXT NOT NULL,
	target  TEXT NOT NULL,
	outcome TEXT NOT NULL,
	detail  TEXT NOT NULL
, client TEXT NOT NULL DEFAULT '') STRICT;
CREATE UNIQUE INDEX instances_by_uid ON instances (uid) WHERE uid > 0;
CREATE TABLE uid_blocks (
	first  INTEGER NOT NULL PRIMARY KEY CHECK (first > 0),
	next   INTEGER NOT NULL CHECK (next >= first),
	chosen INTEGER NOT NULL DEFAULT 0        -- 1: this registry's own, chosen at random
) STRICT;
CREATE UNIQUE INDEX uid_blocks_chosen ON uid_blocks (chosen) WHERE chosen = 1;
CREATE TABLE alarms (
	service TEXT NOT NULL,
	name    TEXT NOT NULL,
	label   TEXT NOT NULL,
	at      INTEGER NOT NULL, -- as asked for
	due     INTEGER NOT NULL, -- the next attempt
	PRIMARY KEY (service, name, label)
) STRICT, WITHOUT ROWID;
CREATE INDEX alarms_by_due ON alarms (due);
CREATE TABLE cron (
	service  TEXT NOT NULL,
	line     TEXT NOT NULL,
	schedule TEXT NOT NULL,
	slot     INTEGER NOT NULL, -- for which time it was run last; when it was first seen, at first
	reached  TEXT NOT NULL,    -- the last instance that it was run on then
	done     INTEGER NOT NULL, -- 1: on all of them
	PRIMARY KEY (service, line)
) STRICT, WITHOUT ROWID;
CREATE TABLE settings (
	service TEXT NOT NULL,
	name    TEXT NOT NULL,
	key     TEXT NOT NULL CHECK (key <> ''),
	value   BLOB NOT NULL,
	PRIMARY KEY (service, name, key),
	FOREIGN KEY (service, name) REFERENCES instances (service, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX events_of_strangers ON events (id) WHERE actor = 'stranger';
CREATE INDEX events_of_others ON events (id) WHERE actor <> 'stranger';
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
	bytes_out INTEGER NOT NULL, storage INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (hour, service, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_instance ON usage (name, service, hour);
CREATE INDEX instances_suspended ON instances (service, name) WHERE suspended <> 0;
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
INSERT INTO alarms (service, name, label, at, due) VALUES ('api', 'alice', 'billing', 1767229200000000000, 1767229260000000000);
INSERT INTO alerted (service, name, kind, at) VALUES ('api', 'alice', 'failed', 1767225600000000000);
INSERT INTO alerts (seq, id, kind, service, name, at, body, attempts, due, error) VALUES (1, 'msg_x', 'failed', 'api', 'alice', 1767225600000000000, X'7B2274797065223A226661696C6564227D', 2, 1767225660000000000, 'status 500');
INSERT INTO cron (service, line, schedule, slot, reached, done) VALUES ('api', 'nightly', '0 3 * * * UTC', 1767225600000000000, 'alice', 0);
INSERT INTO events (id, at, actor, action, target, outcome, detail, client) VALUES (1, 1767225600000000000, 'local:0', 'spawn', 'api:alice', 'ok', '', '');
INSERT INTO events (id, at, actor, action, target, outcome, detail, client) VALUES (100001, 1767225600000000003, 'token:t_alice', 'stop', 'api:alice', 'forbidden', CAST(X'612074656E616E74206D6179206E6F7409E280A6' AS TEXT), '');
INSERT INTO events (id, at, actor, action, target, outcome, detail, client) VALUES (100002, 1767225600000000004, 'stranger', 'authenticate', '', 'unauthenticated', '', '2001:db8::1');
INSERT INTO instances (service, name, weight, suspended, created_at, crashes, retry_at, reason, uid, oom_kills, healthy_at) VALUES ('a-1', '7', 0, 0, -1, '[1767225600000000000,1767225601500000000]', 1767225660000000000, CAST(X'657869742073746174757320333A20697427732022C3BC2220F09F8FA00A001B5B33316D' AS TEXT), 0, 0, 0);
INSERT INTO instances (service, name, weight, suspended, created_at, crashes, retry_at, reason, uid, oom_kills, healthy_at) VALUES ('api', 'alice', 100, 0, 1767225600000000000, '', 0, '', 1987000004, 3, 1767225600000000004);
INSERT INTO instances (service, name, weight, suspended, created_at, crashes, retry_at, reason, uid, oom_kills, healthy_at) VALUES ('api', 'bob_2', 0, 1, 1767225600000000001, '', 0, '', 70000, 4, 0);
INSERT INTO instances (service, name, weight, suspended, created_at, crashes, retry_at, reason, uid, oom_kills, healthy_at) VALUES ('api', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', 1000, 0, 0, '', 0, '', 0, 0, 0);
INSERT INTO processes (service, name, pid, start_time, boot_id, port, cgroup, isolation, stdout, stderr, state, started_at, active_at, health_failures, slot, busy_until) VALUES ('api', 'alice', 4711, 123456789, '5f0c2a0e-8a3b-4a63-9f0e-6d0c1e3a7b52', 20001, '/sys/fs/cgroup/tenement-0a1b2c3d4e5f/api-alice-1', 'process', '', '', 'ready', 0, 0, 0, 0, 0);
INSERT INTO processes (service, name, pid, start_time, boot_id, port, cgroup, isolation, stdout, stderr, state, started_at, active_at, health_failures, slot, busy_until) VALUES ('api', 'bob_2', 4712, 123456790, '5f0c2a0e-8a3b-4a63-9f0e-6d0c1e3a7b52', 20002, '', 'process', '/var/lib/tenement/.tenement/output/api.bob_2.1.stdout', '/var/lib/tenement/.tenement/output/api.bob_2.1.stderr', 'stopping', 1767225600000000000, 1767225600000000001, 2, 17, 1767229200000000005);
INSERT INTO processes (service, name, pid, start_time, boot_id, port, cgroup, isolation, stdout, stderr, state, started_at, active_at, health_failures, slot, busy_until) VALUES ('gone', 'deleted', 4194304, -2, '', 65535, '', 'process', '', '', 'ready', 0, 0, 0, 0, 0);
INSERT INTO settings (service, name, key, value) VALUES ('api', 'alice', 'memory_limit_mb', X'353132');
INSERT INTO settings (service, name, key, value) VALUES ('api', 'alice', 'secret.TOKEN', CAST(X'00FF0A' AS BLOB));
INSERT INTO tokens (id, hash, tenant, created_at, expires_at, last_used, role, name) VALUES ('adm1n', CAST(X'0000000000000000000000000000000000000000000000000000000000000000' AS BLOB), '', 1767225600000000000, 0, 0, 'admin', '');
INSERT INTO tokens (id, hash, tenant, created_at, expires_at, last_used, role, name) VALUES ('r3ad', X'6665646362613938373635343332313066656463626139383736353433323130', '', 1767225600000000003, 0, 0, 'read-only', 'ci');
INSERT INTO tokens (id, hash, tenant, created_at, expires_at, last_used, role, name) VALUES ('t_alice', X'3031323334353637383961626364656630313233343536373839616263646566', 'alice', 1767225600000000000, 1775001600000000000, 1767225600000000002, 'tenant', '');
INSERT INTO uid_blocks (first, next, chosen) VALUES (1987000000, 1987000005, 1);
INSERT INTO uid_blocks (first, next, chosen) VALUES (70000, 70001, 0);
INSERT INTO usage (hour, service, name, awake, cpu, memory, requests, bytes_in, bytes_out, storage) VALUES (1767225600000000000, 'api', 'alice', 60000000000, 250000000, 1258291200, 3, 0, 4096, 20480);
INSERT INTO wakes (id, service, name, at, cause, client, agent, path, queue, spawn, ready, first_byte, outcome, shared) VALUES (1, 'api', 'alice', 1767225600000000000, 'request', 'public', 'Mozilla/5.0', '/page', 1000, 2000000, 150000000, 3000000, 'ok', 2);
PRAGMA user_version = 15;
