package tenement

import "time"

// Isolation is how far a tenant is cut off from the rest of the machine.
type Isolation string

// The degrees of isolation.
const (
	IsolationProcess   Isolation = "process"
	IsolationNamespace Isolation = "namespace"
	IsolationSandbox   Isolation = "sandbox"
)

// Egress says which connections a tenant may open. Those to its own loopback interface
// it always may, and those to other tenants, to services of the host and to the cloud's
// metadata address never; with [IsolationProcess] nothing is kept from it.
type Egress string

// The degrees of egress.
const (
	EgressAllow Egress = "allow" // to everything else
	EgressDeny  Egress = "deny"  // to nothing else
)

// RestartMode says which ends of a process are followed by a restart that nobody
// asked for. A request wakes an instance whatever the mode.
type RestartMode string

// The restart modes.
const (
	RestartAlways    RestartMode = "always"
	RestartOnFailure RestartMode = "on-failure" // exit status other than 0, or a signal we did not send
	RestartNever     RestartMode = "never"
)

// ListenMode says who makes the socket that a program serves on.
type ListenMode string

// The listen modes.
const (
	ListenPort ListenMode = "port" // the program, on PORT
	ListenFD   ListenMode = "fd"   // we, before the program starts: it gets it as descriptor 3 (sd_listen_fds(3))
)

// ReadyMode says how it is found out that a process is ready.
type ReadyMode string

// The ready modes.
const (
	ReadyProbe  ReadyMode = "probe"  // we ask it
	ReadyNotify ReadyMode = "notify" // it says so (sd_notify(3))
)

// CreateMode says who may register an instance.
type CreateMode string

// The create modes.
const (
	CreateExplicit  CreateMode = "explicit"   // the operator
	CreateOnRequest CreateMode = "on-request" // anyone who asks for its host; development only
)

// Service is a recipe: how to run one program for any number of tenants. It is
// made by the configuration and never changed afterwards, so it may be shared
// between goroutines.
type Service struct {
	Name      string
	Command   []Template // program and arguments; words were split before variables are put in
	Env       map[string]Template
	Workdir   Template // empty: the instance's data directory
	Isolation Isolation
	Readable  []string // absolute paths that an isolated tenant may read, besides the usual ones
	Writable  []string // absolute paths that it may change, all instances the same ones
	Egress    Egress
	Limits    Limits
	Listen    ListenMode
	Ready     ReadyMode
	Health    HealthCheck
	Timeouts  Timeouts
	Restart   RestartPolicy
	Create    CreateMode
	Wake      WakeRules
	Cron      []CronLine // in the order of the file
	Persist   bool       // false: the data directory is emptied at every sleep
	MaxBody   Bytes      // of a request; 0 = no bound

	ServerTiming bool   // clients that have waited for a wake are told how long what took
	DataDir      string // <settings.data_dir>/<service>, absolute
}

// Bytes is a size in bytes.
type Bytes int64

// Limits bounds what one instance uses, all processes it starts together. A field that
// is 0 sets no limit.
type Limits struct {
	Memory    Bytes   // of memory and swap together
	CPUShares int     // relative weight against other instances, 1 to 10000; 100 is everybody's default
	CPU       float64 // hard share, in cores
	PIDs      int     // processes and threads
	IOWeight  int     // relative weight against other instances, 1 to 10000; 100 is everybody's default
	OpenFiles int     // descriptors of each process
	Storage   Bytes   // of the data directory
}

// Usage is what a process and all it has started use together.
type Usage struct {
	CPU    time.Duration // that all of them have run, what has ended included where there are cgroups
	Memory Bytes         // now
}

// HealthCheck says how a service tells that it works.
type HealthCheck struct {
	Path     string        // answered with 2xx when well; "" = no checks, ready when it accepts a connection
	Interval time.Duration // between two checks of one awake instance; > 0
}

// Timeouts bounds the phases of an instance's life. 0 means what the field says.
type Timeouts struct {
	Freeze  time.Duration // without traffic before it is paused in memory; 0 = never; < Idle unless that is 0
	Idle    time.Duration // without traffic before sleep; 0 = never sleeps
	Startup time.Duration // from start to ready; > 0
	Wake    time.Duration // a request's wait for a ready process, queueing and back-off included; > 0
	Request time.Duration // from forwarding to the response's first byte; 0 = none
	Drain   time.Duration // for requests under way when the operator ends it; 0 = none are waited for
	Stop    time.Duration // from SIGTERM to SIGKILL; 0 = at once
}

// RestartPolicy bounds restarts. Crashes older than Window are forgotten. The
// first restart within the window is immediate, the following wait BackoffBase,
// doubled each time up to BackoffMax; after Max restarts the instance has failed.
type RestartPolicy struct {
	Mode        RestartMode
	Max         int
	Window      time.Duration
	BackoffBase time.Duration
	BackoffMax  time.Duration
}

// Delay is the wait before the restart that follows the nth crash within the
// window, n counted from 1.
func (p RestartPolicy) Delay(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	delay := p.BackoffBase
	for range n - 2 {
		if delay >= p.BackoffMax/2 {
			return p.BackoffMax
		}
		delay *= 2
	}
	return min(delay, p.BackoffMax)
}
