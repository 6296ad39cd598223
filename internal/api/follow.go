package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tenement"
)

// LogOptions selects log lines. Empty fields select all.
type LogOptions struct {
	Instance tenement.InstanceID
	Level    string // "stdout" or "stderr"
	Search   string // words that all must be in the line
	Since    time.Time
	Until    time.Time // not for [Client.FollowLogs]
	After    int64     // only lines with a higher id, and of these the first ones
	Limit    int       // otherwise the last so many, up to [MaxLogLines]; 0 is the daemon's default, or none to begin with
}

func (o LogOptions) values() url.Values {
	q := url.Values{}
	setID(q, "instance", o.Instance)
	setText(q, "level", o.Level)
	setText(q, "search", o.Search)
	setLimit(q, o.Limit)
	setTime(q, "since", o.Since)
	setTime(q, "until", o.Until)
	if o.After > 0 {
		q.Set("after", strconv.FormatInt(o.After, 10))
	}
	return q
}

// EventOptions selects events. Empty fields select all.
type EventOptions struct {
	Instance      tenement.InstanceID
	Actor, Action string
	Since         time.Time
	Until         time.Time // not for [Client.FollowEvents]
	Before        int64     // the same: [Events].Next of the page that comes after
	After         int64     // only for [Client.FollowEvents]: begin after this one
	Limit         int       // the last so many, up to [MaxEvents]; 0 is the daemon's default, or none to begin with
}

func (o EventOptions) values() url.Values {
	q := url.Values{}
	setID(q, "instance", o.Instance)
	setText(q, "actor", o.Actor)
	setText(q, "action", o.Action)
	setLimit(q, o.Limit)
	setTime(q, "since", o.Since)
	setTime(q, "until", o.Until)
	if o.Before > 0 {
		q.Set("before", strconv.FormatInt(o.Before, 10))
	}
	return q
}

// Events is the last events that o selects, oldest first.
func (c *Client) Events(ctx context.Context, o EventOptions) (Events, error) {
	var page Events
	err := c.do(ctx, http.MethodGet, "/api/events", o.values(), nil, &page)
	return page, err
}

// Logs is the last lines that o selects, or with o.After the first, oldest first.
func (c *Client) Logs(ctx context.Context, o LogOptions) ([]LogLine, error) {
	var lines LogLines
	err := c.do(ctx, http.MethodGet, "/api/logs", o.values(), nil, &lines)
	return lines.Lines, err
}

const (
	// reconnectTime is how long a daemon that was reached may be away.
	reconnectTime = 2 * time.Minute
	reconnectMin  = 100 * time.Millisecond
	reconnectMax  = 2 * time.Second

	// silence is how long a stream may say nothing, four heartbeats, before it is
	// taken for dead.
	silence = time.Minute

	maxEvent = 1 << 20 // bytes of a line of the stream
)

// FollowLogs calls each for the last o.Limit lines that o selects, or all after
// o.After, and then for others as they are printed: every one once, in the order of
// ids. It ends with ctx, with an error of each, or with one of the daemon's.
//
// When the connection is lost, it goes on where it was, for as long as the daemon does
// not stay away for more than two minutes; lost, which may be nil, is told once each
// time. An error on the first try is returned at once.
func (c *Client) FollowLogs(ctx context.Context, o LogOptions, lost func(error), each func(LogLine) error) error {
	f := following[LogLine]{Client: c, path: "/api/logs/stream", query: o.values(), after: o.After, each: each}
	return f.run(ctx, lost)
}

// FollowEvents is [Client.FollowLogs] for events.
func (c *Client) FollowEvents(ctx context.Context, o EventOptions, lost func(error), each func(Event) error) error {
	f := following[Event]{Client: c, path: "/api/events/stream", query: o.values(), after: o.After, each: each}
	return f.run(ctx, lost)
}

// following is one call of FollowLogs or FollowEvents.
type following[T any] struct {
	*Client
	path      string
	query     url.Values
	after     int64 // the id of what was dealt with last
	each      func(T) error
	connected bool  // once
	heard     bool  // something, of this connection
	pending   int64 // the id of the event under way
}

// run reads stream after stream.
func (f *following[T]) run(ctx context.Context, lost func(error)) error {
	delay, lostAt := reconnectMin, time.Time{}
	for {
		f.heard = false
		err := f.once(ctx)
		if f.heard {
			delay, lostAt = reconnectMin, time.Time{}
		}
		switch {
		case ctx.Err() != nil:
			return f.unanswered(ctx, ctx.Err())
		case err == nil:
			continue // the daemon ended the stream: it says where to go on
		case !f.connected || !passing(err):
			return err
		}
		if lostAt.IsZero() {
			lostAt = time.Now()
			if lost != nil {
				lost(err)
			}
		}
		if time.Since(lostAt) > reconnectTime {
			return err
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		delay = min(2*delay, reconnectMax)
	}
}

// passing reports whether err is of a daemon that is away, or on its way out.
func passing(err error) bool {
	code := tenement.CodeOf(err)
	return code == tenement.CodeUnreachable || code == tenement.CodeUnavailable
}

// once reads one stream to its end. nil is an end in good order.
func (f *following[T]) once(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	quiet := time.AfterFunc(silence, cancel)
	defer quiet.Stop()
	resp, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/event-stream") {
		if err := f.read(ctx, resp, nil); err != nil {
			return err
		}
		return notOurs(errors.New("the answer is no stream of events"))
	}
	f.connected, f.pending = true, f.after
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		quiet.Reset(silence)
		if err := f.event(lines.Text()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return f.unanswered(context.WithoutCancel(ctx), err)
	}
	if !f.heard {
		return f.unanswered(context.WithoutCancel(ctx), io.ErrUnexpectedEOF)
	}
	return nil
}

func (f *following[T]) open(ctx context.Context) (*http.Response, error) {
	if f.after > 0 {
		f.query.Set("after", strconv.FormatInt(f.after, 10))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.base+f.path+"?"+f.query.Encode(), nil)
	if err != nil {
		return nil, &tenement.Error{Code: tenement.CodeInvalid, Op: "write request", Err: err}
	}
	req.Header.Set("Accept", "text/event-stream")
	if f.token != "" {
		req.Header.Set("Authorization", "Bearer "+f.token)
	}
	resp, err := f.http.Do(req)
	if err != nil {
		return nil, f.unanswered(context.WithoutCancel(ctx), err)
	}
	return resp, nil
}

// event reads a line of the stream. The next connection begins after the last event
// that was dealt with.
func (f *following[T]) event(line string) error {
	f.heard = true
	name, value, _ := strings.Cut(line, ": ")
	switch name {
	case "id":
		id, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return notOurs(err)
		}
		f.pending = id
	case "data":
		var item T
		if err := json.Unmarshal([]byte(value), &item); err != nil {
			return notOurs(err)
		}
		if err := f.each(item); err != nil { // whatever it is, it is not the connection's
			return &tenement.Error{Code: tenement.CodeOf(err), Err: err}
		}
	case "": // the end of an event
		f.after = max(f.after, f.pending)
	}
	return nil
}
