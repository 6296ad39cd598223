package api

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"tenement"
)

// Options is what a [Server] needs.
type Options struct {
	Backend Backend
	Log     *slog.Logger
	Version string // of the daemon

	// URL is where people reach an instance, such as http://alice.api.localhost:8080;
	// nil when that is not known.
	URL func(tenement.InstanceID) string
}

// Server answers the management API. It is an http.Handler for the socket and for
// the root domain alike; connections are told apart by [WithLocalUser]. It may be
// used concurrently.
//
// Some answers take as long as the operation does, up to an hour for a deploy: the
// http.Server around it must set no WriteTimeout and no ReadTimeout, but should
// bound the headers.
type Server struct {
	backend  Backend
	log      *slog.Logger
	version  string
	url      func(tenement.InstanceID) string
	failures failures // wrong tokens
	attempts failures // in the audit log
	changes  conditional
	document []byte // the OpenAPI document
	mux      *http.ServeMux
	front    http.Handler
}

// NewServer makes a server; it panics when the route table contradicts itself.
func NewServer(o Options) *Server {
	s := &Server{backend: o.Backend, log: o.Log, version: o.Version, url: o.URL, mux: http.NewServeMux()}
	a := humago.New(s.mux, humaConfig())
	for i := range routes {
		r := &routes[i]
		op := r.operation()
		op.Middlewares = huma.Middlewares{s.guard(r)}
		r.mount(s, a, op)
	}
	document, err := json.MarshalIndent(a.OpenAPI(), "", "  ")
	if err != nil {
		panic(fmt.Errorf("write the OpenAPI document: %w", err))
	}
	s.document = append(document, '\n')
	s.front = sameOrigin(http.HandlerFunc(s.dispatch))
	return s
}

// humaConfig leaves out huma's own pages: its documentation loads scripts from
// elsewhere, and the document is served by a route of ours.
func humaConfig() huma.Config {
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "tenement", Version: "1",
				Description: "Management of the instances of a tenement daemon.",
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"bearer": {Type: "http", Scheme: "bearer", Description: "a token of ten token-gen; not needed at the local socket by root and the daemon's user"},
				},
			},
		},
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	}
}

// sameOrigin refuses what another site's page makes a browser send.
func sameOrigin(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refusal(http.StatusForbidden, "cross-origin requests are refused", "").write(w)
	}))
	return protection.Handler(next)
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	s.front.ServeHTTP(w, r)
}

// dispatch gives the mux's own refusals, 404 and 405, the form of all others.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request) {
	if _, pattern := s.mux.Handler(r); pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	probe := &statusWriter{header: http.Header{}}
	s.mux.ServeHTTP(probe, r)
	if allow := probe.header.Get("Allow"); allow != "" {
		w.Header().Set("Allow", allow)
	}
	refusal(probe.status, "there is no such route", "see /api/openapi.json").write(w)
}

// statusWriter keeps an answer's status and headers and drops its body.
type statusWriter struct {
	header http.Header
	status int
}

func (w *statusWriter) Header() http.Header         { return w.header }
func (w *statusWriter) WriteHeader(status int)      { w.status = status }
func (w *statusWriter) Write(p []byte) (int, error) { return len(p), nil }
