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

// numbered is what is streamed: each has an id, by which a client that comes again says
// where it was.
type numbered interface{ number() int64 }

func (l LogLine) number() int64 { return l.ID }

func (e Event) number() int64 { return e.ID }

// stream is the answer that sends what next gives. next is [NextLogs] or one like it.
func stream[T numbered](s *Server, next func(context.Context) ([]T, int64, error)) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		req, w := humago.Unwrap(hc)
		events := eventStream[T]{w: w, control: http.NewResponseController(w)}
		if err := events.send(req.Context(), next); tenement.CodeOf(err) == tenement.CodeInternal {
			s.log.ErrorContext(req.Context(), "a stream ended early", "path", req.URL.Path, "err", err)
		}
	}}
}

// eventStream writes server-sent events (https://html.spec.whatwg.org/#server-sent-events).
type eventStream[T numbered] struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// send sends what next gives until the client is gone, the daemon ends, or it is time.
func (e *eventStream[T]) send(ctx context.Context, next func(context.Context) ([]T, int64, error)) error {
	ctx, cancel := context.WithTimeout(ctx, streamTime)
	defer cancel()
	e.w.Header().Set("Content-Type", "text/event-stream")
	e.w.WriteHeader(http.StatusOK)
	if err := e.flush(); err != nil {
		return nil //nolint:nilerr // the client is gone
	}
	for wait := firstHeartbeat; ; wait = heartbeat {
		beat, cancel := context.WithTimeout(ctx, wait)
		list, upTo, err := next(beat)
		cancel()
		if err != nil && (tenement.CodeOf(err) != tenement.CodeTimeout || ctx.Err() != nil) {
			return err
		}
		if e.write(list, upTo) != nil {
			return nil // the client is gone
		}
	}
}

// write sends list, and up to where the client has all there is: also if it never gets
// anything, it comes again at the right place.
func (e *eventStream[T]) write(list []T, upTo int64) error {
	_ = e.control.SetWriteDeadline(time.Now().Add(writeTime)) // where there is none, the server has its own bounds
	for _, item := range list {
		text, err := json.Marshal(item)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(e.w, "id: %d\ndata: %s\n\n", item.number(), text); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(e.w, "id: %d\n: up to here\n\n", upTo); err != nil {
		return err
	}
	return e.flush()
}

func (e *eventStream[T]) flush() error {
	err := e.control.Flush()
	_ = e.control.SetWriteDeadline(time.Time{}) // or HTTP/2 would end a stream that is silent
	return err
}

// mountStream is mount for a route that answers with events.
func mountStream[I any](h handler[I, huma.StreamResponse]) func(*Server, huma.API, huma.Operation) {
	return func(s *Server, a huma.API, op huma.Operation) {
		op.Responses = map[string]*huma.Response{"200": {
			Description: "One for each line or event: its id, and as data what the list has. Those without data say how far the stream is.",
			Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}}
		mount(h)(s, a, op)
	}
}
