package agenda

import (
	"context"
	"slices"
	"testing"
	"time"

	"tenement"
)

// lines is [Config.Lines]: own ones come in the place of the service's.
func (w *world) lines(_ context.Context, id tenement.InstanceID) ([]tenement.CronLine, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := slices.Clone(w.own[id])
	for _, c := range w.services[id.Service].Cron {
		if !slices.ContainsFunc(lines, func(own tenement.CronLine) bool { return own.Name == c.Name }) {
			lines = append(lines, c)
		}
	}
	return lines, nil
}

// give has an instance have lines of its own, and off those of its service that are named.
func (w *world) give(id tenement.InstanceID, lines []tenement.CronLine, off ...string) {
	w.t.Helper()
	settings, due := map[string][]byte{}, map[string]time.Time{}
	for _, c := range lines {
		settings[CronSetting+c.Name], due[c.Name] = []byte("{}"), c.Times.Next(time.Now())
	}
	for _, name := range off {
		settings[CronSetting+name], due[name] = []byte("false"), time.Time{}
	}
	w.mu.Lock()
	w.own = map[tenement.InstanceID][]tenement.CronLine{id: lines}
	w.mu.Unlock()
	if err := w.Store.PutSettings(w.t.Context(), id, settings, due); err != nil {
		w.t.Fatal(err)
	}
	w.Poke()
}

// TestOwnCron: a line of one instance is run on time, in the place of its service's.
func TestOwnCron(t *testing.T) {
	simulate(t, nightly(24*time.Hour, 3*time.Minute), func(w *world) {
		w.give(bob, nightly(6*time.Hour, 0))
		pass(6*time.Hour - time.Second)
		w.wantDone()
		pass(time.Second)
		w.wantDone("6h0m0s bob" + ran)
		pass(18*time.Hour + 5*time.Minute)
		w.wantDone("12h0m0s bob"+ran, "18h0m0s bob"+ran, "24h0m0s alice"+ran, "24h0m0s bob"+ran, "24h2m0s carol"+ran)

		w.give(bob, nil, "nightly")
		pass(24 * time.Hour)
		w.wantDone("48h0m0s alice"+ran, "48h2m0s carol"+ran)

		if err := w.Store.PutSettings(w.t.Context(), bob, map[string][]byte{CronSetting + "nightly": nil}, nil); err != nil {
			w.t.Fatal(err)
		}
		pass(24 * time.Hour)
		w.wantDone("72h0m0s alice"+ran, "72h1m0s bob"+ran, "72h2m0s carol"+ran)
	})
}

// TestOwnCronAcrossDaemons: it is run at most once, and one run is made good, if it is not
// too late.
func TestOwnCronAcrossDaemons(t *testing.T) {
	simulate(t, nil, func(w *world) {
		w.give(alice, nightly(20*time.Minute, 0))
		pass(20 * time.Minute)
		w.wantDone("20m0s alice" + ran)
		w.stop()
		w.start()
		w.wantDone() // again
		w.stop()
		pass(70 * time.Minute) // until 1:30
		w.start()
		w.wantDone("1h30m0s alice" + ran) // for 1:20, and not for those before
		pass(10 * time.Minute)
		w.wantDone("1h40m0s alice" + ran)

		w.give(alice, nightly(4*time.Hour, 0)) // from another time on
		w.stop()
		pass(4 * time.Hour) // until 5:40
		w.start()
		w.wantDone() // for four o'clock
		pass(2*time.Hour + 20*time.Minute)
		w.wantDone("8h0m0s alice" + ran)

		if err := w.Store.SetSuspended(w.t.Context(), alice, true); err != nil {
			w.t.Fatal(err)
		}
		pass(4 * time.Hour)
		w.wantDone()
		if err := w.Store.SetSuspended(w.t.Context(), alice, false); err != nil {
			w.t.Fatal(err)
		}
		pass(4 * time.Hour)
		w.wantDone("16h0m0s alice" + ran)
		if err := w.Store.Delete(w.t.Context(), alice); err != nil {
			w.t.Fatal(err)
		}
		pass(4 * time.Hour)
		w.wantDone()
		if next, err := w.Store.NextAlarm(w.t.Context()); !next.IsZero() || err != nil {
			w.t.Errorf("something is due at %v, %v", next, err)
		}
	})
}

// TestOwnCronIsGone: what cannot be run any more is forgotten, and what was set meanwhile stays.
func TestOwnCronIsGone(t *testing.T) {
	simulate(t, nil, func(w *world) {
		w.give(alice, nightly(time.Hour, 0))
		w.mu.Lock()
		w.own = nil
		w.mu.Unlock()
		pass(time.Hour)
		w.wantDone()
		if next, err := w.Store.NextAlarm(w.t.Context()); !next.IsZero() || err != nil {
			w.t.Errorf("something is due at %v, %v", next, err)
		}
	})
}
