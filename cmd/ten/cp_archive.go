package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"tenement"
)

// pack writes source, a file or a directory with all that is in it, as an archive in which
// it is called name; "." leaves a directory's own entry out. Owners are nobody's, because
// all belongs to the instance then. What is neither file, directory nor link is not copied.
func pack(to io.Writer, source, name string, notCopied func(path, why string)) error {
	w := tar.NewWriter(to)
	err := filepath.WalkDir(source, func(found string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(source, found)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		// The format of which every tar knows the long names, of any bytes.
		head := &tar.Header{Format: tar.FormatGNU, Name: path.Join(name, filepath.ToSlash(below)), Mode: int64(info.Mode().Perm()), ModTime: info.ModTime().Truncate(time.Second)}
		switch {
		case head.Name == ".":
			return nil
		case info.Mode().IsRegular():
			head.Typeflag, head.Size = tar.TypeReg, info.Size()
			return packFile(w, head, found)
		case info.IsDir():
			head.Typeflag, head.Name = tar.TypeDir, head.Name+"/"
		case info.Mode()&fs.ModeSymlink != 0:
			head.Typeflag = tar.TypeSymlink
			if head.Linkname, err = os.Readlink(found); err != nil {
				return err
			}
		default:
			notCopied(found, neither)
			return nil
		}
		return w.WriteHeader(head)
	})
	if err != nil {
		return err
	}
	return w.Close()
}

const neither = "it is neither a file nor a directory"

func packFile(w *tar.Writer, head *tar.Header, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.WriteHeader(head); err != nil {
		return err
	}
	_, err = io.CopyN(w, f, head.Size)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s has become shorter while it was read", path)
	}
	return err
}

// errEmpty is an archive with nothing in it.
var errEmpty = errors.New("nothing came")

// unpack writes what an archive of base has as target: a file, or a directory with all
// that is in it. A tenant may have made the archive: nothing is written outside of target,
// whatever the names say, and there are no devices, no set-user-ID bits, no files of
// others, and no links that lead out.
func unpack(from io.Reader, base, target string, notCopied func(path, why string)) error {
	archive := tar.NewReader(from)
	head, err := archive.Next()
	if errors.Is(err, io.EOF) {
		return errEmpty
	}
	if err != nil {
		return err
	}
	switch {
	case head.Typeflag == tar.TypeReg && !sparse(head):
		return unpackFile(archive, head, target)
	case head.Typeflag == tar.TypeDir:
	case head.Typeflag == tar.TypeSymlink:
		return &tenement.Error{
			Code: tenement.CodeInvalid, Err: fmt.Errorf("it is a symbolic link, to %s", head.Linkname),
			Hint: "name what it leads to, or, for what is in a directory, put /. behind it",
		}
	default:
		return errors.New(neither)
	}
	if err := os.Mkdir(target, mode(head)|0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	root, err := os.OpenRoot(target)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{archive: archive, base: base, root: root, notCopied: notCopied}
	for {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return u.linkAll()
		}
		if err == nil {
			err = u.take(head)
		}
		if err != nil {
			return err
		}
	}
}

// unpackFile writes over what is there, as cp(1) does: the operator has named it.
func unpackFile(archive io.Reader, head *tar.Header, target string) error {
	f, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode(head))
	if err != nil {
		return err
	}
	_, err = io.Copy(f, archive)
	return errors.Join(err, f.Close())
}

func mode(head *tar.Header) fs.FileMode { return fs.FileMode(head.Mode) & fs.ModePerm }

// unpacker writes an archive below one directory. Links are made last, so that nothing is
// written through them.
type unpacker struct {
	archive   *tar.Reader
	base      string
	root      *os.Root
	notCopied func(path, why string)
	links     []link
}

// link is one that is to be made.
type link struct{ name, target string }

