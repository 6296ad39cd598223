package logs

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"tenement"
)

// captureArg, as its first argument, makes the test binary a daemon that does nothing
// but capture, into the directory that is its second.
const captureArg = "capture-program"

const captureStreams = 8

func captureMain() {
	if len(os.Args) < 3 || os.Args[1] != captureArg {
		return
	}
	s, err := Open(context.Background(), os.Args[2], Limits{indexStep: 4 << 10, pace: testPace}, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for n := range captureStreams {
		go capture(s, n)
	}
	select {}
}

// capture feeds a stream as a FIFO does: what was not taken is offered again, with
// more. It says on standard output how many lines were taken.
func capture(s *Store, stream int) {
	k := s.Sink(streamID(stream), Stdout)
	var held []byte
	taken := 0
	for n := 0; ; n++ {
		line := fmt.Sprintf("line %d of the stream\n", n)
		held = append(held, line[:len(line)/2]...)
		taken += offer(k, &held)
		held = append(held, line[len(line)/2:]...)
		if n%7 > 0 {
			continue // offer several at once
		}
		taken += offer(k, &held)
		fmt.Printf("%d %d\n", stream, taken)
	}
}

func offer(k *Sink, held *[]byte) (lines int) {
	n := take(k, *held, false)
	lines = strings.Count(string((*held)[:n]), "\n")
	*held = (*held)[n:]
	return lines
}

func streamID(n int) tenement.InstanceID {
	return tenement.InstanceID{Service: "api", Name: "s" + strconv.Itoa(n)}
}

// TestKill kills a process that captures, again and again: every line that was taken is
// there, in order, once.
func TestKill(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, acknowledged := range []int{1, 10, 100, 400 / slower} {
		dir := t.TempDir()
		command := exec.CommandContext(t.Context(), self, captureArg, dir)
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		taken := make([]int, captureStreams)
		scanner := bufio.NewScanner(out)
		for range acknowledged {
			if !scanner.Scan() {
				t.Fatal("it ended by itself")
			}
			note(t, taken, scanner.Text())
		}
		if err := command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for scanner.Scan() {
			note(t, taken, scanner.Text())
		}
		_ = command.Wait() // killed: an error by design
		s := openIn(t, dir, Limits{})
		for n, want := range taken {
			lines := texts(query(t, s, Query{Instance: streamID(n), Limit: 1 << 20}))
			if len(lines) < want {
				t.Errorf("stream %d: %d lines were taken, %d are there", n, want, len(lines))
			}
			for i, text := range lines {
				if text != fmt.Sprintf("line %d of the stream", i) {
					t.Fatalf("stream %d: line %d is %q", n, i, text)
				}
			}
		}
		awaitIndex(t, s)
		checkAccounts(t, s)
	}
}

func note(t *testing.T, taken []int, text string) {
	var stream, lines int
	if _, err := fmt.Sscan(text, &stream, &lines); err == nil { // the last may be half a line
		taken[stream] = max(taken[stream], lines)
	} else if strings.Count(text, " ") > 1 {
		t.Fatal(text)
	}
}
