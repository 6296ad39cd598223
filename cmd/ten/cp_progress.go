package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"tenement"
)

// progress counts what passes, and shows it at a terminal when it takes long. Its methods
// may be called concurrently.
type progress struct {
	to    io.Writer // nil: to nobody
	began time.Time

	mu    sync.Mutex
	shown time.Time // zero: not yet
	bytes tenement.Bytes
}

const (
	progressAfter = time.Second
	progressPace  = 200 * time.Millisecond
)

func (a *app) progress() *progress {
	p := &progress{began: time.Now()}
	if isTerminal(a.stderr) {
		p.to = a.stderr
	}
	return p
}

func (p *progress) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes += tenement.Bytes(len(text))
	now := time.Now()
	if p.to != nil && now.Sub(p.began) >= progressAfter && now.Sub(p.shown) >= progressPace {
		p.shown = now
		fmt.Fprintf(p.to, "\r%s copied\x1b[K", size(p.bytes))
	}
	return len(text), nil
}

// done takes what was shown away.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.shown.IsZero() {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}

// notCopied names what a copy has left out; of many the first.
type notCopied struct {
	to    io.Writer
	count int
}

func (n *notCopied) add(path, why string) {
	const named = 20
	if n.count++; n.count <= named {
		fmt.Fprintf(n.to, "not copied: %s: %s\n", visible(path), why)
	}
}

// failure is nil if all was copied.
func (n *notCopied) failure() error {
	if n.count == 0 {
		return nil
	}
	return fmt.Errorf("%d of what was to be copied was left out", n.count)
}
