package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"tenement"
)

var errChanged = errors.New("it is not any more as you saw it")

// etag is the version of what operators set of an instance (RFC 9110 §8.8.3). What
// traffic changes is not in it: a change that depends on what somebody saw must not fail
// because of a request.
func (s *Server) etag(ctx context.Context, st tenement.Status) (string, error) {
	settings, err := s.backend.Settings(ctx, st.ID)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %t %v", st.ID, st.CreatedAt.UnixNano(), st.Weight, st.Suspended, settings))
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, nil
}

// conditional has the changes of one instance that have a condition come one after the
// other: of two whose senders saw the same, one is done. Those without a condition wait
// for nobody.
type conditional struct {
	mu   sync.Mutex
	held map[tenement.InstanceID]chan struct{} // closed when it is free
}

// hold waits until no other conditional change of id is under way, or until ctx ends.
func (c *conditional) hold(ctx context.Context, id tenement.InstanceID) (release func(), err error) {
	for {
		c.mu.Lock()
		busy := c.held[id]
		if busy == nil {
			break
		}
		c.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = map[tenement.InstanceID]chan struct{}{}
	}
	free := make(chan struct{})
	c.held[id] = free
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.held, id)
		close(free)
	}, nil
}

// precondition holds req to its If-Match (RFC 9110 §13.1.1), if it is to change an
// instance. release is never nil.
func (s *Server) precondition(req *http.Request, r *route, c *call) (release func(), err error) {
	wanted := strings.Join(req.Header.Values("If-Match"), ",")
	if wanted == "" || !r.changesInstance() {
		return func() {}, nil
	}
	release, err = s.changes.hold(req.Context(), c.id)
	if err != nil {
		return func() {}, err
	}
	st, err := s.backend.Instance(req.Context(), c.id)
	if err != nil {
		return release, err
	}
	tag, err := s.etag(req.Context(), st)
	if err == nil && !matches(wanted, tag) {
		err = &tenement.Error{
			Code: tenement.CodeChanged, Op: c.action + " " + c.id.String(), Err: errChanged,
			Hint: "look at it again, and send the new ETag as If-Match",
		}
	}
	return release, err
}

// matches reports whether tag is among those of an If-Match. A weak one never is.
func matches(wanted, tag string) bool {
	for choice := range strings.SplitSeq(wanted, ",") {
		if choice = strings.TrimSpace(choice); choice == "*" || choice == tag {
			return true
		}
	}
	return false
}
