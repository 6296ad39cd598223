package daemon

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"tenement"
)

func TestAccessLogThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	_, err := openAccessLog(filepath.Join(t.TempDir(), "missing", "access.log"), slog.New(slog.DiscardHandler))
	if tenement.CodeOf(err) != tenement.CodeUnavailable || tenement.HintOf(err) == "" {
		t.Errorf("error %v", err)
	}
}

// fullDisk takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// TestAccessLogOnAFullDisk says so once, and keeps nothing back.
func TestAccessLogOnAFullDisk(t *testing.T) {
	t.Parallel()
	var said strings.Builder
	a := &accessLog{log: slog.New(slog.NewTextHandler(&said, nil)), to: fullDisk{}}
	for range 3 {
		a.waiting = append(a.waiting, "line\n"...)
		a.flush()
	}
	if n := strings.Count(said.String(), "access log"); n != 1 || len(a.waiting) != 0 {
		t.Errorf("said %d times, %d bytes wait", n, len(a.waiting))
	}
}
