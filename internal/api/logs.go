package api

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"tenement"
)

type logsInput struct {
	Instance tenement.InstanceID `query:"instance"`
	Level    string              `query:"level" enum:"stdout,stderr"`
	Search   string              `query:"search" maxLength:"1000" doc:"words that all must be in the line; \"words in a row\"; begin*"`
	Since    time.Time           `query:"since"`
	Until    time.Time           `query:"until"`
	After    int64               `query:"after" minimum:"0" doc:"only lines with a higher id; of these the first ones"`
	Limit    int                 `query:"limit" minimum:"1" maximum:"10000" default:"100" doc:"the last so many"`
}

func (s *Server) logs(ctx context.Context, c *call, in *logsInput) (*answer[LogLines], error) {
	if err := c.seeLogs(in.Instance); err != nil {
		return nil, err
	}
	lines, err := s.backend.Logs(ctx, LogQuery{
		Instance: in.Instance, Tenant: c.scope.Tenant, Level: in.Level, Search: in.Search,
		Since: in.Since, Until: in.Until, After: in.After, Limit: in.Limit,
	})
	if err != nil {
		return nil, err
	}
	if lines == nil {
		lines = []LogLine{}
	}
	return &answer[LogLines]{LogLines{lines}}, nil
}

// seeLogs fails if c names an instance that it may not read about. Where none is named,
// the query is limited to what c may see.
func (c *call) seeLogs(id tenement.InstanceID) error {
	if id.IsZero() {
		return nil
	}
	return c.see(id)
}

type streamInput struct {
	Instance    tenement.InstanceID `query:"instance"`
	Level       string              `query:"level" enum:"stdout,stderr"`
	Search      string              `query:"search" maxLength:"1000" doc:"words that all must be in the line; \"words in a row\"; begin*"`
	Since       time.Time           `query:"since"`
	After       int64               `query:"after" minimum:"0" doc:"begin after the line with this id"`
	LastEventID int64               `header:"Last-Event-ID" minimum:"0" doc:"the same, and comes before it"`
	Limit       int                 `query:"limit" minimum:"0" maximum:"10000" default:"0" doc:"otherwise begin with the last so many lines"`
}

func (s *Server) streamLogs(_ context.Context, c *call, in *streamInput) (*huma.StreamResponse, error) {
	if err := c.seeLogs(in.Instance); err != nil {
		return nil, err
	}
	after := in.After
	if in.LastEventID > 0 {
		after = in.LastEventID
	}
	next := s.backend.FollowLogs(LogQuery{
		Instance: in.Instance, Tenant: c.scope.Tenant, Level: in.Level, Search: in.Search,
		Since: in.Since, After: after, Limit: in.Limit,
	})
	return stream(s, next), nil
}
