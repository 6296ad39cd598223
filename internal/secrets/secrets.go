// Package secrets seals what only this daemon is to read again.
package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"

	"tenement"
)

// Key is a file with the key that seals and opens: an age identity
// (https://age-encryption.org/v1), made when it is first needed. It is read at each use,
// so that a key that was put back counts at once. The file may have several: the first
// seals, all open. Its methods may be called concurrently.
type Key struct{ path string }

// NewKey names the file; nothing is read or made yet.
func NewKey(path string) *Key { return &Key{path} }

// Seal makes text unreadable but for the key. CodeUnavailable: the key cannot be used.
func (k *Key) Seal(text []byte) ([]byte, error) {
	const op = "seal a secret"
	identities, err := k.read()
	if errors.Is(err, fs.ErrNotExist) {
		if err = k.create(); err == nil {
			identities, err = k.read()
		}
	}
	if err != nil {
		return nil, k.unavailable(op, err)
	}
	first, ok := identities[0].(*age.X25519Identity)
	if !ok {
		return nil, k.unavailable(op, errors.New("its first key is not of X25519"))
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, first.Recipient())
	if err == nil {
		_, err = w.Write(text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, &tenement.Error{Code: tenement.CodeInternal, Op: op, Err: err}
	}
	return sealed.Bytes(), nil
}

// Open gives back what was sealed. CodeUnavailable: the key is missing, or it is not the
// one that sealed it.
func (k *Key) Open(sealed []byte) ([]byte, error) {
	const op = "open a secret"
	identities, err := k.read()
	if err != nil {
		return nil, k.unavailable(op, err)
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), identities...)
	if err != nil {
		return nil, k.unavailable(op, errors.New("it was sealed with another key, or is damaged"))
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, k.unavailable(op, err)
	}
	return text, nil
}

func (k *Key) unavailable(op string, err error) error {
	return &tenement.Error{
		Code: tenement.CodeUnavailable, Op: op, Err: fmt.Errorf("the key %s: %w", k.path, err),
		Hint: "put the key back from your own copy (that of the registry is without it), or set the secret again with: ten set service:id --secret NAME",
	}
}

// read gives at least one key. Errors tell nothing of what the file holds.
func (k *Key) read() ([]age.Identity, error) {
	file, err := os.Open(k.path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, withoutPath(err)
	}
	if others := info.Mode().Perm() & 0o077; others != 0 {
		return nil, fmt.Errorf("is open to other users (mode %#o): chmod 600", info.Mode().Perm())
	}
	identities, err := age.ParseIdentities(file)
	if err != nil {
		return nil, errors.New("is not one of age's") // its error may quote the file
	}
	return identities, nil
}

// withoutPath is the cause alone: the message names the file already.
func withoutPath(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// create makes the file, whole and on the disk or not at all, unless somebody else has
// just done so.
func (k *Key) create() error {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(k.path), filepath.Base(k.path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = fmt.Fprintln(file, identity)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Link(file.Name(), k.path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dir, err := os.Open(filepath.Dir(k.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
