package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"tenement"
)

const (
	maxBody     = 1 << 20          // bytes of a request body
	bodyTimeout = 10 * time.Second // to send it

	mergePatchType = "application/merge-patch+json" // RFC 7396

	maxNoted = 500 // bytes of what is written into the audit log as it was sent

	// authenticate is what the audit log calls a wrong token on a route that changes nothing.
	authenticate = "authenticate"
)

var (
	errNoToken    = errors.New("no token was sent")
	errNoInstance = errors.New("no such instance")

	errOthersEvents = errors.New("whose events these are is not for a tenant to know")

	errInvalidCall = &tenement.Error{Code: tenement.CodeInvalid, Op: "read request", Err: errors.New("the request does not fit the route")}
)

// call is one request that was let in: who asks, and what for.
type call struct {
	actor    string // for the audit log; "" for somebody unknown
	from     string // the client's address; "" at the socket
	local    bool   // came over the socket from a user who may do everything
	scope    tenement.Scope
	id       tenement.InstanceID // in the path; zero where there is none
	action   string
	target   string
	detail   string
	recorded bool

	upgradable bool // to a connection of [execProtocol]
}

// see fails unless c may read about id.
func (c *call) see(id tenement.InstanceID) error {
	if c.scope.Sees(id) {
		return nil
	}
	return notFound(id)
}

func notFound(id tenement.InstanceID) error {
	return &tenement.Error{Code: tenement.CodeNotFound, Op: "find " + id.String(), Err: errNoInstance}
}

type callKey struct{}

// callOf is the call that the guard put into the context of every route.
func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// guard decides about every request to r before anything of it is looked at.
func (s *Server) guard(r *route) func(huma.Context, func(huma.Context)) {
	return func(hc huma.Context, next func(huma.Context)) {
		req, w := humago.Unwrap(hc)
		c, err := s.admit(req, r)
		if err == nil && hc.Operation().RequestBody != nil {
			err = readBody(w, req)
		}
		if err == nil {
			var release func()
			release, err = s.precondition(req, r, c)
			defer release()
		}
		if err != nil {
			s.record(req.Context(), c, err)
			s.problem(req.Context(), c, err).write(w)
			return
		}
		next(huma.WithValue(hc, callKey{}, c))
		// Only what huma refused has not been recorded yet.
		s.record(req.Context(), c, errInvalidCall)
	}
}

// admit finds out who sent req and whether they may use r. The call it returns is
// never nil.
func (s *Server) admit(req *http.Request, r *route) (*call, error) {
	c := &call{
		action: r.action, upgradable: req.Header.Get("Upgrade") == execProtocol, from: clientAddress(req.RemoteAddr),
		target: req.PathValue("instance") + req.PathValue("token") + req.PathValue("kind"),
	}
	err := s.identify(req, c)
	if r.access == open {
		return c, nil
	}
	if err != nil {
		if r.action == "" && req.Header.Get("Authorization") != "" {
			c.action = authenticate
		}
		return c, err
	}
	if raw := req.PathValue("instance"); raw != "" {
		if c.id, err = tenement.ParseInstanceID(raw); err != nil {
			return c, err
		}
	}
	return c, r.admits(c.scope, c.id)
}

// identify sets c's actor and scope. A token that was sent decides, also at the
// socket: whoever names a credential means it.
func (s *Server) identify(req *http.Request, c *call) error {
	uid, atSocket := localUser(req.Context())
	header := req.Header.Get("Authorization")
	switch {
	case header != "":
		return s.identifyToken(req, header, c)
	case atSocket && (uid == 0 || uid == os.Getuid()):
		c.actor, c.local, c.scope.Role = fmt.Sprintf("local:%d", uid), true, tenement.RoleAdmin
		return nil
	case atSocket:
		return unauthenticated("run it as root or as the daemon's user, or give a token with --token or TENEMENT_TOKEN")
	}
	return unauthenticated("give a token with --token or TENEMENT_TOKEN; make one on the machine itself with: ten token-gen")
}

