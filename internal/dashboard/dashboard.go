// Package dashboard shows the management API's answers as pages, and lets browsers in.
package dashboard

import (
	"html/template"
	"net/http"

	"tenement/internal/api"
)

// Handler is the whole admin host: the pages, the way in, and everything else that the
// API answers. It keeps in memory who is logged in. It may be used concurrently.
type Handler struct {
	api      http.Handler
	sessions sessions
	login    *template.Template
	policy   string // Content-Security-Policy
	front    http.Handler
}

// New makes the handler around the management API; it panics when the embedded files are
// not as they must be.
func New(management http.Handler) *Handler {
	files := readFiles()
	index := files["index.html"]
	h := &Handler{
		api:    management,
		login:  template.Must(template.New("login").Parse(string(files["login.html"].content))),
		policy: policy(index.content),
	}
	mux := http.NewServeMux()
	for _, page := range []string{"/{$}", "/instances/{instance}", "/wakes", "/logs", "/events", "/usage", "/tokens", "/box"} {
		mux.Handle("GET "+page, index)
	}
	for name, f := range files {
		if f.kind != types[".html"] {
			mux.Handle("GET /assets/"+name, f)
		}
	}
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		h.showLogin(w, http.StatusOK, loginPage{Next: r.URL.Query().Get("next")})
	})
	mux.Handle("POST /login", ownOrigin(h.logIn))
	mux.Handle("POST /logout", ownOrigin(h.logOut))
	mux.HandleFunc("/", h.serveAPI)
	h.front = mux
	return h
}

// ownOrigin refuses what another site's page makes a browser send.
func ownOrigin(next http.HandlerFunc) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		api.Refuse(w, errOtherOrigin)
	}))
	return protection.Handler(next)
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", h.policy)
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Referrer-Policy", "same-origin") // ownPage looks at it
	header.Set("X-Content-Type-Options", "nosniff")
	h.front.ServeHTTP(w, r)
}

// serveAPI has the API answer r. The cookie of somebody who is logged in stands for their
// token there if a page of ours has sent it.
func (h *Handler) serveAPI(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") == "" && ownPage(r) {
		if token, ok := h.sessions.token(sessionOf(r)); ok {
			r = withToken(r, token)
		}
	}
	h.api.ServeHTTP(w, r)
}

// withToken is r as the bearer of a token sends it.
func withToken(r *http.Request, token string) *http.Request {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}
