package daemon

import (
	"context"
	"errors"
	"time"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/logs"
)

// openLogs opens what keeps the tenants' output. Logs that cannot be read are no reason
// not to serve: then they begin anew.
func (t *tenancy) openLogs(ctx context.Context) error {
	c := t.daemon.Config
	store, err := logs.Open(ctx, StateDir(c.DataDir), logs.Limits{
		Instance: c.LogInstance, Total: c.LogTotal, Retention: c.LogRetention,
	}, t.daemon.Log)
	if err != nil {
		return err
	}
	t.logs = store
	t.closers = append(t.closers, store)
	return nil
}

// Logs implements [api.Backend].
func (b *backend) Logs(ctx context.Context, q api.LogQuery) ([]api.LogLine, error) {
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	lines, err := b.logs.Query(ctx, logQuery(q))
	return logLines(lines), err
}

// searchTime bounds one search. It is for those that the index cannot help with: a
// text without a word in it that nothing has.
const searchTime = 30 * time.Second

// FollowLogs implements [api.Backend]. It ends when the daemon begins to stop, which
// would otherwise wait for everybody who follows.
func (b *backend) FollowLogs(q api.LogQuery) api.NextLogs {
	f := b.logs.Follow(logQuery(q))
	return func(ctx context.Context) ([]api.LogLine, int64, error) {
		lines, err := whileServing(ctx, b, f.Next)
		return logLines(lines), f.UpTo(), err
	}
}

// whileServing waits for the next of what is followed, until the daemon begins to stop.
func whileServing[T any](ctx context.Context, b *backend, next func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	//nolint:contextcheck // the daemon's end ends it as well
	defer context.AfterFunc(b.serving, func() { cancel(errStopping) })()
	list, err := next(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errStopping) {
		err = errStopping
	}
	return list, err
}

var errStopping = &tenement.Error{Code: tenement.CodeUnavailable, Op: "follow", Err: errors.New("the daemon is stopping")}

func logQuery(q api.LogQuery) logs.Query {
	return logs.Query{
		Instance: q.Instance, Tenant: q.Tenant, Level: logs.Level(q.Level), Search: q.Search,
		Since: q.Since, Until: q.Until, After: q.After, Limit: q.Limit,
	}
}

func logLines(lines []logs.Line) []api.LogLine {
	list := make([]api.LogLine, 0, len(lines))
	for _, l := range lines {
		list = append(list, api.LogLine{ID: l.ID, At: l.At, Instance: l.Instance, Level: string(l.Level), Text: l.Text})
	}
	return list
}
