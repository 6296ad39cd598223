package dashboard

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"sync"
	"time"
)

const (
	// sessionIdle is how long somebody stays logged in without asking for anything.
	sessionIdle = 12 * time.Hour

	// sessionsPerToken bounds what is kept: tokens are made by admins.
	sessionsPerToken = 20

	// A browser takes a cookie with the prefix __Host- only over HTTPS and only from this
	// very host, so that no program below the same domain can set one (RFC 6265bis §4.1.3.2).
	secureCookie = "__Host-ten_session"
	plainCookie  = "ten_session"
)

// sessions are who is logged in: by a random id, which the browser has, the token. It is in
// memory alone, so that logging out and the end of the daemon end them. Whether the token
// still counts is for the API to say, each time.
type sessions struct {
	mu   sync.Mutex
	open map[string]session
}

type session struct {
	token string
	used  time.Time // last
}

// begin makes a session for token and is its id. If the token has too many, the one that
// was not used for longest ends.
func (s *sessions) begin(token string) string {
	id, now := rand.Text(), time.Now() // 128 bits and more
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest, count := "", 0
	for other, o := range s.open {
		switch {
		case now.Sub(o.used) > sessionIdle:
			delete(s.open, other)
		case o.token == token:
			count++
			if oldest == "" || o.used.Before(s.open[oldest].used) {
				oldest = other
			}
		}
	}
	if count >= sessionsPerToken {
		delete(s.open, oldest)
	}
	if s.open == nil {
		s.open = map[string]session{}
	}
	s.open[id] = session{token, now}
	return id
}

// token is that of the session id, which is used now; false if there is none.
func (s *sessions) token(id string) (string, bool) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.open[id]
	if !ok {
		return "", false
	}
	if now.Sub(found.used) > sessionIdle {
		delete(s.open, id)
		return "", false
	}
	found.used = now
	s.open[id] = found
	return found.token, true
}

func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
}

// sessionOf is the id that r's cookie says; "" without one.
func sessionOf(r *http.Request) string {
	for _, name := range []string{secureCookie, plainCookie} {
		if c, err := r.Cookie(name); err == nil {
			return c.Value
		}
	}
	return ""
}

// newCookie is the one that says id; with the id "" it takes the browser's away.
func newCookie(id string, secure bool) *http.Cookie {
	c := &http.Cookie{
		Name: plainCookie, Value: id, Path: "/", Secure: secure,
		HttpOnly: true, SameSite: http.SameSiteStrictMode,
	}
	if secure {
		c.Name = secureCookie
	}
	if id == "" {
		c.MaxAge = -1
	}
	return c
}

// ownPage reports whether a page of r's own origin has sent it, or somebody who typed its
// address. The cookie alone does not say so: to a browser the programs of tenants, whose
// hosts are below ours, are of the same site, and SameSite holds off only other sites.
//
// Where a browser sends no Sec-Fetch-Site (it does over HTTPS and to the machine itself),
// Origin or Referer must name our host; pages of ours send one of them with every request.
func ownPage(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "":
	default:
		return false
	}
	sender := r.Header.Get("Origin")
	if sender == "" {
		sender = r.Header.Get("Referer")
	}
	u, err := url.Parse(sender)
	return err == nil && u.Host != "" && u.Host == r.Host
}
