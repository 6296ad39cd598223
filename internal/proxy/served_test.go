package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"tenement"
)

// witness keeps what a front tells of requests.
type witness struct {
	mu   sync.Mutex
	seen []counted
}

// counted is a [Served] without what differs from run to run.
type counted struct {
	words   Words
	id      tenement.InstanceID
	reached bool
	status  int
	in, out int64
}

func (v *witness) note(s Served) {
	v.mu.Lock()
	defer v.mu.Unlock()
	words := s.Words()
	if s.Begun.IsZero() || s.Took <= 0 || words.Client != "127.0.0.1" {
		v.seen = append(v.seen, counted{})
	}
	words.Client = ""
	v.seen = append(v.seen, counted{words, s.ID, s.Reached, s.Status, s.BytesIn, s.BytesOut})
}

// wants the one request that there was to be told of like this.
func (v *witness) wants(t *testing.T, want counted) {
	t.Helper()
	eventually(t, "the request is told of", func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return len(v.seen) > 0
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.seen) != 1 || v.seen[0] != want {
		t.Errorf("told of %+v, want %+v", v.seen, want)
	}
}

// TestServedOnBothWays: it makes no difference to who counts whether net/http has answered.
func TestServedOnBothWays(t *testing.T) {
	t.Parallel()
	answer := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/chunks":
			for range 3 {
				_, _ = io.WriteString(w, "piece")
				_ = http.NewResponseController(w).Flush()
			}
		case "/long":
			_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, "hello")
		}
	}
	for name, c := range map[string]struct {
		method, path string
		status       int
		out          int64
	}{
		"known length": {"GET", "/page?q=1", 418, 5},
		"long":         {"GET", "/long", 200, 100_000},
		"chunks":       {"GET", "/chunks", 200, 15},
		"head":         {"HEAD", "/page", 418, 0},
		"nothing":      {"DELETE", "/none", 204, 0},
	} {
		for way, edit := range map[string]func(*Config){
			"direct":   func(*Config) {},
			"net/http": func(c *Config) { c.Ready = nil },
		} {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				var v witness
				f := newFront(t, []*life{newTenant(t, answer)}, func(_ *world, c *Config) { edit(c); c.Served = v.note })
				r := f.request(t, c.method, c.path, nil)
				r.Header.Set("User-Agent", "tester/1")
				f.do(t, r)
				v.wants(t, counted{Words{Method: c.method, Host: aliceHost, Target: c.path, Proto: "HTTP/1.1", Agent: "tester/1"}, alice, true, c.status, 0, c.out})
			})
		}
	}
}

// TestServedBehindATrustedProxy: the client is who that names.
func TestServedBehindATrustedProxy(t *testing.T) {
	t.Parallel()
	tenant := newTenant(t, func(http.ResponseWriter, *http.Request) {})
	for _, method := range []string{http.MethodGet, http.MethodPut} { // directly, and not
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			clients := make(chan string, 1)
			f := newFront(t, []*life{tenant}, func(_ *world, c *Config) {
				c.TrustedProxies = func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }
				c.Served = func(s Served) { clients <- s.Words().Client }
			})
			r := f.request(t, method, "/", nil)
			r.Header.Set("X-Forwarded-For", "192.0.2.1, 198.51.100.7")
			f.do(t, r)
			if client := wait(t, "the request is told of", clients); client != "198.51.100.7" {
				t.Errorf("the client is %s", client)
			}
		})
	}
}

func TestServedWithABody(t *testing.T) {
	t.Parallel()
	var v witness
	tenant := newTenant(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	f := newFront(t, []*life{tenant}, func(_ *world, c *Config) { c.Served = v.note })
	r := f.request(t, http.MethodPost, "/", strings.NewReader("12345"))
	r.Header.Set("User-Agent", "")
	f.do(t, r)
	v.wants(t, counted{Words{Method: "POST", Host: aliceHost, Target: "/", Proto: "HTTP/1.1"}, alice, true, 200, 5, 5})
}

func TestServedOfWhatIsRefused(t *testing.T) {
	t.Parallel()
	full := &tenement.Error{Code: tenement.CodeFull, Op: "wake"}
	for name, c := range map[string]struct {
		host string
		id   tenement.InstanceID
		want int
	}{
		"nobody's host": {"nobody.example.com", tenement.InstanceID{}, 404},
		"full":          {aliceHost, alice, 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var v witness
			f := newFront(t, nil, func(w *world, c *Config) { w.err = full; c.Served = v.note })
			r := f.request(t, http.MethodGet, "/", nil)
			r.Host = c.host
			r.Header.Set("User-Agent", "")
			_, body := f.do(t, r)
			out := int64(len(body))
			if c.id.IsZero() {
				out = 0 // nothing is counted of what is no instance's
			}
			v.wants(t, counted{Words{Method: "GET", Host: c.host, Target: "/", Proto: "HTTP/1.1"}, c.id, false, c.want, 0, out})
		})
	}
}

