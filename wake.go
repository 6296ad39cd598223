package tenement

import "time"

// WakeRules say which requests are answered in the place of an instance that sleeps, and
// so do not wake it. What is awake sees every request. The zero value has every request
// wake it but those for the health path.
type WakeRules struct {
	Paths      []string // are refused; one that ends in * stands for all that begin like it
	UserAgents []string // in lower case: who has one of these in its User-Agent is refused
	Methods    []string // are refused
	Monitors   []string // as UserAgents, but they are told, with status 200, that it sleeps
	Self       bool     // its process may put off its sleep and have itself woken
	Health     bool     // a request for the health path wakes it, and is not told so either
}

// CronLine has every instance of a service, or one, asked for something at certain times,
// which wakes it.
type CronLine struct {
	Name     string // within the service
	Schedule string // as it was written
	Zone     string // in whose time: of the IANA database
	Method   string
	Path     string        // begins with "/"
	Spread   time.Duration // over which a service's instances are distributed, less where runs are close; 0 = all at once
	Timeout  time.Duration // for the whole of the answer; > 0
	Times    Times
}

// Times says when something happens.
type Times interface {
	// Next is the first such instant after t; zero if there is none.
	Next(t time.Time) time.Time
}
