package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tenement"
	"tenement/internal/store"
)

// SetWeight implements [api.Backend].
func (b *backend) SetWeight(ctx context.Context, id tenement.InstanceID, weight int) error {
	return b.setWeights(ctx, store.Weight{ID: id, Weight: weight})
}

// setWeights changes weights durably and then, all at once, for requests.
func (b *backend) setWeights(ctx context.Context, changes ...store.Weight) error {
	b.weighing.Lock()
	defer b.weighing.Unlock()
	return b.applyWeights(ctx, changes...)
}

// applyWeights needs weighing to be held.
func (b *backend) applyWeights(ctx context.Context, changes ...store.Weight) error {
	if err := b.store.SetWeights(ctx, changes...); err != nil {
		return err
	}
	weights := make(map[tenement.InstanceID]int, len(changes))
	for _, w := range changes {
		weights[w.ID] = w.Weight
	}
	b.weights.SetAll(weights)
	return nil
}

// Deploy implements [api.Backend]. When it fails, no weight has changed; the new
// instance stays registered, so that its log can be read.
func (b *backend) Deploy(ctx context.Context, id tenement.InstanceID, weight int, timeout time.Duration) error {
	if err := tenement.CheckWeight(weight); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, &tenement.Error{
		Code: tenement.CodeTimeout, Op: "deploy " + id.String(), Err: fmt.Errorf("not healthy within %s", timeout),
		Hint: "see what it printed: ten logs " + id.String(),
	})
	defer cancel()
	if err := b.serviceExists(id.Service); err != nil {
		return err
	}
	if _, err := b.supervisor.Register(ctx, id); err != nil {
		return err
	}
	if err := b.startHealthy(ctx, id); err != nil {
		return err
	}
	return b.setWeights(ctx, store.Weight{ID: id, Weight: weight})
}

// startHealthy wakes id and has its health checked once more, for it may have been
// awake for long.
func (b *backend) startHealthy(ctx context.Context, id tenement.InstanceID) error {
	if err := b.supervisor.Start(ctx, id); err != nil { // which lets requests go first
		return err
	}
	lease, err := b.supervisor.Acquire(ctx, id)
	if err != nil {
		return err
	}
	defer lease.Release()
	if _, err := b.supervisor.Check(ctx, id); err != nil {
		return &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "check " + id.String(), Err: err,
			Hint: "see what it printed: ten logs " + id.String(),
		}
	}
	return nil
}

// Route implements [api.Backend].
func (b *backend) Route(ctx context.Context, service, from, to string) error {
	source := tenement.InstanceID{Service: service, Name: from}
	target := tenement.InstanceID{Service: service, Name: to}
	if source == target {
		return &tenement.Error{Code: tenement.CodeInvalid, Op: "route " + service, Err: errors.New("from and to are the same instance")}
	}
	if err := b.startHealthy(ctx, target); err != nil {
		return err
	}
	b.weighing.Lock()
	defer b.weighing.Unlock()
	before, err := b.store.Instance(ctx, source)
	if err != nil {
		return err
	}
	if before.Weight == 0 {
		return &tenement.Error{
			Code: tenement.CodeConflict, Op: "route " + service,
			Err:  fmt.Errorf("%s has no weight to hand over", source),
			Hint: "give the other one a weight: ten weight " + target.String() + " 100",
		}
	}
	after, err := b.store.Instance(ctx, target)
	if err != nil {
		return err
	}
	return b.applyWeights(ctx,
		store.Weight{ID: source, Weight: 0},
		store.Weight{ID: target, Weight: min(before.Weight+after.Weight, tenement.MaxWeight)})
}
