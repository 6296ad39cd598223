package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"tenement"
)

func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newTenant(t, echoWebSocket)}, func(_ *world, c *Config) { c.ClientStall = 50 * time.Millisecond })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://"+aliceHost, &websocket.DialOptions{HTTPClient: f.client})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for _, message := range []string{"one", strings.Repeat("x", 30000)} {
		<-time.After(100 * time.Millisecond) // quiet for longer than a client may stall
		if err := c.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != message {
			t.Fatalf("%q %v", got, err)
		}
		if _, held := f.counts(); held != 1 {
			t.Errorf("%d leases held", held)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	eventually(t, "lease released", func() bool { _, held := f.counts(); return held == 0 })
}

// newShouter is a tenant with a protocol of its own: it shouts back what it hears,
// and ends its half when the client has ended its own.
func newShouter(t *testing.T) *life {
	return newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, err := readHead(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: shout/2\r\n\r\nhello ")
		heard, _ := io.ReadAll(r)
		_, _ = io.WriteString(c, strings.ToUpper(string(heard)))
	})
}

// upgrade asks for a protocol and sends early bytes in the same packet.
func (f *front) upgrade(t testing.TB, protocol, early string) (*conn, *http.Response) {
	c := f.raw(t)
	c.send("GET / HTTP/1.1", "Host: "+aliceHost, "Connection: Upgrade", "Upgrade: "+protocol, "", early)
	return c, c.response(http.MethodGet)
}

// What the client sends together with its request, and what the tenant sends
// together with its consent, arrive. Either side may end its half first.
func TestUpgradeEarlyBytesAndHalfClose(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newShouter(t)}, nil)
	for _, protocol := range []string{"shout/2", "shout/3, Shout/2, shout/1"} {
		c, res := f.upgrade(t, protocol, "early ")
		if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Upgrade") != "shout/2" {
			t.Fatalf("%s: %s %v", protocol, res.Status, res.Header)
		}
		c.send("and late")
		if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c.Reader); err != nil || string(got) != "hello EARLY AND LATE" {
			t.Errorf("%s: %q %v", protocol, got, err)
		}
	}
	eventually(t, "leases released", func() bool { _, held := f.counts(); return held == 0 })
}

// The bytes may be more than the server's buffer holds.
func TestUpgradeManyEarlyBytes(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newShouter(t)}, nil)
	early := strings.Repeat("x", 100_000)
	c, _ := f.upgrade(t, "shout/2", early)
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(c.Reader); err != nil || string(got) != "hello "+strings.ToUpper(early) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// A side that was told of the end and stays silent does not hold the lease forever.
func TestUpgradeAbandoned(t *testing.T) {
	t.Parallel()
	const consent = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
	tests := map[string]struct {
		tenant func(t *testing.T, c net.Conn)
		client func(c *net.TCPConn)
	}{
		"by the client": {
			func(t *testing.T, c net.Conn) { _, _ = io.Copy(io.Discard, c); <-t.Context().Done() },
			func(c *net.TCPConn) { _ = c.CloseWrite() },
		},
		"by the tenant": {
			func(_ *testing.T, c net.Conn) { _ = c.(*net.TCPConn).CloseWrite(); _, _ = io.Copy(io.Discard, c) },
			func(*net.TCPConn) {},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t, []*life{newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
				_, _ = readHead(r)
				_, _ = io.WriteString(c, consent)
				tt.tenant(t, c)
			})}, func(_ *world, c *Config) { c.ClientStall = 100 * time.Millisecond })
			c, _ := f.upgrade(t, "x", "")
			tt.client(c.Conn.(*net.TCPConn))
			eventually(t, "lease released", func() bool { _, held := f.counts(); return held == 0 })
		})
	}
}

// A tenant that dies ends its upgraded connections.
func TestUpgradeTenantDies(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		_, _ = r.ReadByte()
		_ = c.(*net.TCPConn).SetLinger(0) // reset
	})}, nil)
	c, _ := f.upgrade(t, "x", "")
	c.send("!")
	_, _ = io.Copy(io.Discard, c.Reader)
	eventually(t, "lease released", func() bool { _, held := f.counts(); return held == 0 })
}

// A tenant that refuses, or answers with a protocol nobody asked for.
func TestUpgradeRefused(t *testing.T) {
	t.Parallel()
	for answer, status := range map[string]int{
		"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n":                                                   403,
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n":                     502,
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: \x01\r\nContent-Length: 0\r\n\r\n": 502,
	} {
		left := make(chan struct{})
		f := newFront(t, []*life{newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
			_, _ = readHead(r)
			_, _ = io.WriteString(c, answer)
			_, _ = io.Copy(io.Discard, r)
			close(left)
		})}, nil)
		if _, res := f.upgrade(t, "x", ""); res.StatusCode != status {
			t.Errorf("%q: %s", answer, res.Status)
		}
		wait(t, "connection to the tenant closed", left)
	}
}

// An upgrade goes through a wake and, before it is agreed on, to a second process.
func TestUpgradeIsRetried(t *testing.T) {
	t.Parallel()
	dying, requests := newDying(t, "")
	f := newFront(t, []*life{dying, newShouter(t)}, nil)
	c, res := f.upgrade(t, "shout/2", "x")
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(c.Reader); err != nil || string(got) != "hello X" || requests.Load() != 1 {
		t.Errorf("%s %q %v", res.Status, got, err)
	}
}

// HTTP/2 has no upgrade; a tenant that switches all the same has broken off.
func TestUnaskedSwitch(t *testing.T) {
	t.Parallel()
	f := newFront(t, []*life{newRawTenant(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, r)
	})}, nil)
	clients(t, f, func(t *testing.T, c *http.Client) {
		res, err := c.Do(f.request(t, http.MethodGet, "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusBadGateway {
			t.Error(res.Status)
		}
	})
}

var _ tenement.Lease = (*fakeLease)(nil)
