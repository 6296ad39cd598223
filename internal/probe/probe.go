// Package probe decides when a process is ready and whether it still is.
package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"tenement"
)

// Dial connects to the process in question.
type Dial func(ctx context.Context) (net.Conn, error)

// Target is what is asked, and how.
type Target struct {
	Dial Dial
	Path string // the health path; "" = to accept connections is enough

	// Began receives when the process may have begun to accept connections; nil where
	// nobody tells. If the event is lost, it may take as long again until it is noticed,
	// but at most a quarter of a second.
	Began <-chan struct{}

	// Passed says that the socket was there before the process: connections wait in it
	// until they are taken. Then the one request waits, too.
	Passed bool

	// Keep takes over the connection that has shown the process to be ready, if another
	// request may be sent on it; nil: it is closed.
	Keep func(net.Conn)
}

// Intervals of the attempts to reach a starting process. Where nobody tells when it
// accepts connections, the interval is a floor under every wake, and a blocking connect
// is cheap: the first second, in which most programs come up, is probed every
// millisecond. So is one whose health path says that it is not ready yet.
//
// Where somebody tells, an attempt before that is for the event that was lost, and takes
// time from the programs that start: each comes after twice the time of the one before.
const (
	eagerFor      = time.Second
	eagerInterval = time.Millisecond
	slowInterval  = 10 * time.Millisecond
	longestTold   = 250 * time.Millisecond
)

// attemptTimeout bounds one attempt to reach a socket of the program's own, so that a first request that got lost in a
// program still starting up does not use up the whole time allowed.
const attemptTimeout = 5 * time.Second

// Ready blocks until the process accepts connections and, with a path, answers it with
// 2xx. It returns nil, or ctx's end together with what the last attempt met, as
// CodeTimeout. A passed socket, without a path, is ready at once.
func Ready(ctx context.Context, t Target) error {
	if t.Passed && t.Path == "" {
		return nil
	}
	begin := time.Now()
	timer := time.NewTimer(t.firstWait())
	defer timer.Stop()
	var last error
	for {
		select {
		case <-ctx.Done():
			return notReady(ctx, last)
		case <-t.Began:
			t.Began = nil // there is no other
		case <-timer.C:
		}
		connected, err := t.attempt(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		timer.Reset(t.interval(connected, time.Since(begin)))
	}
}

func (t Target) attempt(ctx context.Context) (connected bool, err error) {
	if t.Passed {
		return t.check(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return t.check(ctx)
}

// firstWait is until the first attempt, unless the event comes before: at once is too early
// for all but a socket that was there before, and an attempt costs the program time to start.
func (t Target) firstWait() time.Duration {
	if t.Began != nil && !t.Passed {
		return slowInterval
	}
	return 0
}

func (t Target) interval(connected bool, since time.Duration) time.Duration {
	switch {
	case t.Began != nil && !connected:
		return min(max(since, slowInterval), longestTold)
	case since < eagerFor:
		return eagerInterval
	}
	return slowInterval
}

func notReady(ctx context.Context, last error) error {
	if last == nil {
		last = context.Cause(ctx)
	}
	return &tenement.Error{Code: tenement.CodeTimeout, Op: "wait until ready", Err: last}
}

// maxDiscard bounds what is read of a health answer's body.
const maxDiscard = 64 << 10

// Check connects once and, when path is not empty, asks for it and wants a status
// from 200 to 299. ctx bounds the whole exchange.
func Check(ctx context.Context, dial Dial, path string) error {
	_, err := Target{Dial: dial, Path: path}.check(ctx)
	return err
}

func (t Target) check(ctx context.Context) (connected bool, err error) {
	conn, err := t.Dial(ctx)
	if err != nil {
		return false, err
	}
	usable := true
	if t.Path != "" {
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		usable, err = t.ask(conn)
		usable = stop() && usable
	}
	if err == nil && usable && t.Keep != nil {
		t.Keep(conn)
	} else {
		_ = conn.Close()
	}
	return true, err
}

// ask sends Host: localhost, which frameworks that check it allow by default. It says
// whether the connection can be used for another request.
func (t Target) ask(conn net.Conn) (usable bool, err error) {
	last := ""
	if t.Keep == nil {
		last = "Connection: close\r\n"
	}
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: tenement-health\r\nAccept: */*\r\n%s\r\n", t.Path, last)
	if err != nil {
		return false, fmt.Errorf("send health request: %w", err)
	}
	from := bufio.NewReaderSize(conn, 1<<10)
	answer, err := http.ReadResponse(from, nil)
	if err != nil {
		return false, fmt.Errorf("read health answer: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	_, end := io.CopyN(io.Discard, answer.Body, maxDiscard) // spares the app a reset; the status is the verdict
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return false, fmt.Errorf("health path %s answered %d", t.Path, answer.StatusCode)
	}
	return !answer.Close && errors.Is(end, io.EOF) && from.Buffered() == 0, nil
}
