package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tenement"
)

// days is a registry's copies as a copier sees them: one a day.
type days struct {
	made   map[string]int
	full   time.Time // until when the disk is full
	checks int
}

func (d *days) backUp(_ context.Context, now time.Time) (string, error) {
	day := now.UTC().Format(time.DateOnly)
	switch {
	case now.Before(d.full):
		return "", &tenement.Error{Code: tenement.CodeUnavailable, Err: errors.New("no"), Hint: "make room"}
	case d.made[day] > 0:
		return "", nil
	}
	d.made[day]++
	return day, nil
}

func (d *days) check(context.Context) error { d.checks++; return nil }

// start runs a copier in a bubble until stop is called.
func (d *days) start(t *testing.T) (log *bytes.Buffer, stop func()) {
	log = new(bytes.Buffer)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		copier{d.backUp, d.check, slog.New(slog.NewTextHandler(log, nil))}.run(ctx)
		close(ended)
	}()
	return log, func() { cancel(); <-ended }
}

func TestEachDayHasItsCopy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &days{made: map[string]int{}}
		log, stop := d.start(t)
		time.Sleep(30 * 24 * time.Hour) // virtual
		stop()
		if len(d.made) != 30 && len(d.made) != 31 {
			t.Errorf("%d copies in 30 days", len(d.made))
		}
		if n := strings.Count(log.String(), "copied the registry"); n != len(d.made) || d.checks != 0 {
			t.Errorf("%d lines for %d copies, %d checks", n, len(d.made), d.checks)
		}
	})
}

// TestFailedCopyIsTriedAgain: it is said with its hint, and the day gets its copy as
// soon as it can have one.
func TestFailedCopyIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &days{made: map[string]int{}, full: time.Now().Add(3 * time.Hour)}
		log, stop := d.start(t)
		time.Sleep(5 * time.Hour) // virtual
		stop()
		if n := strings.Count(log.String(), `hint="make room"`); n != 3 || !strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("said %d times:\n%s", n, log)
		}
		if len(d.made) != 1 {
			t.Errorf("copies %v", d.made)
		}
	})
}

// TestDamageIsFoundAtTheStart although the day has its copy already.
func TestDamageIsFoundAtTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &days{made: map[string]int{time.Now().UTC().Format(time.DateOnly): 1}}
		log, stop := d.start(t)
		time.Sleep(2 * time.Hour) // virtual
		stop()
		if d.checks != 1 || log.Len() > 0 {
			t.Errorf("%d checks:\n%s", d.checks, log)
		}
	})
}

// TestNothingIsSaidOfAStop: a copy that the end of the daemon cut off is no news.
func TestNothingIsSaidOfAStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		copying := func(ctx context.Context, _ time.Time) (string, error) { <-ctx.Done(); return "", ctx.Err() }
		ended := make(chan struct{})
		go func() {
			copier{copying, nil, slog.New(slog.NewTextHandler(&log, nil))}.run(ctx)
			close(ended)
		}()
		time.Sleep(2 * firstCopy) // virtual
		cancel()
		<-ended
		if log.Len() > 0 {
			t.Error(log.String())
		}
	})
}
