package proxy

import (
	"net/http"
	"net/netip"
	"time"

	"tenement"
)

// Served is one request that has been dealt with, on whichever way. Its words are there
// during the call that it is given to.
type Served struct {
	ID                tenement.InstanceID  // zero: the host is nobody's, or no instance could be chosen
	Status            int                  // of the answer; 499: the client left before there was one
	Begun             time.Time            // its header was there
	Reached           bool                 // a process of the instance was to answer it
	Took              time.Duration        // until the end of the response, or of the upgraded connection
	BytesIn, BytesOut int64                // of the bodies, or both ways on an upgraded connection
	Wake              *tenement.WakeRecord // that it has waited for; nil: for none

	// Where the words of the request are: one of the last two.
	handler *Handler
	request *http.Request
	conn    *frontConn
}

// Words are what a request said.
type Words struct {
	Method, Host, Target, Proto, Agent string
	Client                             string // its address, by the word of trusted proxies; "" at a unix socket
}

// Words makes texts of what the request said.
func (s *Served) Words() Words {
	if c := s.conn; c != nil {
		w := Words{Method: string(c.head.method), Host: string(c.head.host), Target: string(c.head.target), Proto: "HTTP/1.1", Client: addrText(c.trueClient())}
		for _, f := range c.head.fields {
			if f.is("User-Agent") {
				w.Agent = string(f.value)
			}
		}
		return w
	}
	r := s.request
	return Words{Method: r.Method, Host: r.Host, Target: r.RequestURI, Proto: r.Proto, Agent: r.UserAgent(), Client: addrText(s.handler.trueClient(r))}
}

// trueClient is the client of r as far as trusted proxies tell; invalid at a unix socket.
func (h *Handler) trueClient(r *http.Request) netip.Addr {
	if h.config.TrustedProxies != nil {
		r = FromClient(r, h.config.TrustedProxies())
	}
	client, _ := address(r.RemoteAddr)
	return client
}

// trueClient is that of the request at hand.
func (c *frontConn) trueClient() netip.Addr {
	if len(c.head.forwarding) == 0 || !c.server.handler.trustsAddr(c.client) {
		return c.client
	}
	r := &http.Request{RemoteAddr: netip.AddrPortFrom(c.client, 0).String(), Header: make(http.Header)}
	for _, f := range c.head.forwarding {
		r.Header.Add(string(f.name), string(f.value))
	}
	return c.server.handler.trueClient(r)
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// statusLeft is nginx's status for a client that went away.
var statusLeft = tenement.CodeCanceled.HTTPStatus()

// tell reports a request to whoever counts them.
func (h *Handler) tell(s Served) {
	if h.config.Served == nil {
		return
	}
	if s.Status == 0 {
		s.Status = statusLeft
	}
	s.Took, s.handler = time.Since(s.Begun), h
	h.config.Served(s)
}

// clientClass is what is kept of an address with the record of a wake: where it is, not whose.
func clientClass(addr netip.Addr) string {
	switch {
	case !addr.IsValid(), addr.IsLoopback():
		return "loopback"
	case addr.IsPrivate(), addr.IsLinkLocalUnicast():
		return "private"
	}
	return "public"
}

// What is kept of a request in the record of a wake, in bytes.
const (
	maxAskerAgent = 200
	maxAskerPath  = 200
)

// askerOf is who may wake an instance with r, in what is kept of that.
func (h *Handler) askerOf(r *http.Request) tenement.Asker {
	agent, path := r.UserAgent(), r.URL.Path
	return tenement.Asker{
		Cause: tenement.CauseRequest, Client: clientClass(h.trueClient(r)),
		Agent: agent[:min(len(agent), maxAskerAgent)], Path: path[:min(len(path), maxAskerPath)],
	}
}
