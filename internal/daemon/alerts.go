package daemon

import (
	"context"

	"tenement"
	"tenement/internal/alert"
	"tenement/internal/api"
)

func (t *tenancy) newAlerts() *alert.Outbox {
	d := t.daemon
	return alert.New(alert.Config{
		Store:    t.store,
		Receiver: d.setup.Load().receiver,
		Domain:   func() string { return d.config().Domain },
		Room: func() (available, total tenement.Bytes) {
			room := d.diskRoom()
			return room.Available, room.Total
		},
		Sent:   d.metrics.AlertSent,
		GaveUp: d.metrics.AlertFailed,
		Lost:   d.metrics.AlertsLost,
		Log:    d.Log,
	})
}

// Alerts implements [api.Backend].
func (b *backend) Alerts(context.Context) ([]tenement.Alert, error) { return b.alerts.Pending(), nil }

// TestAlert implements [api.Backend].
func (b *backend) TestAlert(ctx context.Context) (api.AlertTest, error) {
	answer, err := b.alerts.Test(ctx)
	if err != nil {
		return api.AlertTest{}, err
	}
	return api.AlertTest{
		ID: answer.ID, Delivered: answer.Delivered(), Status: answer.Status, Error: answer.Error,
		TookMS: float64(answer.Took.Microseconds()) / 1000,
	}, nil
}
