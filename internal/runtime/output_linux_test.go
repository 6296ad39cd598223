package runtime

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"tenement"
)

// recorder is a Sink that takes as much of each offer as take says, all of the last.
type recorder struct {
	take func(offer []byte) int

	mu     sync.Mutex
	offers []int // their lengths
	urgent int   // how many of them were pressing
	taken  strings.Builder
	ended  bool
}

func (r *recorder) Take(offer []byte, pressing, last bool, remove func(int)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.offers = append(r.offers, len(offer))
	if pressing {
		r.urgent++
	}
	n := len(offer)
	if !last {
		n = r.take(offer)
	}
	r.taken.Write(offer[:n])
	r.ended = last
	remove(n)
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.offers)
}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.taken.String()
}

func lines(offer []byte) int {
	if n := bytes.LastIndexByte(offer, '\n') + 1; n > 0 || len(offer) < MaxOffer {
		return n
	}
	return len(offer)
}

// newOutput gives the tenant's end of a FIFO of which to gets the output.
func newOutput(t testing.TB, to Sink) (*outputDir, tenement.Ref, *os.File, *output) {
	t.Helper()
	dir, err := openOutputDir(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := dir.create(tenement.InstanceID{Service: "api", Name: "alice"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs, out := reopen(t, ref, to)
	return dir, ref, theirs, out
}

func reopen(t testing.TB, ref tenement.Ref, to Sink) (*os.File, *output) {
	t.Helper()
	theirs, out, err := openOutput(ref, Spec{Stdout: to})
	if err != nil {
		t.Fatal(err)
	}
	closeAll([]*os.File{theirs[0], theirs[2]})
	if !out.streams[0].staged {
		t.Fatal("the FIFO is too small: run as root, or with fewer pipes")
	}
	out.start()
	return theirs[1], out
}

func write(t testing.TB, to *os.File, text string) {
	t.Helper()
	if _, err := to.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// TestCrowdedFIFOIsPressing: only of what soon has no more room is the sink told so.
func TestCrowdedFIFOIsPressing(t *testing.T) {
	t.Parallel()
	sink := &recorder{take: lines}
	_, _, tenant, out := newOutput(t, sink)
	for n, test := range []struct {
		written string
		urgent  int
	}{
		{strings.Repeat("a line\n", firstRead/7), 0},
		{strings.Repeat("a line\n", firstRead), 0},
		{strings.Repeat("a line\n", crowded/7+1), 1}, // in one call, so that all of it is there at once
	} {
		write(t, tenant, test.written)
		eventually(t, "offer", func() bool { return sink.count() == n+1 })
		if sink.urgent != test.urgent {
			t.Errorf("%d bytes: %d offers of all were pressing, want %d", len(test.written), sink.urgent, test.urgent)
		}
	}
	closeAll([]*os.File{tenant})
	out.close()
}

// TestUnstagedOutputIsPressing: where nothing waits in a FIFO, a read that leaves no room
// has more behind it.
func TestUnstagedOutputIsPressing(t *testing.T) {
	t.Parallel()
	sink := &recorder{take: lines}
	copyAll(strings.NewReader(strings.Repeat("a line\n", firstRead/7)), sink)
	if sink.urgent != 0 {
		t.Errorf("%d of the offers %v were pressing", sink.urgent, sink.offers)
	}
	copyAll(strings.NewReader(strings.Repeat("a line\n", firstRead)), sink)
	if sink.urgent < 6 {
		t.Errorf("%d of the offers %v were pressing", sink.urgent, sink.offers)
	}
}

func TestAnUnfinishedLineIsOfferedOncePerWrite(t *testing.T) {
	t.Parallel()
	sink := &recorder{take: lines}
	_, _, tenant, out := newOutput(t, sink)
	const parts = 20
	for n := range parts {
		write(t, tenant, "part ")
		eventually(t, "offer of what was written", func() bool { return sink.count() == n+1 })
	}
	if sink.count() != parts {
		t.Errorf("%d offers of %d parts", sink.count(), parts)
	}
	write(t, tenant, "end\nrest")
	eventually(t, "line", func() bool { return sink.text() == strings.Repeat("part ", parts)+"end\n" })
	closeAll([]*os.File{tenant})
	out.close()
	if got := sink.count(); got > parts+3 { // the line, perhaps its rest alone, and the last
		t.Errorf("%d offers, the last of them of %v bytes", got, sink.offers[parts:])
	}
	if want := strings.Repeat("part ", parts) + "end\nrest"; sink.text() != want || !sink.ended {
		t.Errorf("got %q, ended: %v", sink.text(), sink.ended)
	}
}

func TestAnUnfinishedLineDoesNotSpin(t *testing.T) {
	t.Parallel()
	sink := &recorder{take: lines}
	_, _, tenant, out := newOutput(t, sink)
	write(t, tenant, "unfinished")
	eventually(t, "offer", func() bool { return sink.count() == 1 })
	// Another stream goes through its whole life meanwhile.
	other := &recorder{take: lines}
	_, _, busy, otherOut := newOutput(t, other)
	for range 1000 {
		write(t, busy, strings.Repeat("x", 1000)+"\n")
	}
	closeAll([]*os.File{busy})
	otherOut.close()
	if sink.count() != 1 {
		t.Errorf("%d offers of one write", sink.count())
	}
	closeAll([]*os.File{tenant})
	out.close()
	if sink.text() != "unfinished" {
		t.Errorf("got %q", sink.text())
	}
}

// One write that fills the FIFO wakes no reader while there is something in it.
func TestAWriteThatFillsTheFIFOAfterAnUnfinishedLine(t *testing.T) {
	t.Parallel()
	sink := &recorder{take: lines}
	_, _, tenant, out := newOutput(t, sink)
	write(t, tenant, "unfinished")
	eventually(t, "offer", func() bool { return sink.count() == 1 })
	text := strings.Repeat(strings.Repeat("w", 99)+"\n", 30_000)
	write(t, tenant, text)
	closeAll([]*os.File{tenant})
	out.close()
	if sink.text() != "unfinished"+text {
		t.Errorf("got %d bytes of %d", len(sink.text()), len(text)+10)
	}
}

func TestEveryByteArrivesWhateverIsTaken(t *testing.T) {
	t.Parallel()
	var want strings.Builder
	for n := range 1000 {
		fmt.Fprintf(&want, "%d %s\n", n, strings.Repeat("z", n%997))
	}
	long := strings.Repeat("no newline ", 40_000) // more than a FIFO holds
	for name, take := range map[string]func([]byte) int{
		"all":           func(offer []byte) int { return len(offer) },
		"whole lines":   lines,
		"a line":        func(offer []byte) int { return min(lines(offer), max(1, bytes.IndexByte(offer, '\n')+1)) },
		"a byte at 64K": func(offer []byte) int { return len(offer) / MaxOffer },
		"half":          func(offer []byte) int { return (len(offer) + 1) / 2 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := want.String() + long
			if name == "a line" {
				text = want.String()
			}
			if name == "a byte at 64K" {
				text = text[:MaxOffer+500] // one offer per byte
			}
			sink := &recorder{take: take}
			_, _, tenant, out := newOutput(t, sink)
			write(t, tenant, text)
			closeAll([]*os.File{tenant})
			out.close()
			if got := sink.text(); got != text || !sink.ended {
				t.Errorf("%d of %d bytes, ended: %v", len(got), len(text), sink.ended)
			}
			if longest := slices.Max(sink.offers); longest > MaxOffer {
				t.Errorf("an offer of %d bytes", longest)
			}
		})
	}
}

func TestAStrangersDescriptorDoesNotHoldTheEndUp(t *testing.T) {
	t.Parallel()
	sink := &recorder{take: lines}
	_, _, tenant, out := newOutput(t, sink)
	defer closeAll([]*os.File{tenant})
	write(t, tenant, "a line\nand words that never end")
	out.close()
	if sink.text() != "a line\nand words that never end" || !sink.ended {
		t.Errorf("got %q, ended: %v", sink.text(), sink.ended)
	}
}

func TestDetachLeavesTheRest(t *testing.T) {
	t.Parallel()
	first, second := &recorder{take: lines}, &recorder{take: lines}
	_, ref, tenant, out := newOutput(t, first)
	write(t, tenant, "one\ntwo, ")
	eventually(t, "offer", func() bool { return first.text() == "one\n" })
	out.detach()
	if first.ended {
		t.Error("the first had its last offer")
	}
	write(t, tenant, "three\n")
	theirs, out := reopen(t, ref, second)
	closeAll([]*os.File{tenant, theirs})
	out.close()
	if first.text()+second.text() != "one\ntwo, three\n" {
		t.Errorf("%q and %q", first.text(), second.text())
	}
}

func TestSweepSparesWhatIsUsed(t *testing.T) {
	t.Parallel()
	h, err := NewHost(filepath.Join(t.TempDir(), "output"), nil, nil, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	used, err := h.outputs.create(tenement.InstanceID{Service: "api", Name: "alice"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	before, err := openOutputDir(h.outputs.path) // the same directory, in an earlier life
	if err != nil {
		t.Fatal(err)
	}
	if _, err := before.create(tenement.InstanceID{Service: "api", Name: "alice"}, 0); err != nil {
		t.Fatal(err)
	}
	if err := h.Sweep(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(h.outputs.path)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 || entries[0].Name() != filepath.Base(used.Stderr) || entries[1].Name() != filepath.Base(used.Stdout) {
		t.Errorf("left: %v, want the FIFOs of %+v", entries, used)
	}
	if err := h.outputs.remove(used); err != nil {
		t.Fatal(err)
	}
	if err := h.outputs.remove(used); err != nil {
		t.Errorf("again: %v", err)
	}
	if entries, err := os.ReadDir(h.outputs.path); len(entries) != 0 || err != nil {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// BenchmarkOutput carries lines from a tenant's end to a sink that takes whole lines:
// staged, as FIFOs are read, beside plain reads.
func BenchmarkOutput(b *testing.B) {
	for _, write := range []int{100, 32 << 10} {
		for _, staged := range []bool{true, false} {
			b.Run(fmt.Sprintf("write=%d/staged=%v", write, staged), func(b *testing.B) { benchmarkOutput(b, write, staged) })
		}
	}
}

func benchmarkOutput(b *testing.B, size int, staged bool) {
	text := []byte(strings.Repeat(strings.Repeat("x", 99)+"\n", max(1, size/100)))
	dir, err := openOutputDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	ref, err := dir.create(tenement.InstanceID{Service: "api", Name: "alice"}, 0)
	if err != nil {
		b.Fatal(err)
	}
	theirs, out, err := openOutput(ref, Spec{Stdout: wholeLines{}})
	if err != nil {
		b.Fatal(err)
	}
	out.streams[0].staged = staged
	out.start()
	b.SetBytes(int64(len(text)))
	before := cpuTime(b)
	for b.Loop() {
		if _, err := theirs[1].Write(text); err != nil {
			b.Fatal(err)
		}
	}
	closeAll(theirs)
	out.close()
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
}

type wholeLines struct{}

func (wholeLines) Take(offer []byte, _, last bool, remove func(int)) {
	if last {
		remove(len(offer))
		return
	}
	remove(bytes.LastIndexByte(offer, '\n') + 1)
}
