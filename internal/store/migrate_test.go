package store

import (
	"crypto/sha256"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

var update = flag.Bool("update", false, "write the databases of versions that have none into testdata; never change one that is there")

// samples fill what each version of the tables has new; the first is version 1's.
// testdata/vN.sql is the database of version N-1's with that version's sample, as a
// release of version N would have left it.
var samples = []string{
	1: `
INSERT INTO instances VALUES ('api', 'alice', 100, 0, 1767225600000000000, '', 0, '');
INSERT INTO instances VALUES ('api', 'bob_2', 0, 1, 1767225600000000001, '', 0, '');
INSERT INTO instances VALUES ('api', '` + strings.Repeat("x", 63) + `', 1000, 0, 0, '', 0, '');
INSERT INTO instances VALUES ('a-1', '7', 0, 0, -1, '[1767225600000000000,1767225601500000000]', 1767225660000000000,
	'exit status 3: it''s "ü" 🏠' || char(10, 0, 27) || '[31m');
INSERT INTO processes VALUES ('api', 'alice', 4711, 123456789, '5f0c2a0e-8a3b-4a63-9f0e-6d0c1e3a7b52', 20001, '/sys/fs/cgroup/tenement-0a1b2c3d4e5f/api-alice-1');
INSERT INTO processes VALUES ('gone', 'deleted', 4194304, -2, '', 65535, '');
INSERT INTO tokens VALUES ('adm1n', zeroblob(32), '', 1767225600000000000, 0, 0);
INSERT INTO tokens VALUES ('t_alice', CAST('0123456789abcdef0123456789abcdef' AS BLOB), 'alice', 1767225600000000000, 1775001600000000000, 1767225600000000002);
INSERT INTO events VALUES (1, 1767225600000000000, 'local:0', 'spawn', 'api:alice', 'ok', '');
INSERT INTO events VALUES (100001, 1767225600000000003, 'token:t_alice', 'stop', 'api:alice', 'forbidden', 'a tenant may not' || char(9) || '…');
`,
	2: `
INSERT INTO processes VALUES ('api', 'bob_2', 4712, 123456790, '5f0c2a0e-8a3b-4a63-9f0e-6d0c1e3a7b52', 20002, '', 'process',
	'/var/lib/tenement/.tenement/output/api.bob_2.1.stdout', '/var/lib/tenement/.tenement/output/api.bob_2.1.stderr', 'stopping', 1767225600000000000, 1767225600000000001, 2);
`,
	3: `
UPDATE instances SET uid = 1987000004 WHERE service = 'api' AND name = 'alice';
UPDATE instances SET uid = 70000 WHERE name = 'bob_2';
INSERT INTO uid_blocks VALUES (1987000000, 1987000005, 1);
INSERT INTO uid_blocks VALUES (70000, 70001, 0);
`,
	4: `
UPDATE instances SET oom_kills = 3 WHERE service = 'api' AND name = 'alice';
`,
	5: `
UPDATE processes SET slot = 17 WHERE service = 'api' AND name = 'bob_2';
`,
	6: `
UPDATE instances SET healthy_at = 1767225600000000004 WHERE service = 'api' AND name = 'alice';
`,
	7: `
UPDATE processes SET busy_until = 1767229200000000005 WHERE service = 'api' AND name = 'bob_2';
INSERT INTO alarms VALUES ('api', 'alice', 'billing', 1767229200000000000, 1767229260000000000);
`,
	8: `
INSERT INTO cron VALUES ('api', 'nightly', '0 3 * * * UTC', 1767225600000000000, 'alice', 0);
`,
	9: `
INSERT INTO settings VALUES ('api', 'alice', 'memory_limit_mb', CAST('512' AS BLOB));
INSERT INTO settings VALUES ('api', 'alice', 'secret.TOKEN', x'00ff0a');
`,
	10: `
INSERT INTO tokens VALUES ('r3ad', CAST('fedcba9876543210fedcba9876543210' AS BLOB), '', 1767225600000000003, 0, 0, 'read-only', 'ci');
`,
	11: `
INSERT INTO events VALUES (100002, 1767225600000000004, 'stranger', 'authenticate', '', 'unauthenticated', '', '2001:db8::1');
`,
	12: `
INSERT INTO wakes VALUES (1, 'api', 'alice', 1767225600000000000, 'request', 'public', 'Mozilla/5.0', '/page', 1000, 2000000, 150000000, 3000000, 'ok', 2);
INSERT INTO usage VALUES (1767225600000000000, 'api', 'alice', 60000000000, 250000000, 1258291200, 3, 0, 4096);
`,
	13: `
UPDATE instances SET oom_kills = 4 WHERE service = 'api' AND name = 'bob_2';
`,
	14: `
UPDATE usage SET storage = 20480 WHERE name = 'alice';
`,
	15: `
INSERT INTO alerts VALUES (1, 'msg_x', 'failed', 'api', 'alice', 1767225600000000000, CAST('{"type":"failed"}' AS BLOB), 2, 1767225660000000000, 'status 500');
INSERT INTO alerted VALUES ('api', 'alice', 'failed', 1767225600000000000);
`,
}

func fixturePath(version int) string {
	return filepath.Join("testdata", fmt.Sprintf("v%d.sql", version))
}

// sum names what the first version migrations are made of.
func sum(version int) string {
	return fmt.Sprintf("-- migrations %x\n", sha256.Sum256([]byte(strings.Join(migrations[:version], "\x00"))))
}

// TestEveryVersionHasAFixture: a new migration needs a line in samples and its
// database in testdata, before it is released; and one that was released stays as it is.
func TestEveryVersionHasAFixture(t *testing.T) {
	t.Parallel()
	if len(samples) != len(migrations)+1 {
		t.Fatalf("there are %d versions and %d samples: give each version one", len(migrations), len(samples)-1)
	}
	for version := 1; version <= len(migrations); version++ {
		dump, err := os.ReadFile(fixturePath(version))
		if errors.Is(err, os.ErrNotExist) && *update {
			dump = makeFixture(t, version)
			must(t, os.WriteFile(fixturePath(version), dump, 0o644))
			t.Logf("wrote %s", fixturePath(version))
		} else if err != nil {
			t.Errorf("version %d has no database: go test ./internal/store -run %s -update (%v)", version, t.Name(), err)
			continue
		}
		first, _, _ := strings.Cut(string(dump), "\n")
		if first+"\n" != sum(version) {
			t.Errorf("a migration to version %d or before is not what it was when %s was written: "+
				"if a release has it, put it back and add another; if none has, remove that file and use -update", version, fixturePath(version))
		}
	}
}

func makeFixture(t *testing.T, version int) []byte {
	t.Helper()
	db := openRaw(t, filepath.Join(t.TempDir(), "state.db"))
	if version > 1 {
		load(t, db, version-1)
	}
	must(t, migrate(t.Context(), db, migrations[:version]))
	_, err := db.ExecContext(t.Context(), samples[version])
	must(t, err)
	return []byte(sum(version) + dump(t, db))
}

// TestMigrations opens a copy of each version's database, and finds the tables that a
// new one has and all that was there.
func TestMigrations(t *testing.T) {
	t.Parallel()
	fresh := openRaw(t, filepath.Join(t.TempDir(), "state.db"))
	must(t, migrate(t.Context(), fresh, migrations))
	for version := 1; version <= len(migrations); version++ {
		t.Run(strconv.Itoa(version), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "state.db")
			db := openRaw(t, path)
			load(t, db, version)
			before := rowsOf(t, db, columnsOf(t, db))
			asMade := openRaw(t, filepath.Join(t.TempDir(), "state.db"))
			must(t, migrate(t.Context(), asMade, migrations[:version]))
			if diff := cmp.Diff(schemaOf(t, db), schemaOf(t, asMade)); diff != "" {
				t.Errorf("the first %d migrations do not make the tables of version %d any more:\n%s", version, version, diff)
			}
			columns := columnsOf(t, db)
			must(t, db.Close())

			s := openStore(t, dir)
			must(t, s.Check(t.Context()))
			if diff := cmp.Diff(schemaOf(t, fresh), schemaOf(t, s.write)); diff != "" {
				t.Errorf("migrated it has other tables than a new one (-new +migrated):\n%s", diff)
			}
			if diff := cmp.Diff(before, rowsOf(t, s.write, columns)); diff != "" {
				t.Errorf("migrating changed rows:\n%s", diff)
			}
			checkSample(t, s)
			copies, err := Copies(dir)
			must(t, err)
			if version == len(migrations) {
				if len(copies) != 0 {
					t.Errorf("nothing was migrated, and there are copies %v", copies)
				}
				return
			}
			if len(copies) != 1 || copies[0].Before != len(migrations) {
				t.Fatalf("the copy from before the migration: %v", copies)
			}
			old, err := CheckCopy(t.Context(), copies[0].Path)
			if err != nil || old.Version != version || old.Instances != 4 {
				t.Errorf("the copy from before the migration: %+v, %v", old, err)
			}
		})
	}
}

