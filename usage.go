package tenement

import "time"

// UsageHour is what one instance has used in one hour, or, as a sum, in several.
type UsageHour struct {
	Instance InstanceID
	Hour     time.Time // its beginning, UTC

	Awake             time.Duration // it had a process
	CPU               time.Duration
	MemoryByteSeconds int64 // memory in use times the time it was
	Requests          int64
	BytesIn, BytesOut int64 // of the bodies of requests and responses, and of upgraded connections

	// Storage is what its data took when it was last looked at; 0: nobody has looked. It is
	// no amount to be added: [UsageHour.Plus] and [UsageHour.Minus] leave it as it is.
	Storage Bytes
}

// IsZero reports whether u counts nothing, whatever it says of storage.
func (u UsageHour) IsZero() bool {
	return u.Awake == 0 && u.CPU == 0 && u.MemoryByteSeconds == 0 && u.Requests == 0 && u.BytesIn == 0 && u.BytesOut == 0
}

// Plus is u with all that v counts added.
func (u UsageHour) Plus(v UsageHour) UsageHour {
	u.Awake += v.Awake
	u.CPU += v.CPU
	u.MemoryByteSeconds += v.MemoryByteSeconds
	u.Requests += v.Requests
	u.BytesIn += v.BytesIn
	u.BytesOut += v.BytesOut
	return u
}

// Minus is u without what v counts.
func (u UsageHour) Minus(v UsageHour) UsageHour {
	return u.Plus(UsageHour{
		Awake: -v.Awake, CPU: -v.CPU, MemoryByteSeconds: -v.MemoryByteSeconds,
		Requests: -v.Requests, BytesIn: -v.BytesIn, BytesOut: -v.BytesOut,
	})
}

// UsageBy is what hours are added up by.
type UsageBy string

// What there is a sum for.
const (
	UsageInAll      UsageBy = "" // all of them
	UsageByHour     UsageBy = "hour"
	UsageByInstance UsageBy = "instance"
)

// UsageQuery selects hours. Empty fields select all.
type UsageQuery struct {
	Instance     InstanceID
	Tenant       string    // only instances of this name
	Since, Until time.Time // hours that begin from Since on and before Until
}
