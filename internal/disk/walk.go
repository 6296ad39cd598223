package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"tenement"
)

const (
	// maxDepth bounds how many directories may lie one within the other: a walk holds
	// one descriptor for each. No path of more than 4096 bytes can be named anyway.
	maxDepth = 256
	// batch is how many names are read at once.
	batch = 1024
)

var errTooDeep = fmt.Errorf("more than %d directories lie one within the other", maxDepth)

// entry is something in a directory, as it was found.
type entry struct {
	parent *os.Root
	above  string // path of parent, from where the walk began
	name   string
	info   fs.FileInfo
}

func (e entry) path() string { return path.Join(e.above, e.name) }

// stat is what the platform knows of e beyond its FileInfo.
func (e entry) stat() *syscall.Stat_t { return statOf(e.info) }

func statOf(info fs.FileInfo) *syscall.Stat_t {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return &syscall.Stat_t{} // no system that this builds for is without it
	}
	return stat
}

// walk calls do for everything below dir; for a directory, after what is in it. No link
// is followed. What vanishes under way is passed over. before, unless nil, is asked
// about each directory before it is entered.
func walk(ctx context.Context, dir *os.Root, before, do func(entry) error) error {
	return walkIn(ctx, dir, "", 0, before, do)
}

func walkIn(ctx context.Context, dir *os.Root, above string, depth int, before, do func(entry) error) error {
	if depth > maxDepth {
		return errTooDeep
	}
	list, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer list.Close()
	for {
		names, err := list.Readdirnames(batch)
		for _, name := range names {
			if err := walkEntry(ctx, entry{parent: dir, above: above, name: name}, depth, before, do); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

func walkEntry(ctx context.Context, e entry, depth int, before, do func(entry) error) (err error) {
	e.info, err = e.parent.Lstat(e.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if e.info.IsDir() {
		if before != nil {
			if err := before(e); err != nil {
				return err
			}
		}
		err := walkBelow(ctx, e, depth, before, do)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return do(e)
}

func walkBelow(ctx context.Context, e entry, depth int, before, do func(entry) error) error {
	sub, err := openDir(e.parent, e.name)
	if err != nil {
		return err
	}
	defer sub.Close()
	return walkIn(ctx, sub, e.path(), depth+1, before, do)
}

// Use is what a directory and everything in it take on their disk.
type Use struct {
	Bytes tenement.Bytes // blocks of the disk, not lengths: holes do not count
	Files int            // names of files, of directories and of whatever else there is
}

// Limit bounds a Use.
type Limit struct {
	Bytes tenement.Bytes // 0 = no bound
	Files int            // 0 = no bound
}

// bytesPerFile is how many bytes of a limit allow one more file: what mke2fs(8) makes
// an inode for, so that limits that fit on a disk do so with their files.
const bytesPerFile = 16 << 10

// minFiles is for programs that are small and made of small files.
const minFiles = 1000

// LimitOf is the bound for a storage quota of so many bytes; 0 is none.
func LimitOf(bytes tenement.Bytes) Limit {
	if bytes <= 0 {
		return Limit{}
	}
	return Limit{Bytes: bytes, Files: max(int(bytes/bytesPerFile), minFiles)}
}

// Reached reports whether u has used the limit up.
func (l Limit) Reached(u Use) bool {
	return l.Bytes > 0 && u.Bytes >= l.Bytes || l.Files > 0 && u.Files >= l.Files
}

func (u Use) String() string { return fmt.Sprintf("%s in %d files", mib(u.Bytes), u.Files) }

func (l Limit) String() string { return fmt.Sprintf("%s in %d files", mib(l.Bytes), l.Files) }

func mib(n tenement.Bytes) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// blockSize is the unit of st_blocks (stat(3type)).
const blockSize = 512

var errReached = errors.New("the limit is reached")

// Measure looks at everything in the directory of id, and adds up what it takes; 0 if
// there is no such directory. It stops where stop is reached: no tree, however large,
// takes longer than one that may be. CodeConflict: it has directories too deep within
// one another to be looked at.
func (r *Root) Measure(ctx context.Context, id tenement.InstanceID, stop Limit) (Use, error) {
	const op = "measure data directory of "
	if err := check(id); err != nil {
		return Use{}, err
	}
	dir, err := r.openInstance(id)
	if errors.Is(err, fs.ErrNotExist) {
		return Use{}, nil
	}
	if err != nil {
		return Use{}, r.fail(op, id, err)
	}
	defer dir.Close()
	u, err := measure(ctx, dir, stop)
	if err != nil {
		return Use{}, r.fail(op, id, err)
	}
	return u, nil
}

func measure(ctx context.Context, dir *os.Root, stop Limit) (u Use, err error) {
	top, err := dir.Stat(".")
	if err != nil {
		return u, err
	}
	u = Use{Files: 1, Bytes: tenement.Bytes(statOf(top).Blocks) * blockSize}
	linked := map[uint64]bool{} // the files with further names that were counted
	err = walk(ctx, dir, nil, func(e entry) error {
		stat := e.stat()
		u.Files++
		if e.info.IsDir() || stat.Nlink == 1 || !linked[stat.Ino] {
			u.Bytes += tenement.Bytes(stat.Blocks) * blockSize
		}
		if !e.info.IsDir() && stat.Nlink > 1 {
			linked[stat.Ino] = true
		}
		if stop.Reached(u) {
			return errReached
		}
		return nil
	})
	if errors.Is(err, errReached) {
		err = nil
	}
	return u, err
}
