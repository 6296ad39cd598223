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

	Prepared    Name = "runtime.prepared"     // FIFOs and a cgroup are there, and no process
	OutputTaken Name = "runtime.output-taken" // what was printed is stored, and still in the FIFO

	Registered  Name = "supervisor.registered"   // and not started
	Told        Name = "supervisor.told"         // SIGTERM is sent
	Gone        Name = "supervisor.gone"         // a process, but not its record
	Forgotten   Name = "supervisor.forgotten"    // the record, too; nothing was made of its end
	SwitchedOff Name = "supervisor.switched-off" // a suspension is on record, the process runs
	Purged      Name = "supervisor.purged"       // the directory and the logs, but not their instance
	Adopted     Name = "supervisor.adopted"      // one process of an earlier daemon
	AdoptedAll  Name = "supervisor.adopted-all"  // what nobody adopts still runs
	Swept       Name = "supervisor.swept"        // it does not; no instance has its owner

	// Of a daemon that is upgraded, and of the one that takes its place.
	SuccessorReady Name = "daemon.successor-ready" // old: it has everything
	GivenUp        Name = "daemon.given-up"        // old: nobody has the data directory
	GoSent         Name = "daemon.go-sent"         // old: the new one may take it
	GoHeard        Name = "daemon.go-heard"        // new: it may
	TookOver       Name = "daemon.took-over"       // new: it has, and does not listen (also at any start)
	Serves         Name = "daemon.serves"          // new: and has not said so
	ServesTold     Name = "daemon.serves-told"     // new: the old one serves out what it began
	Replaced       Name = "daemon.replaced"        // old: it knows
)

// Points lists all of them, for tests to walk.
var Points = []Name{
	PutProcessBefore, PutProcessAfter,
	MigrationHalf,
	BackupWritten, BackupKept,
	RestoreWritten, RestoreDecided, RestoreOldHalfAway, RestoreOldAway, RestoreDone,
	Prepared, OutputTaken,
	Registered, Told, Gone, Forgotten, SwitchedOff, Purged, Adopted, AdoptedAll, Swept,
	SuccessorReady, GivenUp, GoSent, GoHeard, TookOver, Serves, ServesTold, Replaced,
}

// Variable holds the name of the point at which to crash and, after a colon, at
// which of its passes, counted from 1: "store.backup.written", "store.migration.half:2".
const Variable = "TENEMENT_CRASH_AT"
