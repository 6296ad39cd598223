package daemon

import (
	"context"

	"tenement/internal/api"
	"tenement/internal/logs"
)

// openLogs opens what keeps the tenants' output. Logs that cannot be read are no reason
// not to serve: then they begin anew.
func (d *daemon) openLogs(ctx context.Context) error {
	store, err := logs.Open(ctx, StateDir(d.Config.DataDir), logs.Limits{}, d.Log)
	if err != nil {
		return err
	}
	d.logs = store
	d.closers = append(d.closers, store)
	return nil
}

// Logs implements [api.Backend].
func (b *backend) Logs(ctx context.Context, q api.LogQuery) ([]api.LogLine, error) {
	lines, err := b.logs.Query(ctx, logs.Query{
		Instance: q.Instance, Tenant: q.Tenant, Level: logs.Level(q.Level),
		Search: q.Search, Since: q.Since, Limit: q.Limit,
	})
	return logLines(lines), err
}

func logLines(lines []logs.Line) []api.LogLine {
	list := make([]api.LogLine, 0, len(lines))
	for _, l := range lines {
		list = append(list, api.LogLine{At: l.At, Instance: l.Instance, Level: string(l.Level), Text: l.Text})
	}
	return list
}