// checkSample reads what version 1's sample holds through the Store itself.
func checkSample(t *testing.T, s *Store) {
	t.Helper()
	ctx, begin := t.Context(), time.Unix(1767225600, 0)
	odd, err := s.Instance(ctx, instanceID(t, "a-1:7"))
	must(t, err)
	want := tenement.Instance{ID: instanceID(t, "a-1:7"), CreatedAt: time.Unix(0, -1), Failure: tenement.Failure{
		Crashes: []time.Time{begin, begin.Add(1500 * time.Millisecond)}, RetryAt: begin.Add(time.Minute),
		Reason: "exit status 3: it's \"ü\" 🏠\n\x00\x1b[31m",
	}}
	if diff := cmp.Diff(want, odd); diff != "" {
		t.Error(diff)
	}
	weights, err := s.Weights(ctx)
	if err != nil || len(weights) != 2 {
		t.Errorf("weights %v, %v", weights, err)
	}
	bob, err := s.Instance(ctx, instanceID(t, "api:bob_2"))
	if err != nil || !bob.Suspended {
		t.Errorf("bob: %+v, %v", bob, err)
	}
	processes, err := s.Processes(ctx)
	must(t, err)
	alice, gone := processes[instanceID(t, "api:alice")], processes[instanceID(t, "gone:deleted")]
	if alice.Ref.PID != 4711 || alice.Ref.Port != 20001 || alice.Ref.StartTime != 123456789 || gone.Ref.StartTime != 1<<64-2 || len(processes) < 2 {
		t.Errorf("processes %+v", processes)
	}
	admin := tenement.Scope{Role: tenement.RoleAdmin}
	tokens, err := s.Tokens(ctx)
	if err != nil || len(tokens) < 2 || tokens[0].Scope != admin || tokens[1].Scope != tenement.TenantScope("alice") || !tokens[0].ExpiresAt.IsZero() {
		t.Errorf("tokens %+v, %v", tokens, err)
	}
	events, err := s.Events(ctx, tenement.EventQuery{})
	if err != nil || len(events) < 2 || events[1].Detail != "a tenant may not\t…" {
		t.Errorf("events %+v, %v", events, err)
	}
}

