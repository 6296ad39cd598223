// Package fault names the points of the program at which tests let it crash.
//
// In a program built without the tag "faults" a point is nothing: the call is
// inlined away. With it, the environment variable [Variable] makes the process kill
// itself, as kill -9 or the end of the power would, when it passes a point.
package fault

// Name names a point: the package, then what has been done there.
type Name string

// The points. A new one goes into [Points] as well; test/arch fails for one that no
// code passes.
const (
	PutProcessBefore   Name = "store.put-process.before"    // the process runs, nobody knows of it
	PutProcessAfter    Name = "store.put-process.after"     // it is on record
	MigrationHalf      Name = "store.migration.half"        // statements have run, nothing is committed
	BackupWritten      Name = "store.backup.written"        // a copy is whole, under a temporary name
	BackupKept         Name = "store.backup.kept"           // it has its name, older ones are not removed yet
	RestoreWritten     Name = "store.restore.written"       // what is to be restored is whole, under a temporary name
	RestoreDecided     Name = "store.restore.decided"       // the next start must finish it
	RestoreOldHalfAway Name = "store.restore.old-half-away" // of the three old files one has been moved
	RestoreOldAway     Name = "store.restore.old-away"      // there is no state.db
	RestoreDone        Name = "store.restore.done"          // there is, but the directory is not synced
)

// Points lists all of them, for tests to walk.
var Points = []Name{
	PutProcessBefore, PutProcessAfter,
	MigrationHalf,
	BackupWritten, BackupKept,
	RestoreWritten, RestoreDecided, RestoreOldHalfAway, RestoreOldAway, RestoreDone,
}

// Variable holds the name of the point at which to crash and, after a colon, at
// which of its passes, counted from 1: "store.backup.written", "store.migration.half:2".
const Variable = "TENEMENT_CRASH_AT"
