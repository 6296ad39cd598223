package telemetry

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

// process is one that a ledger is shown.
type process struct {
	id    tenement.InstanceID
	since time.Time
	usage tenement.Usage
}

func (l *Ledger) see(list ...process) {
	l.Look(0, func(each func(tenement.InstanceID, time.Time, tenement.Usage)) {
		for _, p := range list {
			each(p.id, p.since, p.usage)
		}
	})
}

// book books everything and gives the rows.
func (l *Ledger) book(t *testing.T) []tenement.UsageHour {
	t.Helper()
	var booked []tenement.UsageHour
	err := l.Book(time.Now(), func(rows []tenement.UsageHour) error { booked = rows; return nil })
	if err != nil {
		t.Error(err)
	}
	return booked
}

func wantRows(t *testing.T, got []tenement.UsageHour, want ...tenement.UsageHour) {
	t.Helper()
	for i := range want {
		want[i].Hour = time.Now().UTC().Truncate(time.Hour)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLedger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLedger()
		time.Sleep(time.Second) // virtual
		since := time.Now()
		l.Served(alice, 200, time.Millisecond, 10, 20)
		time.Sleep(10 * time.Second) // virtual
		l.see(process{alice, since, tenement.Usage{CPU: 2 * time.Second, Memory: 100}})
		wantRows(t, l.book(t), tenement.UsageHour{Instance: alice, Awake: 10 * time.Second, CPU: 2 * time.Second, MemoryByteSeconds: 1000, Requests: 1, BytesIn: 10, BytesOut: 20})
		wantRows(t, l.book(t)) // all of it is booked

		time.Sleep(5 * time.Second) // virtual
		l.Served(alice, 200, time.Millisecond, 0, 5)
		l.see(process{alice, since, tenement.Usage{CPU: 3 * time.Second, Memory: 200}})
		time.Sleep(time.Second) // virtual
		l.Ended(alice, since, tenement.Usage{CPU: 3500 * time.Millisecond})
		wantRows(t, l.book(t), tenement.UsageHour{Instance: alice, Awake: 6 * time.Second, CPU: 1500 * time.Millisecond, MemoryByteSeconds: 1200, Requests: 1, BytesOut: 5})
		wantRows(t, l.book(t))
		if n := len(l.accounts); n != 0 {
			t.Errorf("%d accounts of what sleeps", n)
		}
	})
}

// TestLedgerOfShortLives: a process that nobody has looked at, and one that is followed by
// another between two looks.
func TestLedgerOfShortLives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLedger()
		time.Sleep(time.Second) // virtual
		since := time.Now()
		time.Sleep(3 * time.Second) // virtual
		l.Ended(alice, since, tenement.Usage{CPU: time.Second})
		second := time.Now()
		time.Sleep(2 * time.Second) // virtual
		l.see(process{alice, second, tenement.Usage{CPU: 500 * time.Millisecond}})
		wantRows(t, l.book(t), tenement.UsageHour{Instance: alice, Awake: 5 * time.Second, CPU: 1500 * time.Millisecond})
	})
}

// TestLedgerAfterAnotherDaemon counts what was used since it began, and no more.
func TestLedgerAfterAnotherDaemon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		since := time.Now()
		time.Sleep(time.Hour) // virtual
		l := NewLedger()
		time.Sleep(time.Second) // virtual
		l.see(process{alice, since, tenement.Usage{CPU: time.Minute}})
		time.Sleep(time.Second) // virtual
		l.see(process{alice, since, tenement.Usage{CPU: time.Minute + time.Second}})
		wantRows(t, l.book(t), tenement.UsageHour{Instance: alice, Awake: 2 * time.Second, CPU: time.Second})
	})
}

// TestLedgerKeepsWhatCannotBeWritten for the next time.
func TestLedgerKeepsWhatCannotBeWritten(t *testing.T) {
	t.Parallel()
	l, refused := NewLedger(), errors.New("the disk is full")
	l.Served(alice, 200, time.Millisecond, 1, 2)
	if err := l.Book(time.Now(), func([]tenement.UsageHour) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}
	l.Served(alice, 200, time.Millisecond, 1, 2)
	wantRows(t, l.book(t), tenement.UsageHour{Instance: alice, Requests: 2, BytesIn: 2, BytesOut: 4})
}

// TestLedgerOfStorage: the last look is in every row of what is awake, and is booked alone
// when nothing else is new.
func TestLedgerOfStorage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLedger()
		l.Measured(alice, 1) // it sleeps
		l.Served(alice, 200, time.Millisecond, 0, 0)
		if got := l.Unmeasured(time.Minute); len(got) != 1 || got[0] != alice {
			t.Errorf("to be measured: %v", got)
		}
		l.Measured(alice, 4096)
		if got := l.Unmeasured(time.Minute); len(got) != 0 {
			t.Errorf("measured again: %v", got)
		}
		refused := errors.New("the disk is full")
		_ = l.Book(time.Now(), func([]tenement.UsageHour) error { return refused })
		wantRows(t, l.book(t), tenement.UsageHour{Instance: alice, Requests: 1, Storage: 4096})
		l.Served(alice, 200, time.Millisecond, 0, 0)
		wantRows(t, l.book(t), tenement.UsageHour{Instance: alice, Requests: 1, Storage: 4096})
		time.Sleep(time.Minute) // virtual
		if got := l.Unmeasured(time.Minute); len(got) != 1 {
			t.Errorf("to be measured: %v", got)
		}
		l.Measured(alice, 8192)
		l.Measured(alice, 0) // could not be found out
		_ = l.Book(time.Now(), func([]tenement.UsageHour) error { return refused })
		wantRows(t, l.book(t), tenement.UsageHour{Instance: alice, Storage: 8192})
		wantRows(t, l.book(t))
		if n := len(l.accounts); n != 0 {
			t.Errorf("%d accounts of what sleeps", n)
		}
	})
}

// TestLedgerLooksSeldom however many ask.
func TestLedgerLooksSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, looks := NewLedger(), 0
		for range 10 {
			l.Look(5*time.Second, func(func(tenement.InstanceID, time.Time, tenement.Usage)) { looks++ })
			time.Sleep(time.Second) // virtual
		}
		if looks != 2 {
			t.Errorf("%d looks in 10 s", looks)
		}
	})
}