// TestFailingMigrationChangesNothing: its first statements have changed tables and
// rows when its last one fails.
func TestFailingMigrationChangesNothing(t *testing.T) {
	t.Parallel()
	db := openRaw(t, filepath.Join(t.TempDir(), "state.db"))
	load(t, db, 1)
	before := dump(t, db)
	steps := append(slices.Clone(migrations[:1]), `
		ALTER TABLE instances ADD COLUMN color TEXT NOT NULL DEFAULT 'red';
		UPDATE instances SET reason = 'lost';
		DROP TABLE tokens;`, `INSERT INTO nowhere VALUES (1)`)
	err := migrate(t.Context(), db, steps)
	if err == nil || !strings.Contains(err.Error(), "to version 3") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff(before, dump(t, db)); diff != "" {
		t.Errorf("it left something behind:\n%s", diff)
	}
	must(t, migrate(t.Context(), db, steps[:2])) // the connection is as good as before
}

func openRaw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path, readWrite))
	must(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}

func load(t *testing.T, db *sql.DB, version int) {
	t.Helper()
	text, err := os.ReadFile(fixturePath(version))
	must(t, err)
	_, err = db.ExecContext(t.Context(), string(text))
	must(t, err)
}

func query(t *testing.T, db *sql.DB, text string) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), text)
	must(t, err)
	list, err := collect(rows, func(r row) (s string, err error) {
		err = r.Scan(&s)
		return s, err
	})
	must(t, err)
	return list
}

func schemaOf(t *testing.T, db *sql.DB) []string {
	t.Helper()
	return query(t, db, "SELECT type || ' ' || name || ' ' || sql FROM sqlite_schema WHERE sql NOT NULL ORDER BY name")
}

// columnsOf lists the columns of each table.
func columnsOf(t *testing.T, db *sql.DB) map[string][]string {
	t.Helper()
	columns := map[string][]string{}
	for _, table := range query(t, db, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid") {
		columns[table] = query(t, db, "SELECT name FROM pragma_table_info('"+table+"') ORDER BY cid")
	}
	return columns
}

// rowsOf are INSERT statements for these columns of all rows.
func rowsOf(t *testing.T, db *sql.DB, columns map[string][]string) map[string][]string {
	t.Helper()
	rows := map[string][]string{}
	for table, names := range columns {
		var values []string
		for _, name := range names { // quote() of a text ends at a NUL
			values = append(values, fmt.Sprintf("CASE WHEN typeof(%[1]s) = 'text' AND %[1]s GLOB '*[^ -~]*' OR instr(CAST(%[1]s AS BLOB), x'00')"+
				" THEN 'CAST(' || quote(CAST(%[1]s AS BLOB)) || ' AS ' || upper(typeof(%[1]s)) || ')' ELSE quote(%[1]s) END", name))
		}
		rows[table] = query(t, db, "SELECT 'INSERT INTO "+table+" ("+strings.Join(names, ", ")+") VALUES (' || "+
			strings.Join(values, " || ', ' || ")+" || ');' FROM "+table+" ORDER BY 1")
	}
	return rows
}

// dump is a database as SQL.
func dump(t *testing.T, db *sql.DB) string {
	t.Helper()
	var b strings.Builder
	for _, statement := range query(t, db, "SELECT sql FROM sqlite_schema WHERE sql NOT NULL ORDER BY rowid") {
		b.WriteString(statement + ";\n")
	}
	columns := columnsOf(t, db)
	rows := rowsOf(t, db, columns)
	for _, table := range slices.Sorted(maps.Keys(rows)) {
		for _, insert := range rows[table] {
			b.WriteString(insert + "\n")
		}
	}
	b.WriteString("PRAGMA user_version = " + query(t, db, "PRAGMA user_version")[0] + ";\n")
	return b.String()
}