func unauthenticated(hint string) error {
	return &tenement.Error{Code: tenement.CodeUnauthenticated, Op: "authenticate", Err: errNoToken, Hint: hint}
}

// identifyToken knows the bearer by the Authorization header. A valid token is
// never refused for what others at its address sent.
func (s *Server) identifyToken(req *http.Request, header string, c *call) error {
	t, err := s.authenticate(req.Context(), header)
	if err == nil {
		c.actor, c.scope = "token:"+t.ID, t.Scope
		return nil
	}
	if tenement.CodeOf(err) != tenement.CodeUnauthenticated {
		return err
	}
	if wait := s.failures.add(c.from, time.Now()); wait > 0 {
		p := refusal(http.StatusTooManyRequests, "too many wrong tokens from this address", tenement.HintOf(err))
		p.retryAfter = wait
		return p
	}
	return err
}

// authenticate looks a token up only when its form is right.
func (s *Server) authenticate(ctx context.Context, header string) (tenement.Token, error) {
	scheme, secret, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") { // RFC 9110 §11.1
		return tenement.Token{}, &tenement.Error{
			Code: tenement.CodeUnauthenticated, Op: "authenticate",
			Err:  errors.New("the Authorization header is of another scheme"),
			Hint: "send: Authorization: Bearer <token>",
		}
	}
	secret = strings.TrimSpace(secret)
	if _, err := ParseToken(secret); err != nil {
		return tenement.Token{}, err
	}
	return s.backend.Authenticate(ctx, secret)
}

// record puts what became of c into the audit log, once. Of strangers only so much from
// one address: what they try is kept, but they cannot keep the disk busy with it.
func (s *Server) record(ctx context.Context, c *call, err error) {
	if c.recorded || c.action == "" {
		return
	}
	c.recorded = true
	e := tenement.Event{
		At: time.Now(), Actor: c.actor, From: c.from, Action: c.action, Target: noted(c.target),
		Outcome: "ok", Detail: c.detail,
	}
	if err != nil {
		e.Outcome, e.Detail = string(codeOf(err)), noted(err.Error())
	}
	if c.actor == "" {
		e.Actor = tenement.ActorStranger
		if s.attempts.add(c.from, e.At) > 0 {
			return
		}
	}
	// The change has happened even if the caller did not wait for the answer.
	s.backend.Record(context.WithoutCancel(ctx), e)
}

// noted is s, or as much of it as the audit log keeps.
func noted(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxNoted)], "\uFFFD") }

// codeOf is tenement.CodeOf for errors that may be Problems already.
func codeOf(err error) tenement.Code {
	var p *Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return tenement.CodeOf(err)
}

// problem is err for the caller. Faults of ours are logged here and nowhere else.
func (s *Server) problem(ctx context.Context, c *call, err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	if tenement.CodeOf(err) == tenement.CodeInternal {
		s.log.ErrorContext(ctx, "management request failed", "actor", c.actor, "action", c.action, "target", c.target, "err", err)
	}
	return newProblem(err, c.scope.Role == tenement.RoleAdmin)
}

// readBody takes in the whole body, so that a slow sender is dealt with here and a
// long operation is under no read deadline.
func readBody(w http.ResponseWriter, req *http.Request) error {
	if req.ContentLength == 0 {
		return nil // huma says that a body is required
	}
	if kind, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || kind != "application/json" && kind != mergePatchType {
		return refusal(http.StatusUnsupportedMediaType, "the body must be JSON", "send: Content-Type: application/json")
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return refusal(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", tooLong.Limit), "")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refusal(http.StatusRequestTimeout, fmt.Sprintf("the body did not arrive within %v", bodyTimeout), "")
	case err != nil:
		return refusal(http.StatusBadRequest, "the body did not arrive whole", "")
	}
	req.Body = io.NopCloser(bytes.NewReader(body)) // as huma reads it, it lifts the deadline
	return nil
}
