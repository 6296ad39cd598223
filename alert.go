package tenement

import "time"

// AlertKind is what an operator can be told of by a webhook.
type AlertKind string

// The kinds that are configured.
const (
	AlertFailed    AlertKind = "failed"     // an instance has spent its restart budget
	AlertCrashLoop AlertKind = "crash_loop" // it has crashed for the second time within its restart window
	AlertOOM       AlertKind = "oom"        // its processes were ended because memory was short
	AlertQuota     AlertKind = "quota"      // it has used up its storage, and requests are refused
	AlertDiskLow   AlertKind = "disk_low"   // the disk of the data directory is almost full
)

// AlertKinds lists them all.
var AlertKinds = []AlertKind{AlertFailed, AlertCrashLoop, AlertOOM, AlertQuota, AlertDiskLow}

// Kinds that come with others, or on request.
const (
	AlertDiskLowResolved AlertKind = "disk_low.resolved" // comes with AlertDiskLow
	AlertTest            AlertKind = "test"
)

// Alert is one message to the operator, on its way.
type Alert struct {
	ID       string // the same at each attempt
	Kind     AlertKind
	At       time.Time  // when it happened
	Instance InstanceID // zero for what is not about one
	Body     []byte     // JSON, as it is sent

	Attempts int       // that have failed
	Due      time.Time // the next attempt
	Error    string    // of the last attempt
}
