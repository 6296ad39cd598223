package load

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const briefly = 200 * time.Millisecond

// world is a server that counts, and answers by path.
type world struct {
	target       Target
	requests     atomic.Int64
	conns, meter atomic.Int64
	hosts        sync.Map
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s := httptest.NewUnstartedServer(w)
	s.Config.Protocols = protocols
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			w.conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	w.target = Target{
		Address: s.Listener.Addr().String(), Hosts: []string{"a", "b", "c"}, Path: "/",
		Meter: func() time.Duration { return time.Duration(w.meter.Add(1)) * time.Second },
	}
	return w
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.requests.Add(1)
	w.hosts.Store(r.Host, true)
	switch r.URL.Path {
	case "/":
		_, _ = io.WriteString(rw, "hello")
	case "/large":
		rw.Header().Set("Content-Length", "1000000")
		_, _ = rw.Write(make([]byte, 1_000_000))
	case "/chunks":
		rw.(http.Flusher).Flush()
		_, _ = io.WriteString(rw, "hello")
	case "/ws":
		echo(rw)
	default:
		http.NotFound(rw, r)
	}
}

// echo sends the payload of frames such as [Messages] sends back without a mask.
func echo(rw http.ResponseWriter) {
	conn, buffered, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	frame := make([]byte, len(message))
	for r := bufio.NewReader(buffered); ; {
		if _, err := io.ReadFull(r, frame); err != nil {
			return
		}
		if _, err := conn.Write(append([]byte{0x81, messageSize}, frame[6:]...)); err != nil {
			return
		}
	}
}

// sound wants answers and no failure, each host asked, and the server's meter read twice.
func (w *world) sound(t *testing.T, r *Result) {
	t.Helper()
	if err := r.Err(); err != nil || r.Answers == 0 || r.Took <= 0 || r.Rate() <= 0 {
		t.Errorf("%d answers in %v, %v", r.Answers, r.Took, err)
	}
	if int64(r.Answers) > w.requests.Load() {
		t.Errorf("%d answers to %d requests", r.Answers, w.requests.Load())
	}
	if r.CPU != time.Second {
		t.Errorf("the meter ran for %v", r.CPU)
	}
	if p50, p99 := r.Quantile(0.5), r.Quantile(0.99); p50 <= 0 || p99 < p50 {
		t.Errorf("p50 %v, p99 %v", p50, p99)
	}
	for _, host := range w.target.Hosts {
		if _, asked := w.hosts.Load(host); !asked {
			t.Errorf("%s was not asked for", host)
		}
	}
}

func TestKeptConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sound(t, Saturate(t.Context(), w.target, 4, briefly, true))
	if n := w.conns.Load(); n != 4 {
		t.Errorf("%d connections", n)
	}
}

func TestNewConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sound(t, Saturate(t.Context(), w.target, 4, briefly, false))
	if conns, requests := w.conns.Load(), w.requests.Load(); conns != requests {
		t.Errorf("%d connections for %d requests", conns, requests)
	}
}

func TestH2C(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sound(t, SaturateH2C(t.Context(), w.target, 2, 3, briefly))
	if n := w.conns.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target.Path = "/ws"
	r := Messages(t.Context(), w.target, 3, briefly)
	if err := r.Err(); err != nil || r.Answers <= 3 || w.requests.Load() != 3 {
		t.Errorf("%d messages over %d sockets, %v", r.Answers, w.requests.Load(), err)
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := AtRate(t.Context(), w.target, 100, 50*time.Millisecond, briefly)
	w.sound(t, r)
	if n := w.requests.Load(); n > 25 { // fewer where the machine stands still at the end
		t.Errorf("%d requests", n)
	}
}

// TestFailuresAreCounted: neither another status nor an answer whose end cannot be known
// passes for one, and who is only refused gives up.
func TestFailuresAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for path, says := range map[string]string{"/none": "404", "/chunks": "without a length"} {
		w.target.Path = path
		r := Saturate(t.Context(), w.target, 1, time.Hour, true)
		if r.Failed != maxFailures || r.Answers != 0 || !strings.Contains(r.Err().Error(), says) {
			t.Errorf("%s: %d failed, %d answers, %v", path, r.Failed, r.Answers, r.Err())
		}
	}
	w.target.Path = "/none"
	if r := AtRate(t.Context(), w.target, 100, 0, briefly); r.Failed == 0 || r.Failed > 20 || r.Answers != 0 {
		t.Errorf("at a rate: %d failed, %d answers", r.Failed, r.Answers)
	}
	if r := Messages(t.Context(), w.target, 1, time.Hour); r.Failed != maxFailures {
		t.Errorf("messages: %d failed", r.Failed)
	}
}

// TestLargeAnswers: the next answer on the connection begins where one ends.
func TestLargeAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := Conn{Address: w.target.Address}
	defer c.Close()
	for _, path := range []string{"/large", "/", "/large", "/"} {
		if err := c.Exchange(t.Context(), Request("a", path)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if n := w.conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestFirstAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, err := FirstAnswer(t.Context(), w.target.Address, "a", "/", time.Now().Add(-time.Hour))
	if err != nil || first.Body != "hello" || first.Took < time.Hour {
		t.Errorf("%+v, %v", first, err)
	}
}
