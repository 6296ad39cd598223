package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"tenement"
)

// owner is who a directory belongs to.
type owner struct {
	uid, gid int
	own      bool // of an instance: its group counts as well
}

// ownerOf is the owner for an instance's uid; 0 stands for the daemon's own user.
func ownerOf(uid int) owner {
	if uid == 0 {
		return owner{os.Geteuid(), os.Getegid(), false}
	}
	return owner{uid, uid, true}
}

func (o owner) has(info fs.FileInfo) bool {
	stat := statOf(info)
	return int(stat.Uid) == o.uid && (!o.own || int(stat.Gid) == o.gid)
}

// refusal is something that must not be given to another user.
type refusal struct{ path, reason string }

func (r *refusal) Error() string { return r.path + " " + r.reason }

// handOver gives dir and everything in it to an owner, dir itself last: whoever finds
// that it has changed hands knows that all of it has. Before anything changes hands,
// all is looked at. Nothing of the instance may run meanwhile.
func handOver(ctx context.Context, dir *os.Root, to owner) error {
	top, err := dir.Stat(".")
	if err != nil || to.has(top) {
		return err
	}
	if err := mayHandOver(ctx, dir, top, to); err != nil {
		return err
	}
	err = walk(ctx, dir, nil, func(e entry) error {
		if to.has(e.info) {
			return nil
		}
		return e.parent.Lchown(e.name, to.uid, to.gid) // and the kernel clears setuid and setgid
	})
	if err != nil {
		return err
	}
	return dir.Chown(".", to.uid, to.gid)
}

// links are the names of one file.
type links struct {
	there, found uint64
	path         string // one of them
}

// mayHandOver refuses what a tenant may have planted while it shared its user with
// others, to be given it now: another one's file under a further name (a hard link),
// a device, a mount.
func mayHandOver(ctx context.Context, dir *os.Root, top fs.FileInfo, to owner) error {
	files := map[uint64]links{}
	device := statOf(top).Dev
	look := func(e entry) error {
		stat := e.stat()
		switch {
		case stat.Dev != device:
			return &refusal{e.path(), "is on another file system"}
		case e.info.IsDir(), to.has(e.info):
		case e.info.Mode()&fs.ModeDevice != 0:
			return &refusal{e.path(), "is a device"}
		case stat.Nlink > 1:
			found := files[stat.Ino]
			files[stat.Ino] = links{there: uint64(stat.Nlink), found: found.found + 1, path: e.path()}
		}
		return nil
	}
	beforeEntering := func(e entry) error {
		if e.stat().Dev != device {
			return &refusal{e.path(), "is on another file system"}
		}
		return nil
	}
	if err := walk(ctx, dir, beforeEntering, look); err != nil {
		return err
	}
	for _, file := range files {
		if file.found < file.there {
			return &refusal{file.path, fmt.Sprintf("has %d more names outside of the directory (hard links)", file.there-file.found)}
		}
	}
	return nil
}

// cannotGive makes an error of a hand-over that did not come about.
func (r *Root) cannotGive(id tenement.InstanceID, uid int, err error) error {
	failure := &tenement.Error{Code: tenement.CodeInternal, Op: "give data directory of " + id.String() + " to its user", Err: err}
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		failure.Code = tenement.CodeConflict
		failure.Hint = "nothing was changed: remove it from " + r.dir(id) + ", or replace it with a copy, and start again"
	case errors.Is(err, errTooDeep):
		failure.Code = tenement.CodeConflict
		failure.Hint = "look at what the tenant has made in " + r.dir(id)
	case errors.Is(err, fs.ErrPermission) && uid != 0:
		failure.Code = tenement.CodeForbidden
		failure.Hint = `only root gives files to another user: run the daemon as root, or set isolation = "process"`
	case errors.Is(err, fs.ErrPermission):
		failure.Code = tenement.CodeForbidden
		failure.Hint = fmt.Sprintf("as root: chown -R -h %d:%d %s", os.Geteuid(), os.Getegid(), r.dir(id))
	default:
		return r.fail("give to its user the data directory of ", id, err)
	}
	return failure
}
