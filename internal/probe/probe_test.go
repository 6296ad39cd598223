package probe_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tenement"
	"tenement/internal/probe"
)

// program accepts connections from some instant on, and is healthy from another one on.
type program struct {
	begun   time.Time
	listens time.Duration // since begun
	healthy time.Duration
	answers time.Duration // what the answer takes
	dials   int
}

func (p *program) dial(context.Context) (net.Conn, error) {
	p.dials++
	if time.Since(p.begun) < p.listens {
		return nil, syscall.ECONNREFUSED
	}
	ours, theirs := net.Pipe()
	status := "503 Service Unavailable"
	if time.Since(p.begun) >= p.healthy {
		status = "200 OK"
	}
	go func() {
		if _, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
			<-time.After(p.answers)
			_, _ = theirs.Write([]byte("HTTP/1.1 " + status + "\r\nContent-Length: 0\r\n\r\n"))
		}
		_ = theirs.Close()
	}()
	return ours, nil
}

// ready says how long after its start p was found to be ready.
func (p *program) ready(t *testing.T, path string, began <-chan struct{}) time.Duration {
	t.Helper()
	p.begun = time.Now()
	if err := probe.Ready(t.Context(), probe.Target{Dial: p.dial, Path: path, Began: began}); err != nil {
		t.Fatal(err)
	}
	return time.Since(p.begun)
}

func TestReadyAtTheInstantOfTheEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := make(chan struct{}, 1)
		p := program{listens: 123_456 * time.Microsecond}
		time.AfterFunc(p.listens, func() { began <- struct{}{} })
		if took := p.ready(t, "", began); took != p.listens {
			t.Errorf("ready after %s, listens after %s", took, p.listens)
		}
		if want := 5; p.dials != want { // after 10, 20, 40 and 80 ms, and at the event
			t.Errorf("asked %d times, want %d", p.dials, want)
		}
	})
}

func TestReadyThoughTheEventIsLost(t *testing.T) {
	t.Parallel()
	for listens, most := range map[time.Duration]time.Duration{
		101 * time.Millisecond: 101 * time.Millisecond,
		10 * time.Second:       250 * time.Millisecond,
	} {
		synctest.Test(t, func(t *testing.T) {
			p := program{listens: listens}
			if late := p.ready(t, "", make(chan struct{})) - p.listens; late > most {
				t.Errorf("listens after %s, and late by %s", listens, late)
			}
		})
	}
}

// TestRefusedAfterTheEvent: what says that it listens is asked again at once.
func TestRefusedAfterTheEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := make(chan struct{}, 1)
		began <- struct{}{}
		p := program{listens: 100_500 * time.Microsecond}
		if late := p.ready(t, "", began) - p.listens; late > time.Millisecond {
			t.Errorf("late by %s", late)
		}
	})
}

func TestReadyThoughNobodyTells(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := program{listens: 100_500 * time.Microsecond}
		if late := p.ready(t, "", nil) - p.listens; late > time.Millisecond {
			t.Errorf("late by %s", late)
		}
	})
}

// TestHealthIsAskedAtOnce: no event says when a program that listens is healthy.
func TestHealthIsAskedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := make(chan struct{}, 1)
		p := program{listens: 50 * time.Millisecond, healthy: 75_500 * time.Microsecond}
		time.AfterFunc(p.listens, func() { began <- struct{}{} })
		if late := p.ready(t, "/health", began) - p.healthy; late > time.Millisecond {
			t.Errorf("late by %s", late)
		}
	})
}

// TestPassedSocket: one request waits in the socket for as long as it takes.
func TestPassedSocket(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]program{"": {}, "/health": {dials: 1, answers: time.Minute}} {
		synctest.Test(t, func(t *testing.T) {
			p := program{begun: time.Now(), answers: want.answers}
			if err := probe.Ready(t.Context(), probe.Target{Dial: p.dial, Path: path, Passed: true}); err != nil {
				t.Fatal(err)
			}
			if p.dials != want.dials || time.Since(p.begun) != want.answers {
				t.Errorf("with path %q asked %d times within %s", path, p.dials, time.Since(p.begun))
			}
		})
	}
}

func TestNeverReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		p := program{begun: time.Now(), listens: time.Hour}
		err := probe.Ready(ctx, probe.Target{Dial: p.dial})
		if tenement.CodeOf(err) != tenement.CodeTimeout || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("error %v", err)
		}
	})
}

// TestKeep: a connection is kept for another request only where one may be sent on it.
func TestKeep(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer string // "": the health path is not asked for
		kept   bool
	}{
		"nothing asked":     {"", true},
		"HTTP/1.1":          {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true},
		"asks to close":     {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false},
		"HTTP/1.0":          {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		"more than was due": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, evil", false},
		"a long answer":     {"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := net.Pipe()
			defer theirs.Close()
			target := probe.Target{Dial: func(context.Context) (net.Conn, error) { return ours, nil }}
			if tt.answer != "" {
				target.Path = "/health"
				go func() {
					if _, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
						_, _ = io.WriteString(theirs, tt.answer)
					}
				}()
			}
			var kept net.Conn
			target.Keep = func(c net.Conn) { kept = c }
			if err := probe.Ready(t.Context(), target); err != nil {
				t.Fatal(err)
			}
			if (kept == ours) != tt.kept {
				t.Errorf("kept: %t", kept != nil)
			}
			if err := ours.SetDeadline(time.Time{}); (err == nil) != tt.kept {
				t.Errorf("after it: %v", err)
			}
		})
	}
}
