package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"tenement"
	"tenement/internal/api"
)

// CreateToken implements [api.Backend]. An admin token is also left in a file of the
// state directory that only the daemon's user can read.
func (b *backend) CreateToken(ctx context.Context, token tenement.Token) (tenement.Token, string, error) {
	secret, hash := api.NewToken()
	token.ID = strings.ToLower(rand.Text()[:10])
	if err := b.store.CreateToken(ctx, token, hash); err != nil {
		return tenement.Token{}, "", err
	}
	if token.Scope.Role == tenement.RoleAdmin {
		if err := b.writeAdminToken(secret); err != nil {
			return tenement.Token{}, "", errors.Join(err, b.store.DeleteToken(ctx, token.ID))
		}
	}
	return token, secret, nil
}

// Tokens implements [api.Backend].
func (b *backend) Tokens(ctx context.Context) ([]tenement.Token, error) { return b.store.Tokens(ctx) }

// RevokeToken implements [api.Backend].
func (b *backend) RevokeToken(ctx context.Context, id string) error {
	return b.store.DeleteToken(ctx, id)
}

// usePrecision is how exactly the last use of a token is kept: a script that asks a
// hundred times a second must not write a hundred times a second.
const usePrecision = time.Minute

// Authenticate implements [api.Backend].
func (b *backend) Authenticate(ctx context.Context, secret string) (tenement.Token, error) {
	hash, err := api.ParseToken(secret)
	if err != nil {
		return tenement.Token{}, err
	}
	token, err := b.store.TokenByHash(ctx, hash)
	if tenement.CodeOf(err) == tenement.CodeNotFound {
		return tenement.Token{}, unauthenticated("unknown or revoked")
	}
	if err != nil {
		return tenement.Token{}, err
	}
	now := time.Now()
	if token.Expired(now) {
		return tenement.Token{}, unauthenticated("expired")
	}
	if now.Sub(token.LastUsed) > usePrecision {
		if err := b.store.TouchToken(ctx, token.ID, now); err != nil {
			b.daemon.Log.Warn("the use of a token could not be noted", "token", token.ID, "error", err)
		}
	}
	return token, nil
}

func unauthenticated(why string) error {
	return &tenement.Error{
		Code: tenement.CodeUnauthenticated, Op: "check token", Err: errors.New("the token is " + why),
		Hint: "make one with: ten token-gen",
	}
}
