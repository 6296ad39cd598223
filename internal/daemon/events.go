package daemon

import (
	"context"

	"tenement"
	"tenement/internal/api"
)

// Record implements [api.Backend].
func (b *backend) Record(ctx context.Context, e tenement.Event) {
	var err error
	if b.daemon.isUpgraded() {
		err = b.daemon.next.send(message{Event: &e})
	} else {
		err = b.daemon.tenancy.Load().store.AppendEvent(context.WithoutCancel(ctx), e)
	}
	if err != nil {
		b.daemon.Log.Error("the audit log could not be written", "event", e, "error", err)
	}
}

// Events implements [api.Backend].
func (b *backend) Events(ctx context.Context, q tenement.EventQuery) ([]tenement.Event, error) {
	return b.store.Events(ctx, q)
}

// FollowEvents implements [api.Backend].
func (b *backend) FollowEvents(q tenement.EventQuery) api.NextEvents {
	f := b.store.FollowEvents(q)
	return func(ctx context.Context) ([]tenement.Event, int64, error) {
		events, err := whileServing(ctx, b, f.Next)
		return events, f.UpTo(), err
	}
}
