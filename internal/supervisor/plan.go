package supervisor

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"tenement"
)

// Plan is what the configuration says of instances. It is not changed once the
// supervisor has it.
type Plan struct {
	Services map[string]*tenement.Service
	// Pinned instances are registered, started at once and never put to sleep for want
	// of traffic.
	Pinned []tenement.InstanceID
	// FirstUID begins the block that new uids are taken from; 0 = the registry's own.
	FirstUID int
	// UIDs is how many the block has; 0 = a million.
	UIDs int

	// MaxAwake bounds the instances that have a process; 0 = it does not.
	MaxAwake int
	// MemoryReserve is to be available before anything is started; 0 = that is not asked.
	MemoryReserve tenement.Bytes
}

func (p *Plan) pins(id tenement.InstanceID) bool { return slices.Contains(p.Pinned, id) }

// service is the recipe of id's next process; nil when the configuration has none.
func (s *Supervisor) service(id tenement.InstanceID) *tenement.Service {
	return s.plan.Load().Services[id.Service]
}

// Reconfigure puts p in the place of the plan that was in force. It either fails
// before anything has changed, or holds for every start from now on. What runs is left
// as it is, even if its service has changed (see [Supervisor.Outdated]), unless its
// service is no more: then it is put to sleep, and the call does not wait for that.
func (s *Supervisor) Reconfigure(ctx context.Context, p Plan) error {
	if err := s.registerPinned(ctx, p.Pinned); err != nil {
		return err
	}
	before := s.plan.Swap(&p)
	for _, i := range s.ownersNow() {
		_ = i.send(ctx, i.reconsider) // fails when the caller has gone: then the next deadline finds it out
		i.dismiss()
	}
	s.trim()
	s.startPinned(slices.DeleteFunc(slices.Clone(p.Pinned), before.pins)) //nolint:contextcheck // a start outlives the call
	return nil
}

// ownersNow holds every owner there is: each must be dismissed.
func (s *Supervisor) ownersNow() []*instance {
	s.mu.RLock()
	defer s.mu.RUnlock()
	owners := make([]*instance, 0, len(s.awake))
	for _, i := range s.awake {
		i.held.Add(1)
		owners = append(owners, i)
	}
	return owners
}

// reconsider follows a change of the plan.
func (i *instance) reconsider() {
	switch o := &i.own; {
	case i.sup.service(i.id) == nil:
		if o.state.HasProcess() || o.state == tenement.Backoff {
			i.stop(i.goalAtRest(), nil)
		}
	case o.state == tenement.Ready:
		i.armIdle()
	}
}

// Outdated lists, in order, the instances that run with another recipe than they would
// be started with now.
func (s *Supervisor) Outdated() []tenement.InstanceID {
	var list []tenement.InstanceID
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, i := range s.awake {
		if s.outdated(i) {
			list = append(list, id)
		}
	}
	slices.SortFunc(list, tenement.InstanceID.Compare)
	return list
}

func (s *Supervisor) outdated(i *instance) bool {
	now := s.service(i.id)
	l := i.serving.Load()
	return l != nil && now != nil && !sameProgram(*l.base, *now)
}

// sameProgram reports whether two recipes start the same process. Who else wakes it, and when,
// is no concern of that.
func sameProgram(a, b tenement.Service) bool {
	a.Wake, b.Wake = tenement.WakeRules{Self: a.Wake.Self}, tenement.WakeRules{Self: b.Wake.Self}
	a.Cron, b.Cron = nil, nil
	return reflect.DeepEqual(a, b)
}

// RestartOutdated restarts what [Supervisor.Outdated] lists, one at a time: the next
// once the one before is ready again. It stops at the first that does not come up, so
// that a bad recipe costs one instance, and returns those that it did restart.
func (s *Supervisor) RestartOutdated(ctx context.Context) ([]tenement.InstanceID, error) {
	var restarted []tenement.InstanceID
	for _, id := range s.Outdated() {
		if i := s.owner(id); i == nil || !s.outdated(i) {
			continue // somebody else has restarted or stopped it
		}
		if err := s.Restart(ctx, id); err != nil {
			return restarted, fmt.Errorf("restart %s: %w", id, err)
		}
		restarted = append(restarted, id)
	}
	return restarted, nil
}
