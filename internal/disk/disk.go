// Package disk gives every instance a private directory.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"tenement"
)

// private is the mode of every directory made here: its owner's alone.
const private fs.FileMode = 0o700

// Root is the directory below which instances have theirs, at
// <root>/<service>/<name>. No method follows a symbolic link below it, wherever a
// tenant planted one. All methods may be called concurrently. While the disk is full or
// read-only, what it refuses is CodeUnavailable.
type Root struct {
	path string
	root *os.Root

	looking chan struct{} // holds one element while [Root.Storage] looks
}

// Open opens the directory path and makes it, with its parents, if it is missing.
// Nothing is changed about one that exists: its mode is the operator's choice.
// The error has CodeInternal.
func Open(path string) (*Root, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, &tenement.Error{Code: tenement.CodeInternal, Op: "open data directory", Err: err}
	}
	if err := os.MkdirAll(path, private); err != nil {
		return nil, openError(path, err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, openError(path, err)
	}
	return &Root{path: path, root: root, looking: make(chan struct{}, 1)}, nil
}

func openError(path string, err error) error {
	return &tenement.Error{
		Code: tenement.CodeInternal, Op: "open data directory", Err: err,
		Hint: path + " must be a directory that this user may write to; choose another one with --data-dir",
	}
}

// Close lets go of the directory. No other method may be called afterwards.
func (r *Root) Close() error { return r.root.Close() }

// Make makes the directory of id, if it is missing, and returns its absolute path. It
// gets mode 0700, whatever it had, and belongs to the user and the group with the number
// uid; 0 stands for the daemon's own. One that belongs to somebody else is handed over
// with everything in it: nothing of the instance may run. Its service's directory gets
// mode 0700 as well and stays the daemon's.
//
// A file or a symbolic link in the place of either is CodeConflict, and so is what must
// not be handed over: then nothing is, and the hint says what to do. An id that is no
// valid name is CodeInvalid, files that this user cannot give away are CodeForbidden.
func (r *Root) Make(ctx context.Context, id tenement.InstanceID, uid int) (string, error) {
	const op = "make data directory of "
	if err := check(id); err != nil {
		return "", err
	}
	service, err := makeDir(r.root, id.Service)
	if err != nil {
		return "", r.fail(op, id, err)
	}
	defer service.Close()
	dir, err := makeDir(service, id.Name)
	if err != nil {
		return "", r.fail(op, id, err)
	}
	defer dir.Close()
	if err := handOver(ctx, dir, ownerOf(uid)); err != nil {
		return "", r.cannotGive(id, uid, err)
	}
	return r.dir(id), nil
}

// Empty removes everything in the directory of id, which stays. It is no error
// if there is no such directory.
func (r *Root) Empty(id tenement.InstanceID) error {
	const op = "empty data directory of "
	if err := check(id); err != nil {
		return err
	}
	dir, err := r.openInstance(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return r.fail(op, id, err)
	}
	defer dir.Close()
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return r.fail(op, id, err)
	}
	var failed []error
	for _, entry := range entries {
		failed = append(failed, removeAll(dir, entry.Name()))
	}
	if err := errors.Join(failed...); err != nil {
		return r.fail(op, id, err)
	}
	return nil
}

// Remove removes the directory of id and everything in it, and the limit that the kernel
// keeps for uid; 0 if it was given none. It is no error if there is none; a file or a
// symbolic link in its place is removed itself.
func (r *Root) Remove(id tenement.InstanceID, uid int) error {
	const op = "remove data directory of "
	if err := check(id); err != nil {
		return err
	}
	service, err := openDir(r.root, id.Service)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return r.fail(op, id, err)
	}
	defer service.Close()
	// Before the directory goes: what counts for the project says that it is ours.
	if dir, err := openDir(service, id.Name); err == nil {
		err = clearLimit(dir, uid)
		dir.Close()
		if err != nil {
			return r.cannotLimit(id, err)
		}
	}
	if err := removeAll(service, id.Name); err != nil {
		return r.fail(op, id, err)
	}
	return nil
}

func (r *Root) dir(id tenement.InstanceID) string {
	return filepath.Join(r.path, id.Service, id.Name)
}

func (r *Root) openInstance(id tenement.InstanceID) (*os.Root, error) {
	service, err := openDir(r.root, id.Service)
	if err != nil {
		return nil, err
	}
	defer service.Close()
	return openDir(service, id.Name)
}

func (r *Root) fail(op string, id tenement.InstanceID, err error) error {
	failure := &tenement.Error{Code: tenement.CodeInternal, Op: op + id.String(), Err: err}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		failure.Code = tenement.CodeOf(err)
	case errors.Is(err, errTooDeep):
		failure.Code, failure.Hint = tenement.CodeConflict, "look at what the tenant has made in "+r.dir(id)
	case errors.Is(err, errNotDirectory):
		failure.Code = tenement.CodeConflict
		failure.Hint = "move what is in the place of " + r.dir(id) + " or of its parent out of the way"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		failure.Code, failure.Hint = tenement.CodeUnavailable, "the disk of "+r.path+" is full: make room"
	case errors.Is(err, syscall.EROFS):
		failure.Code = tenement.CodeUnavailable
		failure.Hint = "the disk of " + r.dir(id) + " is read-only: see the kernel's log (dmesg), then mount it writable"
	}
	return failure
}

func check(id tenement.InstanceID) error {
	if err := tenement.CheckServiceName(id.Service); err != nil {
		return err
	}
	return tenement.CheckInstanceName(id.Name)
}

var errNotDirectory = errors.New("not a directory")

// openDir opens the directory that is in parent under name, itself: os.Root keeps
// links from leading out of it, but follows those that stay within, and one from
// alice to bob does.
func openDir(parent *os.Root, name string) (*os.Root, error) {
	entry, err := parent.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !entry.IsDir() {
		return nil, fmt.Errorf("%s: %w", name, errNotDirectory)
	}
	dir, err := parent.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	opened, err := dir.Stat(".")
	if err == nil && !os.SameFile(entry, opened) {
		err = fmt.Errorf("%s: replaced under way: %w", name, errNotDirectory)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// makeDir corrects the mode before it opens, because a directory that its owner
// may not read cannot be opened by the owner either.
func makeDir(parent *os.Root, name string) (*os.Root, error) {
	if err := parent.Mkdir(name, private); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	entry, err := parent.Lstat(name)
	if err != nil {
		return nil, err
	}
	if entry.IsDir() && entry.Mode() != fs.ModeDir|private {
		if err := parent.Chmod(name, private); err != nil {
			return nil, err
		}
	}
	return openDir(parent, name)
}

// removeAll removes name with everything below it. Whoever is not root cannot
// empty a directory that lacks the write bit, and programs make such ones (Go's
// module cache is full of them): they are given the bit, and there is a second try.
func removeAll(parent *os.Root, name string) error {
	err := parent.RemoveAll(name)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	unlock(parent, name)
	return parent.RemoveAll(name)
}

// unlock makes the directory at path and those below it writable, as far as it
// can: what it could not do shows when they are removed.
func unlock(root *os.Root, path string) {
	entry, err := root.Lstat(path)
	if err != nil || !entry.IsDir() || root.Chmod(path, private) != nil {
		return
	}
	entries, err := fs.ReadDir(root.FS(), path)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if entry.IsDir() {
			unlock(root, filepath.Join(path, entry.Name()))
		}
	}
}
