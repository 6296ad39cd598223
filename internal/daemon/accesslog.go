package daemon

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"tenement"
	"tenement/internal/proxy"
)

const (
	// accessPace is how soon a line is in the file.
	accessPace = time.Second

	// accessBuffer is how much waits to be written, in bytes.
	accessBuffer = 64 << 10

	accessMode = 0o640
)

// accessLog writes a line of JSON for each request. A nil one writes nothing. It is safe
// for concurrent use.
type accessLog struct {
	log *slog.Logger

	mu      sync.Mutex
	to      io.Writer
	file    *os.File // nil: it is standard error
	waiting []byte   // whole lines
	failing bool     // which was reported
}

// accessLine is one request.
type accessLine struct {
	Time       time.Time `json:"time"` // its header was there
	Instance   string    `json:"instance,omitempty"`
	Client     string    `json:"client,omitempty"`
	Method     string    `json:"method"`
	Host       string    `json:"host"`
	Target     string    `json:"target"`
	Proto      string    `json:"proto"`
	Status     int       `json:"status"`
	DurationMS float64   `json:"duration_ms"`
	BytesIn    int64     `json:"bytes_in"`
	BytesOut   int64     `json:"bytes_out"`
	UserAgent  string    `json:"user_agent,omitempty"`
	WakeMS     float64   `json:"wake_ms,omitempty"` // of the wake that it has waited for
}

// openAccessLog opens what access_log names: a file, or "stderr"; "" is none.
func openAccessLog(name string, log *slog.Logger) (*accessLog, error) {
	switch name {
	case "":
		return nil, nil
	case "stderr":
		return &accessLog{log: log, to: os.Stderr}, nil
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, accessMode)
	if err != nil {
		return nil, &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "open the access log", Err: err,
			Hint: "access_log in [settings] must name a file that the daemon's user may write to",
		}
	}
	return &accessLog{log: log, to: file, file: file}, nil
}

// write adds a line. It waits for the disk only if lines come faster than that takes them.
func (a *accessLog) write(s *proxy.Served) {
	words := s.Words()
	line := accessLine{
		Time: s.Begun.UTC(), Client: words.Client, Method: words.Method, Host: words.Host, Target: words.Target, Proto: words.Proto,
		Status: s.Status, DurationMS: milliseconds(s.Took), BytesIn: s.BytesIn, BytesOut: s.BytesOut, UserAgent: words.Agent,
	}
	if !s.ID.IsZero() {
		line.Instance = s.ID.String()
	}
	if w := s.Wake; w != nil {
		line.WakeMS = milliseconds(w.Queue + w.Spawn + w.Ready)
	}
	text, err := json.Marshal(line)
	if err != nil {
		return // numbers and texts can be written
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting)+len(text) >= accessBuffer {
		a.flush()
	}
	a.waiting = append(append(a.waiting, text...), '\n')
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// flush writes what waits. What cannot be written is lost. It needs mu.
func (a *accessLog) flush() {
	if len(a.waiting) == 0 {
		return
	}
	_, err := a.to.Write(a.waiting)
	a.waiting = a.waiting[:0]
	if err != nil && !a.failing {
		a.log.Error("lines of the access log are lost", "error", err)
	}
	a.failing = err != nil
}

// flushNowAndThen writes what waits, until ctx ends.
func (a *accessLog) flushNowAndThen(ctx context.Context) {
	if a == nil {
		return
	}
	tick := time.NewTicker(accessPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.mu.Lock()
		a.flush()
		a.mu.Unlock()
	}
}

// close writes what waits, once nobody writes any more.
func (a *accessLog) close() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flush()
	if a.file != nil {
		_ = a.file.Close() // all was written
	}
}
