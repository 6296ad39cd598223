package store

import (
	"context"
	"errors"
	"time"

	"tenement"
)

const (
	tokenColumns      = "id, name, role, tenant, created_at, expires_at, last_used"
	selectTokenByHash = "SELECT " + tokenColumns + " FROM tokens WHERE hash = ?"
)

// CreateToken keeps a token whose secret has the SHA-256 sum hash. It is
// CodeInvalid without an id, CodeConflict if its id or hash is there already.
func (s *Store) CreateToken(ctx context.Context, t tenement.Token, hash [32]byte) error {
	const op = "create token"
	if t.ID == "" {
		return &tenement.Error{Code: tenement.CodeInvalid, Op: op, Err: errors.New("a token needs an id")}
	}
	_, err := s.write.ExecContext(ctx,
		"INSERT INTO tokens (hash, "+tokenColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		hash[:], t.ID, t.Name, t.Scope.Role, t.Scope.Tenant, nanos(t.CreatedAt), nanos(t.ExpiresAt), nanos(t.LastUsed))
	return s.wrote(ctx, op, s.durable(err))
}

// TokenByHash finds a token by the SHA-256 sum of its secret. It is CodeNotFound
// if there is none. An expired token is found: whether it still counts is for the
// caller to say.
//
// That the search is not of constant time tells an attacker nothing: he would
// have to choose sums, and can only choose secrets.
func (s *Store) TokenByHash(ctx context.Context, hash [32]byte) (tenement.Token, error) {
	t, err := lookUp(ctx, s.stmts.tokenByHash, scanToken, hash[:])
	if err != nil {
		return tenement.Token{}, failure("look up token", err)
	}
	return t, nil
}

// Tokens lists all tokens, the oldest first.
func (s *Store) Tokens(ctx context.Context) ([]tenement.Token, error) {
	const op = "list tokens"
	rows, err := s.read.QueryContext(ctx, "SELECT "+tokenColumns+" FROM tokens ORDER BY created_at, id")
	if err != nil {
		return nil, failure(op, err)
	}
	list, err := collect(rows, scanToken)
	return list, failure(op, err)
}

// DeleteToken forgets the token with this id: it counts no more from then on. It
// is CodeNotFound if there is none.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return s.wrote(ctx, "delete token "+id, s.durable(changedOne(s.write.ExecContext(ctx, "DELETE FROM tokens WHERE id = ?", id))))
}

// TouchToken remembers that the token with this id was used at the given time; an
// earlier time than the known one changes nothing. It is CodeNotFound if there is none.
func (s *Store) TouchToken(ctx context.Context, id string, at time.Time) error {
	return s.wrote(ctx, "touch token "+id, changedOne(s.write.ExecContext(ctx,
		"UPDATE tokens SET last_used = max(last_used, ?) WHERE id = ?", nanos(at), id)))
}

func scanToken(r row) (t tenement.Token, err error) {
	var createdAt, expiresAt, lastUsed int64
	err = r.Scan(&t.ID, &t.Name, &t.Scope.Role, &t.Scope.Tenant, &createdAt, &expiresAt, &lastUsed)
	t.CreatedAt, t.ExpiresAt, t.LastUsed = fromNanos(createdAt), fromNanos(expiresAt), fromNanos(lastUsed)
	return t, err
}
