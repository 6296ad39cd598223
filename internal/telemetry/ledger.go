package telemetry

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"tenement"
)

// Ledger adds up what each instance uses while it is awake: requests as they come, the rest
// whenever it is told what the processes use. What was booked of an instance that sleeps it
// forgets. Its methods may be called concurrently.
type Ledger struct {
	begun time.Time // what was used before, an earlier daemon has booked

	mu       sync.RWMutex
	accounts map[tenement.InstanceID]*account

	looking sync.Mutex // held by Look: one at a time
	looked  time.Time

	booking sync.Mutex // held by Book: one at a time
}

// account is what one instance has used since its account was opened.
type account struct {
	requests, errors, in, out atomic.Int64
	latencies                 latencies // of the requests since the last sample

	mu      sync.Mutex
	process time.Time      // when the process began that the next two are of; zero: there is none
	seen    time.Time      // up to when that one is in used
	last    tenement.Usage // by then
	used    tenement.UsageHour
	booked  tenement.UsageHour // of that and of the requests
	storage tenement.Bytes     // what its data took at the last look; 0: there was none
	looked  time.Time          // at its data
	stored  bool               // storage is not booked yet
	sampled struct {
		requests, errors int64
		cpu              time.Duration
	}
}

// Account is what one instance has used while it was awake.
type Account struct {
	Requests int64
	Alive    bool // it has a process, of which the next are
	CPU      time.Duration
	Memory   tenement.Bytes
	Storage  tenement.Bytes // 0: not known
}

// NewLedger makes an empty ledger that begins now.
func NewLedger() *Ledger {
	return &Ledger{begun: time.Now(), accounts: make(map[tenement.InstanceID]*account)}
}

// Served counts a request and its answer. It allocates only for the first one of an instance.
func (l *Ledger) Served(id tenement.InstanceID, status int, took time.Duration, in, out int64) {
	l.mu.RLock()
	defer l.mu.RUnlock() // Book takes none away meanwhile
	a := l.accounts[id]
	if a == nil {
		l.mu.RUnlock()
		l.open(id)
		l.mu.RLock()
		if a = l.accounts[id]; a == nil {
			return // closed in this very instant
		}
	}
	a.requests.Add(1)
	if status >= http.StatusInternalServerError {
		a.errors.Add(1)
	}
	if status != http.StatusSwitchingProtocols { // which lasts as long as its client likes
		a.latencies.add(took)
	}
	a.in.Add(in)
	a.out.Add(out)
}

func (l *Ledger) open(id tenement.InstanceID) *account {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.accounts[id]
	if a == nil {
		a = &account{}
		l.accounts[id] = a
	}
	return a
}

// Look has each tell what every process uses now, and when that was started, unless it has
// done so within age.
func (l *Ledger) Look(age time.Duration, each func(func(id tenement.InstanceID, since time.Time, u tenement.Usage))) {
	l.looking.Lock()
	defer l.looking.Unlock()
	if time.Since(l.looked) < age {
		return
	}
	l.looked = time.Now()
	each(func(id tenement.InstanceID, since time.Time, u tenement.Usage) {
		a := l.open(id)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.observe(l.begun, time.Now(), since, u)
	})
}

// Ended is told what a process that has just ended has used in all. Its memory is not known
// any more: it counts as it was last.
func (l *Ledger) Ended(id tenement.InstanceID, since time.Time, u tenement.Usage) {
	a := l.open(id)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.process.Equal(since) {
		u.Memory = a.last.Memory
	}
	a.observe(l.begun, time.Now(), since, u)
	a.process = time.Time{}
}

// observe adds what was used since the process was seen last. It needs mu.
func (a *account) observe(begun, now, since time.Time, u tenement.Usage) {
	if !a.process.Equal(since) {
		a.process, a.seen, a.last = since, since, tenement.Usage{}
		if since.Before(begun) {
			a.seen, a.last.CPU = begun, u.CPU
		}
	}
	elapsed := max(now.Sub(a.seen), 0)
	a.used.Awake += elapsed
	a.used.CPU += max(u.CPU-a.last.CPU, 0)
	a.used.MemoryByteSeconds += int64(elapsed.Seconds() * float64(u.Memory))
	u.CPU = max(u.CPU, a.last.CPU)
	a.seen, a.last = now, u
}

