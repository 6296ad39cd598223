package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

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
	//nolint:contextcheck // huma gives the request again when the answer is written
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		req, w := humago.Unwrap(hc)
		stream := eventStream{w: w, control: http.NewResponseController(w)}
		if err := stream.send(req.Context(), next); tenement.CodeOf(err) == tenement.CodeInternal {
			s.log.ErrorContext(req.Context(), "a stream of logs ended early", "err", err)
		}
	}}, nil
}

const (
	// heartbeat is the longest that a stream says nothing, so that both ends notice
	// when the other is gone; the first comes early and says where the stream begins.
	heartbeat      = 15 * time.Second
	firstHeartbeat = time.Second

	// streamTime is how long a stream lasts. Its client comes again, at the same place:
	// with a token that is still good.
	streamTime = 10 * time.Minute

	// writeTime is how long a client may take to read what it is sent at once.
	writeTime = 30 * time.Second
)

// eventStream writes server-sent events (https://html.spec.whatwg.org/#server-sent-events).
type eventStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// send sends lines until the client is gone, the daemon ends, or it is time.
func (e *eventStream) send(ctx context.Context, next NextLogs) error {
	ctx, cancel := context.WithTimeout(ctx, streamTime)
	defer cancel()
	e.w.Header().Set("Content-Type", "text/event-stream")
	e.w.WriteHeader(http.StatusOK)
	if err := e.flush(); err != nil {
		return nil //nolint:nilerr // the client is gone
	}
	for wait := firstHeartbeat; ; wait = heartbeat {
		beat, cancel := context.WithTimeout(ctx, wait)
		lines, upTo, err := next(beat)
		cancel()
		if err != nil && (tenement.CodeOf(err) != tenement.CodeTimeout || ctx.Err() != nil) {
			return err
		}
		if e.write(lines, upTo) != nil {
			return nil // the client is gone
		}
	}
}

// write sends lines, and up to where the client has all of them: also if it never gets
// a line, it comes again at the right place.
func (e *eventStream) write(lines []LogLine, upTo int64) error {
	_ = e.control.SetWriteDeadline(time.Now().Add(writeTime)) // where there is none, the server has its own bounds
	for _, l := range lines {
		text, err := json.Marshal(l)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(e.w, "id: %d\ndata: %s\n\n", l.ID, text); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(e.w, "id: %d\n: up to here\n\n", upTo); err != nil {
		return err
	}
	return e.flush()
}

func (e *eventStream) flush() error {
	err := e.control.Flush()
	_ = e.control.SetWriteDeadline(time.Time{}) // or HTTP/2 would end a stream that is silent
	return err
}

// mountStream is mount for a route that answers with events.
func mountStream[I any](h handler[I, huma.StreamResponse]) func(*Server, huma.API, huma.Operation) {
	return func(s *Server, a huma.API, op huma.Operation) {
		op.Responses = map[string]*huma.Response{"200": {
			Description: "A line for each event: its id, and as data the line as in the list of lines. Events without data say how far the stream is.",
			Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}}
		mount(h)(s, a, op)
	}
}
