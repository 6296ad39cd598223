package daemon

import (
	"context"
	"slices"
	"strings"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/store"
	"tenement/internal/supervisor"
)

// status is all there is to know of row's instance: its owner's word if it has one.
func (b *backend) status(row tenement.Instance) tenement.Status {
	if st, ok := b.supervisor.Observe(row.ID); ok {
		return registered(st, row)
	}
	return resting(row)
}

// resting is the status of an instance that has no owner.
func resting(row tenement.Instance) tenement.Status {
	return registered(tenement.Status{
		ID: row.ID, State: supervisor.RestingState(row), Health: tenement.HealthUnknown,
		Restarts: len(row.Failure.Crashes), RetryAt: row.Failure.RetryAt, Reason: row.Failure.Reason, OOMKills: row.OOMKills,
		HealthyAt: row.HealthyAt,
	}, row)
}

// registered adds to st what only the registry knows.
func registered(st tenement.Status, row tenement.Instance) tenement.Status {
	st.Weight, st.Suspended, st.CreatedAt = row.Weight, row.Suspended, row.CreatedAt
	return st
}

// Instances implements [api.Backend].
func (b *backend) Instances(ctx context.Context, q api.ListQuery) (list []tenement.Status, total int, err error) {
	filter := store.Filter{Service: q.Service, Name: q.Name, Text: q.Text, After: q.After, Limit: q.Limit}
	if len(q.States) > 0 {
		return b.inStates(ctx, q, filter)
	}
	rows, err := b.store.Instances(ctx, filter)
	if err == nil && q.Count {
		total, err = b.count(ctx, filter)
	}
	for _, row := range rows {
		list = append(list, b.status(row))
	}
	return list, total, err
}

// count is how many rows filter chooses on all pages.
func (b *backend) count(ctx context.Context, filter store.Filter) (int, error) {
	filter.After = tenement.InstanceID{}
	return b.store.Count(ctx, filter)
}

// inStates lists what is in one of q's states. What has an owner is there by its owner's
// word, all else by its row; of what is awake it reads just those rows, however many
// others sleep.
func (b *backend) inStates(ctx context.Context, q api.ListQuery, filter store.Filter) (list []tenement.Status, total int, err error) {
	filter.Resting = q.States
	// In this order: an owner that ends in between has written the row before.
	owned := b.owned(q)
	list, err = b.unowned(ctx, filter, owned)
	if err == nil && q.Count {
		total, err = b.count(ctx, filter)
	}
	if err != nil {
		return nil, 0, err
	}
	rows, err := b.store.Instances(ctx, store.Filter{IDs: rowsOf(owned, q), Limit: len(owned)})
	if err != nil {
		return nil, 0, err
	}
	for _, row := range rows {
		st := owned[row.ID]
		if slices.Contains(q.States, supervisor.RestingState(row)) {
			total-- // counted by its row
		}
		if !slices.Contains(q.States, st.State) {
			continue
		}
		total++
		if row.ID.Compare(q.After) > 0 {
			list = append(list, registered(st, row))
		}
	}
	slices.SortFunc(list, func(a, b tenement.Status) int { return a.ID.Compare(b.ID) })
	return list[:min(len(list), q.Limit)], max(total, 0), nil
}

// owned is what has an owner, of all pages and in whatever state.
func (b *backend) owned(q api.ListQuery) map[tenement.InstanceID]tenement.Status {
	owned := map[tenement.InstanceID]tenement.Status{}
	for _, st := range b.supervisor.Awake() {
		id := st.ID
		if (q.Service == "" || id.Service == q.Service) && (q.Name == "" || id.Name == q.Name) && strings.Contains(id.String(), q.Text) {
			owned[id] = st
		}
	}
	return owned
}

// rowsOf names the rows that have to be read of owned: those that are listed, or all of them
// where they are counted.
func rowsOf(owned map[tenement.InstanceID]tenement.Status, q api.ListQuery) []tenement.InstanceID {
	ids := []tenement.InstanceID{}
	for id, st := range owned {
		if q.Count || id.Compare(q.After) > 0 && slices.Contains(q.States, st.State) {
			ids = append(ids, id)
		}
	}
	return ids
}

// unowned is a page of the rows that filter chooses, without what has an owner.
func (b *backend) unowned(ctx context.Context, filter store.Filter, owned map[tenement.InstanceID]tenement.Status) ([]tenement.Status, error) {
	var list []tenement.Status
	for {
		rows, err := b.store.Instances(ctx, filter)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if _, has := owned[row.ID]; !has {
				list = append(list, resting(row))
			}
		}
		if len(rows) < filter.Limit || len(list) >= filter.Limit {
			return list, nil
		}
		filter.After = rows[len(rows)-1].ID
	}
}
