package proxy

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestNothingFollowsARequestInChunks: with a length beside them, what follows may have
// been meant as its body by whoever passed it on (RFC 9112 §6.1).
func TestNothingFollowsARequestInChunks(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 2)
	addr := serve(t, New(Config{Lookup: nowhere}), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.URL.Path }))
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, err = io.WriteString(conn, "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 46\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: b\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	answers, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(answers), "HTTP/1.1 "); n != 1 || !strings.Contains(string(answers), "Connection: close") {
		t.Errorf("%d answers:\n%s", n, answers)
	}
	if first := <-seen; first != "/first" || len(seen) > 0 {
		t.Errorf("seen %s and %d more", first, len(seen))
	}
}
