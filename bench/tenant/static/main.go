// Command static is the tenant that proxies are measured with: a small Go server that
// costs little. Where a request names /times it also tells what it knows of its own
// start.
package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// begun is the first thing that the program itself knows, after the Go runtime has started.
var begun = time.Now()

func main() {
	listener, err := listen()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	first := &first{Listener: listener, listening: time.Now()}
	http.HandleFunc("/", body(1<<10))
	http.HandleFunc("/1m", body(1<<20))
	http.HandleFunc("/ws", echo)
	http.HandleFunc("/times", first.times)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: protocols, ReadHeaderTimeout: time.Minute}
	fmt.Fprintln(os.Stderr, server.Serve(first))
}

// listen takes the socket that is passed (sd_listen_fds(3)), or the port in PORT.
func listen() (net.Listener, error) {
	if os.Getenv("LISTEN_FDS") == "1" {
		return net.FileListener(os.NewFile(3, "passed"))
	}
	return net.Listen("tcp", net.JoinHostPort("127.0.0.1", os.Getenv("PORT")))
}

// body answers with so many bytes. They are made for the first request: a start is timed.
func body(size int) http.HandlerFunc {
	text := sync.OnceValue(func() []byte { return bytes.Repeat([]byte("x"), size) })
	length := strconv.Itoa(size)
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", length)
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(text()) // a client that has gone
	}
}

// echo sends messages back until the client goes.
func echo(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	for {
		kind, text, err := conn.Read(r.Context())
		if err != nil || conn.Write(r.Context(), kind, text) != nil {
			return
		}
	}
}

// first notes when somebody first connected.
type first struct {
	net.Listener
	listening time.Time
	accepted  atomic.Int64 // nanoseconds since 1970; 0 is not yet
}

// Accept is [net.Listener]'s.
func (f *first) Accept() (net.Conn, error) {
	conn, err := f.Listener.Accept()
	f.accepted.CompareAndSwap(0, time.Now().UnixNano())
	return conn, err
}

// times answers with four moments, in nanoseconds since 1970: the program began, it
// listened, somebody connected, this request came.
func (f *first) times(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprint(w, begun.UnixNano(), f.listening.UnixNano(), f.accepted.Load(), time.Now().UnixNano())
}