func (u *unpacker) take(head *tar.Header) error {
	name, err := u.below(head.Name)
	if err != nil {
		return err
	}
	switch {
	case name == ".":
		return nil
	case head.Typeflag == tar.TypeDir:
		return u.root.MkdirAll(name, mode(head)|0o700) // others are to be written into it
	case head.Typeflag == tar.TypeReg && !sparse(head):
		return u.write(name, head)
	case head.Typeflag == tar.TypeLink:
		return u.linkHard(name, head.Linkname)
	case head.Typeflag == tar.TypeSymlink:
		u.links = append(u.links, link{name, head.Linkname})
		return nil
	}
	u.notCopied(name, neither)
	return nil
}

// below is a name without what was asked for, which each begins with.
func (u *unpacker) below(name string) (string, error) {
	clean := path.Clean(name)
	if u.base != "." {
		rest, ok := strings.CutPrefix(clean+"/", u.base+"/")
		if clean = path.Clean(rest); !ok {
			clean = "/"
		}
	}
	if !filepath.IsLocal(clean) {
		return "", fmt.Errorf("the archive has %s, which is not in %s", name, u.base)
	}
	return clean, nil
}

// sparse reports whether a few bytes stand for many: our tar makes no such files.
func sparse(head *tar.Header) bool {
	for key := range head.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (u *unpacker) write(name string, head *tar.Header) error {
	if err := u.makeWay(name); err != nil {
		return err
	}
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode(head))
	if err != nil {
		return err
	}
	_, err = io.Copy(f, u.archive)
	return errors.Join(err, f.Close(), u.root.Chtimes(name, head.ModTime, head.ModTime))
}

// makeWay removes the file or the link that has a name, and makes the directory for it.
func (u *unpacker) makeWay(name string) error {
	info, err := u.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return u.root.MkdirAll(path.Dir(name), 0o777)
	case err != nil:
		return err
	case info.Mode().IsRegular() || info.Mode()&fs.ModeSymlink != 0:
		return u.root.Remove(name)
	}
	return fmt.Errorf("%s is no file, and in the way of one", name)
}

func (u *unpacker) linkHard(name, other string) error {
	first, err := u.below(other)
	if err != nil {
		return err
	}
	if info, err := u.root.Lstat(first); err != nil || !info.Mode().IsRegular() || first == name {
		u.notCopied(name, "it is a further name of what was not copied")
		return nil
	}
	if err := u.makeWay(name); err != nil {
		return err
	}
	return u.root.Link(first, name)
}

// linkAll makes the symbolic links that stay within. One may stay by its text and yet lead
// out through others: that shows when all are there.
func (u *unpacker) linkAll() error {
	const why = "it is a link out of what is copied"
	var made []string
	for _, l := range u.links {
		if !l.stays() {
			u.notCopied(l.name, why)
			continue
		}
		if err := u.makeWay(l.name); err != nil {
			return err
		}
		if err := u.root.Symlink(l.target, l.name); err != nil {
			return err
		}
		made = append(made, l.name)
	}
	for _, name := range made {
		if _, err := u.root.Stat(name); err == nil || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := u.root.Remove(name); err != nil {
			return err
		}
		u.notCopied(name, why)
	}
	return nil
}

// stays reports whether the text of a link leads to something that was copied. A ".." after
// a name is refused, because that name may be a link itself.
func (l link) stays() bool {
	named := false
	for part := range strings.SplitSeq(l.target, "/") {
		switch part {
		case "..":
			if named {
				return false
			}
		case "", ".":
		default:
			named = true
		}
	}
	return !path.IsAbs(l.target) && filepath.IsLocal(path.Join(path.Dir(l.name), l.target))
}

// notCopied names what a copy has left out; of many the first.
type notCopied struct {
	to    io.Writer
	count int
}

func (n *notCopied) add(path, why string) {
	const named = 20
	if n.count++; n.count <= named {
		fmt.Fprintf(n.to, "not copied: %s: %s\n", visible(path), why)
	}
}

// failure is nil if all was copied.
func (n *notCopied) failure() error {
	if n.count == 0 {
		return nil
	}
	return fmt.Errorf("%d of what was to be copied was left out", n.count)
}
