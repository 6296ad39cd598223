package runtime

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"tenement"
)

// output carries what a process prints to the sinks of its Spec.
type output struct {
	streams  []*stream
	done     sync.WaitGroup
	detached atomic.Bool // what is still to be read is another daemon's
}

// stream is our end of what a process prints at one level.
type stream struct {
	from   *os.File
	to     Sink
	staged bool // bytes stay in the FIFO until they are taken

	mu       sync.Mutex // held to set the deadline of from, which is the last once stopping
	stopping atomic.Bool
}

// stop lets reading end at the deadline.
func (s *stream) stop(deadline time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping.Store(true)
	_ = s.from.SetReadDeadline(deadline) // fails only on a closed pipe
}

// setDeadline interrupts reading at t, unless it is going to stop.
func (s *stream) setDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping.Load() {
		_ = s.from.SetReadDeadline(t) // fails only on a closed pipe
	}
}

// openOutput opens the two FIFOs, and gives the first three descriptors of the
// process that will print into them.
func openOutput(ref tenement.Ref, s Spec) (theirs []*os.File, _ *output, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	theirs = []*os.File{null}
	out := &output{}
	undo := cleanup{func() { closeAll(theirs) }, out.close}
	defer undo.unless(&err)
	for _, end := range []struct {
		path string
		to   Sink
	}{{ref.Stdout, s.Stdout}, {ref.Stderr, s.Stderr}} {
		if end.to == nil {
			end.to = nowhere{}
		}
		file, stream, err := openStream(end.path, end.to)
		if err != nil {
			return nil, nil, err
		}
		theirs = append(theirs, file)
		out.streams = append(out.streams, stream)
	}
	return theirs, out, nil
}

func (o *output) start() {
	for _, s := range o.streams {
		o.done.Go(func() { s.copy(&o.detached) })
	}
}

// lastWords is how long output may go on after the tree is gone. It ends at once,
// with the last writer, unless a descriptor was handed to a stranger.
const lastWords = 100 * time.Millisecond

func (o *output) close() { o.stop(time.Now().Add(lastWords)) }

// detach leaves what was not taken yet to whoever opens the FIFOs next.
func (o *output) detach() {
	o.detached.Store(true)
	o.stop(time.Now())
}

func (o *output) stop(deadline time.Time) {
	for _, s := range o.streams {
		s.stop(deadline)
	}
	o.done.Wait()
	for _, s := range o.streams {
		_ = s.from.Close() // read ends: nothing to lose
	}
}

// firstRead is how much is read at once until a line is longer, in bytes.
const firstRead = 4 << 10

// copyAll offers everything that can be read, and keeps what is not taken in memory.
func copyAll(from io.Reader, to Sink) {
	buf := make([]byte, firstRead)
	held := 0
	for {
		n, err := from.Read(buf[held:])
		held += n
		taken := 0
		to.Take(buf[:held], held >= firstRead, err != nil, func(n int) { taken = n })
		held = copy(buf, buf[taken:held])
		switch {
		case err != nil:
			return
		case held == len(buf):
			buf = append(buf, make([]byte, min(len(buf), MaxOffer-len(buf)))...)
		case held == 0 && len(buf) > firstRead:
			buf = make([]byte, firstRead) // an idle instance keeps no more
		}
	}
}

// nowhere is the Sink of a Spec that has none.
type nowhere struct{}

func (nowhere) Take(offer []byte, _, _ bool, remove func(int)) { remove(len(offer)) }

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // duplicates that the child has its own of
	}
}

// outputDir is the directory of the FIFOs that processes print into. Its methods may
// be called concurrently.
type outputDir struct {
	path string

	mu   sync.Mutex
	used map[string]bool // the paths that belong to a process of ours
}

func openOutputDir(path string) (*outputDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.MkdirAll(path, 0o700), os.Chmod(path, 0o700)); err != nil {
		return nil, fmt.Errorf("make the directory of tenants' output: %w", err)
	}
	return &outputDir{path: path, used: make(map[string]bool)}, nil
}

// claim makes the FIFOs of ref safe from sweep.
func (d *outputDir) claim(ref tenement.Ref) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.used[ref.Stdout], d.used[ref.Stderr] = true, true
}

// remove deletes the FIFOs of ref; that they are gone already is no error.
func (d *outputDir) remove(ref tenement.Ref) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	for _, path := range []string{ref.Stdout, ref.Stderr} {
		delete(d.used, path)
		if path != "" {
			err = errors.Join(err, ignoreMissing(os.Remove(path)))
		}
	}
	return err
}

// sweep deletes every FIFO that was not claimed.
func (d *outputDir) sweep() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	entries, err := os.ReadDir(d.path)
	for _, entry := range entries {
		if path := filepath.Join(d.path, entry.Name()); !d.used[path] {
			err = errors.Join(err, ignoreMissing(os.Remove(path)))
		}
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
