package alert

import (
	"context"
	"fmt"
	"time"

	"tenement"
	"tenement/internal/store"
)

// disk is what the operator was told of the disk.
type disk struct {
	low   bool
	lowAt time.Time // when they were told so last
}

// load finds out what they were told by an earlier daemon.
func (d *disk) load(ctx context.Context, s *store.Store) (err error) {
	if d.lowAt, err = s.LastAlert(ctx, tenement.AlertDiskLow, tenement.InstanceID{}); err != nil {
		return err
	}
	resolvedAt, err := s.LastAlert(ctx, tenement.AlertDiskLowResolved, tenement.InstanceID{})
	d.low = d.lowAt.After(resolvedAt)
	return err
}

// lookAtDisk tells that it is low, and that it is no more once there is a quarter more
// room than that takes: what goes up and down around the bound is told once, and at most
// once an hour.
func (o *Outbox) lookAtDisk() {
	r, now := o.receiver.Load(), time.Now()
	if !r.wants(tenement.AlertDiskLow) {
		return
	}
	available, total := o.Room()
	n := news{at: now, room: &room{available, total}}
	switch {
	case total == 0: // the system does not say
		return
	case !o.disk.low && available < r.diskLow && now.Sub(o.disk.lowAt) >= quiet:
		n.kind = tenement.AlertDiskLow
		n.reason = fmt.Sprintf("%d MB are available on the disk of the data directory, less than disk_low_mb = %d", available>>20, r.diskLow>>20)
		o.disk = disk{low: true, lowAt: now}
	case o.disk.low && available >= r.diskLow+r.diskLow/4:
		n.kind = tenement.AlertDiskLowResolved
		n.reason = fmt.Sprintf("%d MB are available on the disk of the data directory", available>>20)
		o.disk.low = false
	default:
		return
	}
	o.tell(n)
}
