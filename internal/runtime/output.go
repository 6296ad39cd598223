package runtime

import (
	"os"
	"sync"
	"time"
)

// output carries what a process prints to the sinks of its Spec.
type output struct {
	pipes []pipe
	done  sync.WaitGroup
}

type pipe struct {
	from *os.File
	to   Sink
}

// openOutput gives the child's first three descriptors and our ends of the pipes.
func openOutput(stdout, stderr Sink) (child []*os.File, _ *output, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	child = []*os.File{null}
	out := &output{}
	for _, to := range []Sink{stdout, stderr} {
		ours, theirs, err := os.Pipe()
		if err != nil {
			closeAll(child)
			out.close()
			return nil, nil, err
		}
		child = append(child, theirs)
		out.pipes = append(out.pipes, pipe{ours, to})
	}
	return child, out, nil
}

func (o *output) start() {
	for _, p := range o.pipes {
		o.done.Go(p.copy)
	}
}

// copy begins with a small buffer: there are two of them per awake instance.
func (p pipe) copy() {
	buf := make([]byte, 4<<10)
	held := 0
	for {
		n, err := p.from.Read(buf[held:])
		held += n
		taken := p.to.Take(buf[:held], err != nil)
		held = copy(buf, buf[taken:held])
		if err != nil {
			return
		}
		if held == len(buf) {
			buf = append(buf, make([]byte, min(len(buf), MaxOffer-len(buf)))...)
		}
	}
}

// lastWords is how long output may go on after the tree is gone. It ends at once,
// with the last writer, unless a descriptor was handed to a stranger.
const lastWords = 100 * time.Millisecond

func (o *output) close() {
	for _, p := range o.pipes {
		_ = p.from.SetReadDeadline(time.Now().Add(lastWords)) // fails only on a closed pipe
	}
	o.done.Wait()
	for _, p := range o.pipes {
		_ = p.from.Close() // read ends: nothing to lose
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // duplicates that the child has its own of
	}
}
