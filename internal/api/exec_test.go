package api

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"tenement"
)

// TestExecCarriesEverything: what goes in comes out, more than fits into any buffer, and
// then the status.
func TestExecCarriesEverything(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	c := clientOverSocket(t, newTestServer(t, b))
	typed := strings.Repeat("0123456789abcdef", 100_000)
	var stdout, stderr bytes.Buffer
	status, err := c.Exec(t.Context(), alice, ExecRequest{Command: []string{"cat", "-"}}, ExecStreams{
		Stdin: strings.NewReader(typed), Stdout: &stdout, Stderr: &stderr,
	})
	if err != nil || status != 7 || stdout.String() != "cat -\n"+typed || stderr.String() != "trouble" {
		t.Errorf("status %d, %v; %d bytes and %q", status, err, stdout.Len(), stderr.String())
	}
	events := b.recorded()
	if e := events[len(events)-1]; e.Action != "exec" || e.Target != "api:alice" || e.Detail != "cat" || e.Outcome != "ok" {
		t.Errorf("audited %+v", e)
	}
}

// TestExecHearsSignalsBehindInput that the command does not take.
func TestExecHearsSignalsBehindInput(t *testing.T) {
	t.Parallel()
	c := clientOverSocket(t, newTestServer(t, newFakeBackend()))
	endless, _ := io.Pipe()
	signals := make(chan int, 1)
	signals <- 2
	status, err := c.Run(t.Context(), alice, ExecRequest{Command: []string{"cat"}}, ExecStreams{Stdin: endless, Stdout: io.Discard, Stderr: io.Discard, Signals: signals})
	if err != nil || status != 7 {
		t.Errorf("status %d, %v", status, err)
	}
}

func TestExecIsRefused(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	c := clientOverSocket(t, newTestServer(t, b))
	streams := ExecStreams{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard}
	_, err := c.Exec(t.Context(), tenement.InstanceID{Service: "api", Name: "nobody"}, ExecRequest{Command: []string{"true"}}, streams)
	if tenement.CodeOf(err) != tenement.CodeNotFound {
		t.Errorf("in nobody: %v", err)
	}
	if _, err = c.Exec(t.Context(), alice, ExecRequest{}, streams); tenement.CodeOf(err) != tenement.CodeInvalid {
		t.Errorf("nothing: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = c.Exec(ctx, alice, ExecRequest{Command: []string{"true"}}, streams); tenement.CodeOf(err) != tenement.CodeCanceled {
		t.Errorf("canceled: %v", err)
	}
}

func clientOverSocket(t *testing.T, s *Server) *Client {
	t.Helper()
	c, err := NewClient(Target{Socket: overSocket(t, s, -1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// TestExecReadsNothingOften: a reader may have nothing and yet not be at its end (io.Reader),
// as a pipe to which nothing is written.
func TestExecReadsNothingOften(t *testing.T) {
	t.Parallel()
	c := clientOverSocket(t, newTestServer(t, newFakeBackend()))
	in, out := io.Pipe()
	go func() {
		for range 10 * maxAhead {
			_, _ = out.Write(nil)
		}
		_, _ = out.Write([]byte("typed"))
		_ = out.Close()
	}()
	var printed strings.Builder
	status, err := c.Exec(t.Context(), alice, ExecRequest{Command: []string{"cat"}}, ExecStreams{Stdin: in, Stdout: &printed, Stderr: io.Discard})
	if status != 7 || err != nil || printed.String() != "cat\ntyped" {
		t.Errorf("%d %v %q", status, err, printed.String())
	}
}
