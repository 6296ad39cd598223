package api

import (
	"context"
	"net/http"
	"time"

	"tenement"
)

// PendingAlert is an alert that its receiver does not have yet.
type PendingAlert struct {
	ID       string              `json:"id" doc:"the same in the header webhook-id of each attempt"`
	Kind     tenement.AlertKind  `json:"kind" enum:"failed,crash_loop,oom,quota,disk_low,disk_low.resolved"`
	At       time.Time           `json:"at" doc:"when it happened"`
	Instance tenement.InstanceID `json:"instance,omitzero" doc:"absent: it is not about one"`
	Attempts int                 `json:"attempts" doc:"that have failed"`
	NextAt   time.Time           `json:"next_at" doc:"the next attempt"`
	Error    string              `json:"error,omitempty" doc:"why the last attempt has failed"`
}

// PendingAlerts is all of them, the oldest first.
type PendingAlerts struct {
	Alerts []PendingAlert `json:"alerts" nullable:"false"`
}

// AlertTest is what became of a test alert.
type AlertTest struct {
	ID        string  `json:"id" doc:"as in the header webhook-id"`
	Delivered bool    `json:"delivered"`
	Status    int     `json:"status,omitempty" doc:"of the receiver's answer; absent: there was none"`
	Error     string  `json:"error,omitempty" doc:"why it was not delivered"`
	TookMS    float64 `json:"took_ms"`
}

func (s *Server) alerts(ctx context.Context, _ *call, _ *none) (*answer[PendingAlerts], error) {
	list, err := s.backend.Alerts(ctx)
	if err != nil {
		return nil, err
	}
	pending := PendingAlerts{Alerts: make([]PendingAlert, len(list))}
	for i, a := range list {
		pending.Alerts[i] = PendingAlert{
			ID: a.ID, Kind: a.Kind, At: a.At, Instance: a.Instance, Attempts: a.Attempts, NextAt: a.Due, Error: a.Error,
		}
	}
	return &answer[PendingAlerts]{pending}, nil
}

func (s *Server) testAlert(ctx context.Context, c *call, _ *none) (*answer[AlertTest], error) {
	test, err := s.backend.TestAlert(ctx)
	if err != nil {
		return nil, err
	}
	c.detail = test.Error
	return &answer[AlertTest]{test}, nil
}

// Alerts lists the alerts that are still to be sent.
func (c *Client) Alerts(ctx context.Context) ([]PendingAlert, error) {
	var pending PendingAlerts
	err := c.do(ctx, http.MethodGet, "/api/alerts", nil, nil, &pending)
	return pending.Alerts, err
}

// TestAlert has a test alert sent; see [Backend].
func (c *Client) TestAlert(ctx context.Context) (AlertTest, error) {
	var test AlertTest
	err := c.do(ctx, http.MethodPost, "/api/alerts/test", nil, nil, &test)
	return test, err
}
