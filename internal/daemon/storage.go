package daemon

import (
	"context"
	"time"
)

const (
	// storagePace is how soon the data of what is awake are looked at for the first time.
	storagePace = 5 * time.Second

	// storageAge is how often then. Where the kernel does not count, a look is a walk.
	storageAge = 10 * time.Minute

	// storageShare leaves nine tenths of a core, however many directories there are.
	storageShare = 10
)

// measureStorage notes, until ctx ends, what the data of awake instances take. What sleeps
// is not looked at: it stays as it was.
func (t *tenancy) measureStorage(ctx context.Context) {
	tick := time.NewTicker(storagePace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, id := range t.ledger.Unmeasured(storageAge) {
			began := time.Now()
			found, err := t.backend.Storage(ctx, id)
			if err != nil {
				found.UsedBytes = 0 // `ten inspect` says why
			}
			t.ledger.Measured(id, found.UsedBytes)
			select {
			case <-ctx.Done():
				return
			case <-time.After((storageShare - 1) * time.Since(began)):
			}
		}
	}
}
