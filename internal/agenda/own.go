package agenda

import (
	"context"
	"slices"
	"time"

	"tenement"
	"tenement/internal/store"
)

// CronSetting stands before the name of a cron line that an instance has in the place of its
// service's, in the key of that setting.
const CronSetting = "cron."

// runOwn runs a line that is an instance's own, for which there is an alarm at its next time.
// That is set anew before: it is run at most once, whatever becomes of the daemon.
func (a *Agenda) runOwn(ctx context.Context, alarm store.Alarm, name string) error {
	row, err := a.Store.Instance(ctx, alarm.ID)
	if tenement.CodeOf(err) == tenement.CodeNotFound {
		return a.Store.Rung(ctx, alarm) // it was deleted just now
	}
	if err != nil {
		return err
	}
	lines, err := a.Lines(ctx, row.ID)
	if err != nil {
		a.Log.Error("a cron line cannot be read", "instance", row.ID, "line", name, "error", err)
		return a.Store.PutOff(ctx, alarm, time.Now().Add(alarmRetry))
	}
	i := slices.IndexFunc(lines, func(c tenement.CronLine) bool { return c.Name == name })
	if i < 0 {
		return a.Store.Rung(ctx, alarm) // it was taken away just now
	}
	now := time.Now()
	slot, next := ownSlot(lines[i].Times, alarm.At, now)
	if next.IsZero() {
		return a.Store.Rung(ctx, alarm)
	}
	moved, err := a.Store.Move(ctx, alarm, next)
	if err == nil && moved && !slot.IsZero() && !row.Suspended { // else it was changed just now, or is too late
		a.begin(ctx, lines[i], row.ID, slot)
	}
	return err
}

// ownSlot is for which time a line is run that was to be run at one, zero: it is too late for
// any; and when it is to be run after that, zero: never.
func ownSlot(times tenement.Times, at, now time.Time) (slot, next time.Time) {
	first := at
	if now.Sub(at) > catchUp {
		first = upcoming(times, at, now)
	}
	if first.IsZero() || first.After(now) {
		return slot, first
	}
	slot = latest(times, first, now)
	return slot, times.Next(slot)
}
