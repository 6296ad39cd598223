package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"tenement"
)

// none is the input or output of a route that has none.
type none struct{}

// onInstance is the input of a route about one instance. It is not embedded where
// there is more input: huma leaves the fields of an unexported embedded type empty.
type onInstance struct {
	ID tenement.InstanceID `path:"instance" doc:"service:name" example:"api:alice"`
}

// answer is an output with a body.
type answer[T any] struct {
	Body T
}

// created is an answer that may have made something new.
type created[T any] struct {
	Status int
	Body   T
}

// show is st as the caller may see it.
func (s *Server) show(c *call, st tenement.Status) Instance {
	in := NewInstance(st)
	if !c.scope.SeesAll() {
		in.Reason = "" // it may name commands and paths
	}
	if s.url != nil {
		in.URL = s.url(st.ID)
	}
	return in
}

func (s *Server) ready(ctx context.Context, c *call, _ *none) (*answer[Health], error) {
	if err := s.backend.Ready(ctx); err != nil {
		return nil, err
	}
	h := Health{Status: "ok"}
	if c.local {
		h.Version = s.version
	}
	return &answer[Health]{h}, nil
}

// binaryType is the media type of what is neither JSON nor a stream.
const binaryType = "application/octet-stream"

type document struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func (s *Server) openAPI(context.Context, *call, *none) (*document, error) {
	return &document{ContentType: "application/openapi+json", Body: s.document}, nil
}

// instanceAnswer is an instance with its version, see [etag].
type instanceAnswer struct {
	ETag string `header:"ETag" doc:"for If-Match; changes with the weight, a suspension or a deletion, and not with traffic"`
	Body Instance
}

func (s *Server) getInstance(ctx context.Context, c *call, in *onInstance) (*instanceAnswer, error) {
	st, err := s.backend.Instance(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	tag, err := s.etag(ctx, st)
	if err != nil {
		return nil, err
	}
	return &instanceAnswer{tag, s.show(c, st)}, nil
}

// about is the instance of a request that names its halves apart.
func about(c *call, service, name string) (tenement.InstanceID, error) {
	id, err := tenement.ParseInstanceID(service + ":" + name)
	if err == nil {
		c.target = id.String()
	}
	return id, err
}

func (s *Server) spawn(ctx context.Context, c *call, in *answer[SpawnRequest]) (*created[Instance], error) {
	id, err := about(c, in.Body.Process, in.Body.ID)
	if err != nil {
		return nil, err
	}
	if in.Body.Weight != nil {
		c.detail = fmt.Sprintf("weight %d", *in.Body.Weight)
	}
	st, isNew, err := s.backend.Spawn(ctx, id, SpawnOptions{Weight: in.Body.Weight, Wake: *in.Body.Wake})
	if err != nil {
		return nil, err
	}
	out := &created[Instance]{Status: http.StatusOK, Body: s.show(c, st)}
	if isNew {
		out.Status = http.StatusCreated
	}
	return out, nil
}

type deleteInput struct {
	ID    tenement.InstanceID `path:"instance" doc:"service:name" example:"api:alice"`
	Purge bool                `query:"purge" doc:"remove its files as well"`
}

func (s *Server) deleteInstance(ctx context.Context, c *call, in *deleteInput) (*none, error) {
	if in.Purge {
		c.detail = "purge"
	}
	return &none{}, s.backend.Delete(ctx, in.ID, in.Purge)
}

// change is the handler of a route that only names an instance.
func change(do func(Backend, context.Context, tenement.InstanceID) error) handler[onInstance, none] {
	return func(s *Server, ctx context.Context, _ *call, in *onInstance) (*none, error) {
		return &none{}, do(s.backend, ctx, in.ID)
	}
}

func (s *Server) instanceHealth(ctx context.Context, _ *call, in *onInstance) (*answer[InstanceHealth], error) {
	health, detail, err := s.backend.Health(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &answer[InstanceHealth]{InstanceHealth{ID: in.ID, Health: health, Detail: detail}}, nil
}

func (s *Server) storage(ctx context.Context, _ *call, in *onInstance) (*answer[Storage], error) {
	storage, err := s.backend.Storage(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &answer[Storage]{storage}, nil
}

func (s *Server) reload(ctx context.Context, _ *call, in *answer[ReloadRequest]) (*answer[Reloaded], error) {
	r, err := s.backend.Reload(ctx, in.Body.Restart)
	if err != nil {
		return nil, err
	}
	return &answer[Reloaded]{r}, nil
}

func (s *Server) upgrade(ctx context.Context, _ *call, _ *none) (*answer[Upgraded], error) {
	u, err := s.backend.Upgrade(ctx)
	if err != nil {
		return nil, err
	}
	return &answer[Upgraded]{u}, nil
}

type profileInput struct {
	Kind    string `path:"kind" enum:"cpu,heap,allocs,goroutine,trace"`
	Seconds int    `query:"seconds" minimum:"1" maximum:"120" default:"10" doc:"how long to look, for cpu and trace"`
}

func (s *Server) profile(ctx context.Context, _ *call, in *profileInput) (*document, error) {
	profile, err := s.backend.Profile(ctx, ProfileKind(in.Kind), time.Duration(in.Seconds)*time.Second)
	if err != nil {
		return nil, err
	}
	return &document{ContentType: binaryType, Body: profile}, nil
}

func (s *Server) listTokens(ctx context.Context, _ *call, _ *none) (*answer[Tokens], error) {
	list, err := s.backend.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	out := Tokens{Tokens: make([]Token, len(list))}
	for i, t := range list {
		out.Tokens[i] = newToken(t)
	}
	return &answer[Tokens]{out}, nil
}

func (s *Server) createToken(ctx context.Context, c *call, in *answer[TokenRequest]) (*created[NewSecret], error) {
	t, err := in.Body.token(time.Now())
	if err != nil {
		return nil, err
	}
	c.detail = strings.TrimSpace(t.Scope.String() + " " + t.Name)
	t, secret, err := s.backend.CreateToken(ctx, t)
	if err != nil {
		return nil, err
	}
	c.target = t.ID
	return &created[NewSecret]{Status: http.StatusCreated, Body: NewSecret{Token: newToken(t), Secret: secret}}, nil
}

// token is what r asks for, made at the time now; CodeInvalid if there cannot be such a one.
func (r TokenRequest) token(now time.Time) (tenement.Token, error) {
	t := tenement.Token{Name: r.Name, Scope: tenement.Scope{Role: r.Scope, Tenant: r.Tenant}, CreatedAt: now}
	switch {
	case r.Scope == "" && r.Tenant != "":
		t.Scope.Role = tenement.RoleTenant
	case r.Scope == "":
		t.Scope.Role = tenement.RoleAdmin
	}
	if r.ExpiresInSeconds > 0 {
		t.ExpiresAt = now.Add(time.Duration(r.ExpiresInSeconds) * time.Second)
	}
	if r.Name != "" {
		if err := tenement.CheckTokenName(r.Name); err != nil {
			return t, err
		}
	}
	return t, t.Scope.Check()
}

type tokenInput struct {
	ID string `path:"token"`
}

func (s *Server) revokeToken(ctx context.Context, _ *call, in *tokenInput) (*none, error) {
	return &none{}, s.backend.RevokeToken(ctx, in.ID)
}