// Unmeasured are the instances with an account whose data nobody has looked at within age.
func (l *Ledger) Unmeasured(age time.Duration) (ids []tenement.InstanceID) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for id, a := range l.accounts {
		a.mu.Lock()
		if time.Since(a.looked) >= age {
			ids = append(ids, id)
		}
		a.mu.Unlock()
	}
	return ids
}

// Measured is told what the data of an instance take; 0: that could not be found out.
func (l *Ledger) Measured(id tenement.InstanceID, bytes tenement.Bytes) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	a := l.accounts[id]
	if a == nil {
		return // it sleeps, and all was booked
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.looked = time.Now()
	if bytes > 0 {
		a.storage, a.stored = bytes, true
	}
}

// total is all that the account counts. It needs mu.
func (a *account) total() tenement.UsageHour {
	u := a.used
	u.Requests, u.BytesIn, u.BytesOut = a.requests.Load(), a.in.Load(), a.out.Load()
	return u
}

// Each calls do for every instance that is awake, or was a moment ago.
func (l *Ledger) Each(do func(tenement.InstanceID, Account)) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for id, a := range l.accounts {
		a.mu.Lock()
		u := Account{Requests: a.requests.Load(), Alive: !a.process.IsZero(), CPU: a.used.CPU, Memory: a.last.Memory, Storage: a.storage}
		a.mu.Unlock()
		do(id, u)
	}
}

// Sample calls do for each account with what it has counted since the last Sample; alive:
// there is a process. What has neither a process nor anything new is left out.
func (l *Ledger) Sample(do func(id tenement.InstanceID, alive bool, s tenement.Sample)) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for id, a := range l.accounts {
		if alive, s := a.sample(); alive || s != (tenement.Sample{}) {
			do(id, alive, s)
		}
	}
}

func (a *account) sample() (alive bool, s tenement.Sample) {
	a.mu.Lock()
	defer a.mu.Unlock()
	requests, errors, last := a.requests.Load(), a.errors.Load(), a.sampled
	a.sampled.requests, a.sampled.errors, a.sampled.cpu = requests, errors, a.used.CPU
	s = tenement.Sample{Requests: int(requests - last.requests), Errors: int(errors - last.errors), CPU: a.used.CPU - last.cpu}
	s.Median, s.P95 = a.latencies.take()
	if alive = !a.process.IsZero(); alive {
		s.Memory = a.last.Memory
	}
	return alive, s
}

// Book has write keep what was used and is not booked yet, all in the hour of now. What it
// fails to keep is offered again. The accounts of what sleeps are closed.
func (l *Ledger) Book(now time.Time, write func([]tenement.UsageHour) error) error {
	l.booking.Lock()
	defer l.booking.Unlock()
	rows := l.unbooked(now.UTC().Truncate(time.Hour))
	if len(rows) == 0 {
		return nil
	}
	err := write(rows)
	if err == nil {
		return nil
	}
	for _, row := range rows {
		a := l.open(row.Instance)
		a.mu.Lock()
		a.booked = a.booked.Minus(row)
		a.stored = a.storage > 0
		a.mu.Unlock()
	}
	return err
}

// unbooked takes what is to be booked for as good as booked.
func (l *Ledger) unbooked(hour time.Time) (rows []tenement.UsageHour) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, a := range l.accounts {
		a.mu.Lock()
		total := a.total()
		row := total.Minus(a.booked)
		row.Instance, row.Hour = id, hour
		a.booked = total
		row.Storage = a.storage
		isNew, asleep := !row.IsZero() || a.stored, a.process.IsZero()
		a.stored = false
		a.mu.Unlock()
		switch {
		case isNew:
			rows = append(rows, row)
		case asleep:
			delete(l.accounts, id)
		}
	}
	return rows
}
