package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"tenement"
)

// Wake is the record of one wake. A phase that was not reached is 0.
type Wake struct {
	ID          int64               `json:"id" doc:"rises with every record"`
	At          time.Time           `json:"at" doc:"when it was asked for"`
	Instance    tenement.InstanceID `json:"instance"`
	Cause       tenement.Cause      `json:"cause" enum:"request,operator,schedule,pinned,restart" doc:"of the first who asked; schedule is an alarm or a cron line, restart is nobody: its process had ended"`
	Client      string              `json:"client,omitempty" enum:"loopback,private,public" doc:"what kind of address the request came from; not for tenants"`
	UserAgent   string              `json:"user_agent,omitempty" doc:"of the request; the first 200 bytes"`
	Path        string              `json:"path,omitempty" doc:"of the request, without query; the first 200 bytes"`
	QueueMS     float64             `json:"queue_ms" doc:"until it was its turn"`
	SpawnMS     float64             `json:"spawn_ms" doc:"until there was a process"`
	ReadyMS     float64             `json:"ready_ms" doc:"until that was ready"`
	FirstByteMS float64             `json:"first_byte_ms" doc:"until the first byte of the first response"`
	Outcome     string              `json:"outcome" doc:"ok, or the code of the error" example:"ok"`
	Shared      int                 `json:"shared" doc:"requests that waited for it"`
}

// Wakes is the last records that match, oldest first.
type Wakes struct {
	Wakes []Wake `json:"wakes" nullable:"false"`
	Next  int64  `json:"next,omitempty" doc:"for those before ask again with before set to this; absent on the last page"`
}

type wakesInput struct {
	Instance tenement.InstanceID `query:"instance"`
	Since    time.Time           `query:"since"`
	Before   int64               `query:"before" minimum:"0" doc:"only records with a lower id"`
	Limit    int                 `query:"limit" minimum:"1" maximum:"10000" default:"100" doc:"the last so many"`
}

func (s *Server) wakes(ctx context.Context, c *call, in *wakesInput) (*answer[Wakes], error) {
	if err := c.seeLogs(in.Instance); err != nil {
		return nil, err
	}
	list, err := s.backend.Wakes(ctx, tenement.WakeQuery{
		Instance: in.Instance, Tenant: c.scope.Tenant, Since: in.Since, Before: in.Before, Limit: in.Limit,
	})
	if err != nil {
		return nil, err
	}
	page := Wakes{Wakes: make([]Wake, len(list))}
	for i, w := range list {
		page.Wakes[i] = c.showWake(w)
	}
	if len(list) == in.Limit {
		page.Next = list[0].ID
	}
	return &answer[Wakes]{page}, nil
}

func (c *call) showWake(w tenement.WakeRecord) Wake {
	shown := Wake{
		ID: w.ID, At: w.At, Instance: w.Instance, Cause: w.Cause, Client: w.Client, UserAgent: w.Agent, Path: w.Path,
		QueueMS: milliseconds(w.Queue), SpawnMS: milliseconds(w.Spawn), ReadyMS: milliseconds(w.Ready), FirstByteMS: milliseconds(w.FirstByte),
		Outcome: w.Outcome, Shared: w.Shared,
	}
	if !c.scope.SeesAll() {
		shown.Client = ""
	}
	return shown
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// WakeOptions selects records of wakes. Empty fields select all.
type WakeOptions struct {
	Instance tenement.InstanceID
	Since    time.Time
	Before   int64 // [Wakes].Next of the page that comes after
	Limit    int   // the last so many, up to 10,000; 0 is the daemon's default
}

// Wakes is the last records of wakes that o selects, oldest first.
func (c *Client) Wakes(ctx context.Context, o WakeOptions) (Wakes, error) {
	q := url.Values{}
	setID(q, "instance", o.Instance)
	setTime(q, "since", o.Since)
	setLimit(q, o.Limit)
	if o.Before > 0 {
		q.Set("before", strconv.FormatInt(o.Before, 10))
	}
	var page Wakes
	err := c.do(ctx, http.MethodGet, "/api/wakes", q, nil, &page)
	return page, err
}
