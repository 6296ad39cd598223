package api

import (
	"context"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"tenement"
)

type eventsInput struct {
	Instance tenement.InstanceID `query:"instance"`
	Actor    string              `query:"actor" maxLength:"100" doc:"exactly, such as token:abc or daemon"`
	Action   string              `query:"action" maxLength:"100" doc:"exactly, such as spawn"`
	Since    time.Time           `query:"since"`
	Until    time.Time           `query:"until" doc:"not included"`
	Before   int64               `query:"before" minimum:"0" doc:"only events with a lower id"`
	Limit    int                 `query:"limit" minimum:"1" maximum:"10000" default:"100" doc:"the last so many"`
}

func (s *Server) events(ctx context.Context, c *call, in *eventsInput) (*answer[Events], error) {
	q, err := c.eventQuery(in.Instance, in.Actor, in.Action)
	if err != nil {
		return nil, err
	}
	q.Since, q.Until, q.Before, q.Limit = in.Since, in.Until, in.Before, in.Limit
	list, err := s.backend.Events(ctx, q)
	if err != nil {
		return nil, err
	}
	page := Events{Events: c.showEvents(list)}
	if len(list) == in.Limit {
		page.Next = list[0].ID
	}
	return &answer[Events]{page}, nil
}

type eventStreamInput struct {
	Instance    tenement.InstanceID `query:"instance"`
	Actor       string              `query:"actor" maxLength:"100" doc:"exactly, such as token:abc or daemon"`
	Action      string              `query:"action" maxLength:"100" doc:"exactly, such as spawn"`
	Since       time.Time           `query:"since"`
	After       int64               `query:"after" minimum:"0" doc:"begin after the event with this id"`
	LastEventID int64               `header:"Last-Event-ID" minimum:"0" doc:"the same, and comes before it"`
	Limit       int                 `query:"limit" minimum:"0" maximum:"10000" default:"0" doc:"otherwise begin with the last so many events"`
}

func (s *Server) streamEvents(_ context.Context, c *call, in *eventStreamInput) (*huma.StreamResponse, error) {
	q, err := c.eventQuery(in.Instance, in.Actor, in.Action)
	if err != nil {
		return nil, err
	}
	q.Since, q.After, q.Limit = in.Since, in.After, in.Limit
	if in.LastEventID > 0 {
		q.After = in.LastEventID
	}
	next := s.backend.FollowEvents(q)
	return stream(s, func(ctx context.Context) ([]Event, int64, error) {
		list, upTo, err := next(ctx)
		return c.showEvents(list), upTo, err
	}), nil
}

// eventQuery limits what c asks for to what it may see.
func (c *call) eventQuery(id tenement.InstanceID, actor, action string) (tenement.EventQuery, error) {
	q := tenement.EventQuery{Actor: actor, Action: action}
	if !id.IsZero() {
		if err := c.see(id); err != nil {
			return q, err
		}
		q.Target = id.String()
	}
	if c.scope.SeesAll() {
		return q, nil
	}
	q.Tenant, q.Caller = c.scope.Tenant, c.actor
	if actor != "" && actor != c.actor && actor != tenement.ActorDaemon {
		return q, &tenement.Error{
			Code: tenement.CodeForbidden, Op: "list events of " + actor, Err: errOthersEvents,
			Hint: "ask for actor=" + c.actor + ", or for all",
		}
	}
	return q, nil
}

// showEvents is list as c may see it: to a tenant, who else did something and from
// where is not said, nor what may name commands and paths.
func (c *call) showEvents(list []tenement.Event) []Event {
	shown := make([]Event, len(list))
	for i, e := range list {
		if !c.scope.SeesAll() && e.Actor != c.actor {
			e.Actor, _, _ = strings.Cut(e.Actor, ":")
			e.From, e.Detail = "", ""
		}
		shown[i] = Event(e)
	}
	return shown
}
