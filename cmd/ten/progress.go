package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"tenement"
)

// passingLine is one line at a terminal that tells how far something is, and is written over
// with each word of it. A nil one tells nobody.
type passingLine struct{ to io.Writer }

// passingLine is on standard error if people read there, and no program.
func (a *app) passingLine() *passingLine {
	if a.json || !isTerminal(a.stderr) {
		return nil
	}
	return &passingLine{a.stderr}
}

// show writes text over what the line said before; "" removes it.
func (l *passingLine) show(text string) {
	if l != nil {
		fmt.Fprintf(l.to, "\r\x1b[K%s", text)
	}
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// progress counts what passes, and shows it when it takes long. Its methods may be called
// concurrently.
type progress struct {
	line  *passingLine
	began time.Time

	mu    sync.Mutex
	shown time.Time // zero: not yet
	bytes tenement.Bytes
}

const (
	progressAfter = time.Second
	progressPace  = 200 * time.Millisecond
)

func (a *app) progress() *progress { return &progress{line: a.passingLine(), began: time.Now()} }

func (p *progress) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes += tenement.Bytes(len(text))
	now := time.Now()
	if now.Sub(p.began) >= progressAfter && now.Sub(p.shown) >= progressPace {
		p.shown = now
		p.line.show(size(p.bytes) + " copied")
	}
	return len(text), nil
}

// done takes what was shown away.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.shown.IsZero() {
		p.line.show("")
	}
}
