package tenement

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Instance is one registered instance as the registry keeps it: all there is of
// one that sleeps.
type Instance struct {
	ID        InstanceID
	Weight    int // share of its service's own host; 0 = none
	Suspended bool
	CreatedAt time.Time
	UID       int       // user and group of its processes where they have one of their own; 0 = none yet
	OOMKills  int       // how often it was ended because memory was short, ever
	HealthyAt time.Time // when its last process but the present one was known to be well last; zero = never
	Failure   Failure   // the zero value when it did not fail of late
}

// MaxWeight is the greatest share of a service's host that an instance can have.
const MaxWeight = 1000

// CheckWeight accepts 0 to [MaxWeight]; anything else is an error with CodeInvalid.
func CheckWeight(weight int) error {
	if weight >= 0 && weight <= MaxWeight {
		return nil
	}
	return &Error{
		Code: CodeInvalid, Op: "set weight", Err: fmt.Errorf("%d is not a weight", weight),
		Hint: fmt.Sprintf("a weight is a whole number from 0 to %d", MaxWeight),
	}
}

// Failure is what is remembered of an instance's crashes while it has no process.
type Failure struct {
	Crashes []time.Time // within the restart window, oldest first
	RetryAt time.Time   // no start before; zero when not failed
	Reason  string      // for operators
}

// Ref is what must be kept of a live process to find it again after the daemon
// restarted. A pid alone identifies nothing: it counts only together with the
// start time and the boot it belongs to.
type Ref struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // clock ticks since boot, proc_pid_stat(5) field 22
	BootID    string `json:"boot_id"`    // /proc/sys/kernel/random/boot_id
	Port      int    `json:"port"`
	Slot      int    `json:"slot,omitempty"`   // of its network; 0 = it has none of its own, or no way out of it
	Cgroup    string `json:"cgroup,omitempty"` // absolute path of its directory

	Isolation Isolation `json:"isolation"`        // the runtime that has it
	Stdout    string    `json:"stdout,omitempty"` // absolute paths of the FIFOs that it prints into
	Stderr    string    `json:"stderr,omitempty"`
}

// Exit is how a process ended.
type Exit struct {
	Status int    // exit status; -1 when it was ended by a signal or is unknown
	Signal string // "killed", "terminated", …; "" when it exited by itself
	Known  bool   // false when nobody could tell
	OOM    bool   // the kernel ended it, or what it needed, because memory was short
}

// ErrOutOfMemory is why a process has ended that has [Exit.OOM].
var ErrOutOfMemory = errors.New("out of memory: ended by the kernel")

// Failed reports whether the process ended in a way that [RestartOnFailure] restarts.
func (e Exit) Failed() bool { return !e.Known || e.Status != 0 }

func (e Exit) String() string {
	switch {
	case e.OOM:
		return ErrOutOfMemory.Error()
	case !e.Known:
		return "exited, status unknown"
	case e.Signal != "":
		return "ended by signal: " + e.Signal
	default:
		return "exit status " + strconv.Itoa(e.Status)
	}
}

// Health is what the health checks of an awake instance say.
type Health string

// The verdicts, from best to worst.
const (
	HealthUnknown   Health = "unknown"   // no process, or no check yet
	HealthUnchecked Health = "unchecked" // the service has no health path
	HealthHealthy   Health = "healthy"
	HealthDegraded  Health = "degraded"  // a check failed; still serving
	HealthUnhealthy Health = "unhealthy" // failed for good; being restarted
)

// Status is an instance as seen from outside at one moment.
type Status struct {
	ID         InstanceID
	State      State
	Health     Health
	Weight     int
	Suspended  bool      // in the registry; its process may still be about to end
	PID        int       // 0 without a process
	Port       int       // 0 without a process
	StartedAt  time.Time // of the present process
	LastActive time.Time // end of the last request
	HealthyAt  time.Time // it was known to be well last; zero = never
	NextAlarm  time.Time // it is to be woken next at its own wish; zero = never, or not asked
	NextCron   time.Time // a cron line is next run for it or its service; zero = never, or not asked
	BusyUntil  time.Time // the process has asked not to be put to sleep before; zero = it has not
	Leases     int       // requests, streams and upgraded connections under way
	Waiting    int       // requests held until it is ready
	Restarts   int       // within the restart window
	OOMKills   int       // how often it was ended because memory was short, ever
	RetryAt    time.Time // next start, in backoff and failed
	Reason     string    // why it is not ready, for operators
	CreatedAt  time.Time
}
