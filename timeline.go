package tenement

import "time"

// Sample is what an instance did within one step of its [Timeline].
type Sample struct {
	At               time.Time // the step's end
	Requests, Errors int       // Errors are those answered with 5xx

	// How long half of the requests took at most, and 95 of 100; 0 without any. They are
	// rounded up, by less than a quarter.
	Median, P95 time.Duration

	CPU    time.Duration // of all its processes together
	Memory Bytes         // the same, in the end; 0: it had no process then
}

// StateChange is one step of an instance from a state to another.
type StateChange struct {
	At       time.Time
	From, To State
}

// Timeline is what became of an instance lately, oldest first.
type Timeline struct {
	Step    time.Duration // from one sample to the next, while there are any: it was awake
	Samples []Sample
	Changes []StateChange
}
