package daemon

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tenement/internal/api"
	"tenement/internal/supervisor"
)

func TestBeatIsSilentOnceTheProofHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var proofs, beats atomic.Int32
		hang := make(chan struct{})
		prove := func() {
			if proofs.Add(1) > 3 {
				<-hang
			}
		}
		var done atomic.Bool
		go func() {
			beat(ctx, time.Second, prove, func() { beats.Add(1) })
			done.Store(true)
		}()
		for second := range int32(3) {
			synctest.Wait()
			if got := beats.Load(); got != second+1 {
				t.Errorf("%d beats after %d s", got, second)
			}
			time.Sleep(time.Second) // virtual
		}
		time.Sleep(time.Hour) // virtual
		synctest.Wait()
		if got := beats.Load(); got != 3 {
			t.Errorf("%d beats, of which %d without a proof of life", got, got-3)
		}
		close(hang) // late is not never
		synctest.Wait()
		if got := beats.Load(); got < 4 {
			t.Errorf("%d beats after a slow proof came to its end", got)
		}
		cancel()
		synctest.Wait()
		if !done.Load() {
			t.Error("it goes on after its context's end")
		}
	})
}

func TestSameAddress(t *testing.T) {
	t.Parallel()
	tests := []struct {
		configured, actual string
		want               bool
	}{
		{"127.0.0.1:8080", "127.0.0.1:8080", true},
		{"localhost:8080", "127.0.0.1:8080", true},
		{":8080", "[::]:8080", true},
		{"0.0.0.0:8080", "0.0.0.0:8080", true},
		{"127.0.0.1:8080", "127.0.0.1:8081", false},
		{"127.0.0.1:8080", "0.0.0.0:8080", false},
		{":8080", "127.0.0.1:8080", false},
		{"[::1]:8080", "127.0.0.1:8080", false},
	}
	for _, test := range tests {
		actual, err := net.ResolveTCPAddr("tcp", test.actual)
		if err != nil {
			t.Fatal(err)
		}
		if got := sameAddress(test.configured, actual); got != test.want {
			t.Errorf("sameAddress(%q, %q) = %v", test.configured, test.actual, got)
		}
	}
	if sameAddress("127.0.0.1:8080", &net.UnixAddr{Name: "/run/http", Net: "unix"}) {
		t.Error("a unix socket is taken for a port")
	}
}

// TestProofIsAnAnswer: as long as the daemon's own socket is silent there is no proof;
// even a refusal is one.
func TestProofIsAnAnswer(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "ten") //nolint:usetesting // t.TempDir's paths are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "ten.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	if err := listener.(*net.UnixListener).SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	client, err := api.NewClient(api.Target{Socket: path})
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{Options: Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil))}}
	d.tenancy.Store(&tenancy{supervisor: supervisor.New(supervisor.Config{})})
	proved := make(chan struct{})
	go func() {
		defer close(proved)
		d.prove(t.Context(), client)
	}()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 4096)); n == 0 {
		t.Fatal(err) // it asks
	}
	select {
	case <-proved:
		t.Error("it took no answer to prove that the daemon lives")
	default:
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-proved:
	case <-time.After(30 * time.Second):
		t.Error("an answer proves nothing")
	}
	_ = conn.Close()
	client.CloseIdleConnections()
}