// TestServedWhenNobodyAnswers: the process falls silent, on either way.
func TestServedWhenNobodyAnswers(t *testing.T) {
	t.Parallel()
	tenant := newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		_, _ = io.Copy(io.Discard, c)
	})
	for way, edit := range map[string]func(*Config){
		"direct":   func(*Config) {},
		"net/http": func(c *Config) { c.Ready = nil },
	} {
		t.Run(way, func(t *testing.T) {
			var v witness
			f := newFront(t, []*life{tenant}, func(w *world, c *Config) {
				w.service.Timeouts.Request = 50 * time.Millisecond
				edit(c)
				c.Served = v.note
			})
			r := f.request(t, http.MethodGet, "/", nil)
			r.Header.Set("User-Agent", "")
			_, body := f.do(t, r)
			v.wants(t, counted{Words{Method: "GET", Host: aliceHost, Target: "/", Proto: "HTTP/1.1"}, alice, true, 504, 0, int64(len(body))})
		})
	}
}

// TestServedWhenTheClientLeaves before there is an answer.
func TestServedWhenTheClientLeaves(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	tenant := newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		asked <- struct{}{}
		_, _ = io.Copy(io.Discard, c)
	})
	for way, edit := range map[string]func(*Config){
		"direct":   func(*Config) {},
		"net/http": func(c *Config) { c.Ready = nil },
	} {
		t.Run(way, func(t *testing.T) {
			var v witness
			f := newFront(t, []*life{tenant}, func(_ *world, c *Config) { edit(c); c.Served = v.note })
			c := f.raw(t)
			c.send("GET / HTTP/1.1", "Host: "+aliceHost, "", "")
			wait(t, "the tenant is asked", asked)
			c.Conn.Close()
			v.wants(t, counted{Words{Method: "GET", Host: aliceHost, Target: "/", Proto: "HTTP/1.1"}, alice, true, statusLeft, 0, 0})
		})
	}
}

func TestServedOfAnUpgradedConnection(t *testing.T) {
	t.Parallel()
	tenant := newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(c, r)
	})
	var v witness
	f := newFront(t, []*life{tenant}, func(_ *world, c *Config) { c.Served = v.note })
	c := f.raw(t)
	c.send("GET /ws HTTP/1.1", "Host: "+aliceHost, "Connection: Upgrade", "Upgrade: echo", "", "")
	if res := c.response(http.MethodGet); res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res.Status)
	}
	c.send("12345")
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	v.mu.Lock()
	if len(v.seen) > 0 {
		t.Error("told of before its end")
	}
	v.mu.Unlock()
	c.Conn.Close()
	v.wants(t, counted{Words{Method: "GET", Host: aliceHost, Target: "/ws", Proto: "HTTP/1.1"}, alice, true, 101, 5, 5})
}

// TestServerTiming: who has waited for a wake is told what took how long, if the service says so.
func TestServerTiming(t *testing.T) {
	t.Parallel()
	record := &tenement.WakeRecord{Queue: time.Millisecond, Spawn: 2 * time.Millisecond, Ready: 30500 * time.Microsecond}
	for name, wanted := range map[string]bool{"on": true, "off": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			told := make(chan *tenement.WakeRecord, 1)
			f := newFront(t, []*life{newTenant(t, func(http.ResponseWriter, *http.Request) {})}, func(w *world, c *Config) {
				w.service.ServerTiming = wanted
				c.Ready = nil
				acquire := c.Acquire
				c.Acquire = func(ctx context.Context, id tenement.InstanceID) (tenement.Lease, error) {
					asker := tenement.AskerOf(ctx)
					if asker.Cause != tenement.CauseRequest || asker.Client != "loopback" || asker.Agent != "tester/1" || asker.Path != "/a b" {
						t.Errorf("asked by %+v", asker)
					}
					asker.Wake = record
					return acquire(ctx, id)
				}
				c.FirstByte = func(w *tenement.WakeRecord, took time.Duration) {
					if took <= 0 {
						t.Errorf("took %s", took)
					}
					told <- w
				}
			})
			r := f.request(t, http.MethodGet, "/a%20b?secret=1", nil)
			r.Header.Set("User-Agent", "tester/1")
			res, _ := f.do(t, r)
			if wait(t, "the first byte is told of", told) != record {
				t.Error("of another wake")
			}
			timing := res.Header.Get("Server-Timing")
			if wanted != strings.HasPrefix(timing, "queue;dur=1.000, spawn;dur=2.000, ready;dur=30.500, first-byte;dur=") {
				t.Errorf("Server-Timing: %s", timing)
			}
		})
	}
}

func TestTellingIsFree(t *testing.T) {
	var requests int
	h := New(Config{Lookup: nowhere, Served: func(s Served) { requests += s.Status }})
	c := &frontConn{}
	if n := testing.AllocsPerRun(100, func() { h.tell(Served{ID: alice, Status: 1, Begun: time.Now(), conn: c}) }); n != 0 || requests < 100 {
		t.Errorf("%v allocations, %d told of", n, requests)
	}
}
