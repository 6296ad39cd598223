package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
	"tenement/internal/api"
)

func TestSidesOfACopy(t *testing.T) {
	t.Parallel()
	alice := tenement.InstanceID{Service: "api", Name: "alice"}
	for text, want := range map[string]side{
		"app.db":               {path: "app.db"},
		"-":                    {path: "-"},
		"api:alice":            {path: "api:alice"},
		"./api:alice:x":        {path: "./api:alice:x"},
		"a/b:c:d":              {path: "a/b:c:d"},
		"api:alice:":           {id: alice},
		"api:alice:a:b":        {id: alice, path: "a:b"},
		"api:alice:/data/file": {id: alice, path: "/data/file"},
	} {
		if got, err := parseSide(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	if _, err := parseSide("API:alice:x"); tenement.CodeOf(err) != tenement.CodeInvalid {
		t.Errorf("no service's name: %v", err)
	}
	for text, want := range map[string][2]string{
		"": {"./", "."}, ".": {"./", "."}, "a": {"./", "a"}, "-a": {"./", "-a"}, "-a/b": {"./-a/", "b"}, "a/": {"./a/", "."},
		"a/.": {"./a/", "."}, "..": {"./../", "."}, "/": {"/", "."}, "/a": {"/", "a"}, "/a/b c": {"/a/", "b c"},
	} {
		if dir, base := remote(text); [2]string{dir, base} != want {
			t.Errorf("%q: %q, want %q", text, []string{dir, base}, want)
		}
	}
}

func TestCopyIsBetweenHereAndAnInstance(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"cp a b":                     "hint: an instance's side is service:id:path",
		"cp api:alice b":             "api:alice: for its whole data directory",
		"cp api:alice:a api:bob:b":   "ten cp - api:bob:directory",
		"cp a":                       "hint: write: ten cp (file|directory|-) service:id:path",
		"cp a b c":                   "\"c\" is one argument too many",
		"cp api:Alice:a b":           "not a valid instance name",
		"cp api:alice:a no/such/dir": "stat no/such: no such file",
	} {
		got := ten(t, answers(nil), strings.Fields(line)...)
		if got.status != 2 && !strings.Contains(line, "no/such") || !strings.Contains(got.stderr, want) {
			t.Errorf("ten %s: status %d, %s", line, got.status, got.stderr)
		}
	}
	got := ten(t, answers(nil), "cp", filepath.Join(t.TempDir(), "nothing"), "api:alice:")
	if got.status != 3 {
		t.Errorf("status %d, %s", got.status, got.stderr)
	}
}

func TestCopiesComplete(t *testing.T) {
	t.Parallel()
	daemon := answers(map[string]any{"GET /api/instances": api.InstancePage{Instances: []api.Instance{alice}}})
	server := httptest.NewServer(daemon)
	defer server.Close()
	for typed, want := range map[string]string{"ap": "api:alice:\tready\n:2\n", "api:alice:f": ":2\n", "fil": ":2\n"} {
		var stdout, stderr bytes.Buffer
		if status := run(t.Context(), []string{"__complete", "--server", server.URL, "cp", "file", typed}, &stdout, &stderr); status != 0 || stdout.String() != want {
			t.Errorf("%s: status %d, %q, want %q", typed, status, stdout.String(), want)
		}
	}
}

// entry is one of an archive that a test makes; of a file body is the content.
type entry struct {
	name, body, link string
	kind             byte
	mode             int64
}

func archive(t *testing.T, entries ...entry) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		head := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Size: int64(len(e.body)), Mode: e.mode, Uid: 4242, Gid: 4242}
		if head.Mode == 0 {
			head.Mode = 0o755
		}
		if err := w.WriteHeader(head); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// tree is what is below dir: of files the content, of links what they lead to.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case d.IsDir():
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			found[name] = "-> " + target
			return err
		default:
			text, err := os.ReadFile(path)
			found[name] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestUnpackingStaysWithin has a tenant shape the archive.
func TestUnpackingStaysWithin(t *testing.T) {
	t.Parallel()
	top := entry{name: "./photos/", kind: tar.TypeDir}
	for name, test := range map[string]struct {
		entries []entry
		want    map[string]string
		left    []string // what is not copied
		err     string
	}{
		"usual": {
			entries: []entry{top, {name: "./photos/a", body: "1", kind: tar.TypeReg}, {name: "./photos/b/c", body: "2", kind: tar.TypeReg}, {name: "./photos/b/again", link: "./photos/a", kind: tar.TypeLink}, {name: "./photos/l", link: "b/c", kind: tar.TypeSymlink}, {name: "./photos/b/up", link: "../a", kind: tar.TypeSymlink}, {name: "./photos/b/none", link: "later", kind: tar.TypeSymlink}},
			want:    map[string]string{"a": "1", "b/c": "2", "b/again": "1", "l": "-> b/c", "b/up": "-> ../a", "b/none": "-> later"},
		},
		"a file twice":             {entries: []entry{top, {name: "./photos/a", body: "1", kind: tar.TypeReg}, {name: "./photos/a", body: "2", kind: tar.TypeReg}}, want: map[string]string{"a": "2"}},
		"a name that leads up":     {entries: []entry{top, {name: "./photos/../../out", body: "x", kind: tar.TypeReg}}, err: "which is not in photos"},
		"another name":             {entries: []entry{top, {name: "./.bashrc", body: "x", kind: tar.TypeReg}}, err: "which is not in photos"},
		"a name that begins alike": {entries: []entry{top, {name: "./photos-of-others/x", body: "x", kind: tar.TypeReg}}, err: "which is not in photos"},
		"an absolute name":         {entries: []entry{top, {name: "/etc/passwd", body: "x", kind: tar.TypeReg}}, err: "which is not in photos"},
		"links that lead out": {
			entries: []entry{top, {name: "./photos/abs", link: "/etc/passwd", kind: tar.TypeSymlink}, {name: "./photos/up", link: "..", kind: tar.TypeSymlink}, {name: "./photos/b/up", link: "../../out", kind: tar.TypeSymlink}, {name: "./photos/through", link: "b/../../out", kind: tar.TypeSymlink}},
			want:    map[string]string{}, left: []string{"abs", "up", "b/up", "through"},
		},
		"a chain of links that leads out": {
			entries: []entry{top, {name: "./photos/d/e/", kind: tar.TypeDir}, {name: "./photos/d/e/short", link: "../..", kind: tar.TypeSymlink}, {name: "./photos/d/e/short/out", link: "../../x", kind: tar.TypeSymlink}},
			want:    map[string]string{"d/e/short": "-> ../.."}, left: []string{"d/e/short/out"},
		},
		"a file through a link": {
			entries: []entry{top, {name: "./photos/l", link: "../", kind: tar.TypeSymlink}, {name: "./photos/l/out", body: "x", kind: tar.TypeReg}},
			want:    map[string]string{"l/out": "x"}, left: []string{"l"},
		},
		"a link over a directory":   {entries: []entry{top, {name: "./photos/l", link: "b", kind: tar.TypeSymlink}, {name: "./photos/l/in", body: "x", kind: tar.TypeReg}}, err: "in the way", want: map[string]string{"l/in": "x"}},
		"a hard link to what is up": {entries: []entry{top, {name: "./photos/h", link: "./photos/../../secret", kind: tar.TypeLink}}, err: "which is not in photos"},
		"a hard link to nothing":    {entries: []entry{top, {name: "./photos/h", link: "./photos/none", kind: tar.TypeLink}}, want: map[string]string{}, left: []string{"h"}},
		"devices and pipes": {
			entries: []entry{top, {name: "./photos/null", kind: tar.TypeChar}, {name: "./photos/disk", kind: tar.TypeBlock}, {name: "./photos/pipe", kind: tar.TypeFifo}},
			want:    map[string]string{}, left: []string{"null", "disk", "pipe"},
		},
		"nothing":           {err: "nothing came"},
		"a link at the top": {entries: []entry{{name: "./photos", link: "/etc/passwd", kind: tar.TypeSymlink}}, err: "symbolic link"},
		"a pipe at the top": {entries: []entry{{name: "./photos", kind: tar.TypeFifo}}, err: "neither a file nor a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			target, secret := filepath.Join(dir, "into", "copy"), filepath.Join(dir, "into", "secret")
			if err := errors.Join(os.Mkdir(filepath.Dir(target), 0o700), os.WriteFile(secret, []byte("secret"), 0o600)); err != nil {
				t.Fatal(err)
			}
			var left []string
			err := unpack(archive(t, test.entries...), "photos", target, func(path, _ string) { left = append(left, path) })
			switch {
			case test.err == "" && err != nil, test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
				t.Errorf("error %v, want %q", err, test.err)
			}
			if !slices.Equal(left, test.left) {
				t.Errorf("not copied: %q, want %q", left, test.left)
			}
			want := map[string]string{"into/secret": "secret"}
			for name, text := range test.want {
				want["into/copy/"+name] = text
			}
			if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestUnpackedFilesAreOnesOwn: whoever copies owns them, and no bit gives anybody rights.
func TestUnpackedFilesAreOnesOwn(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "copy")
	from := archive(t, entry{name: "./", kind: tar.TypeDir, mode: 0o6555}, entry{name: "./tool", body: "x", kind: tar.TypeReg, mode: 0o6755}, entry{name: "./closed/", kind: tar.TypeDir, mode: 0o7000}, entry{name: "./closed/in", body: "x", kind: tar.TypeReg, mode: 0o400})
	if err := unpack(from, ".", dir, func(path, why string) { t.Errorf("%s: %s", path, why) }); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{".": 0o700, "tool": 0o700, "closed": 0o700, "closed/in": 0o400} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		stat, _ := info.Sys().(*syscall.Stat_t)
		const bits = fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
		if info.Mode()&bits != 0 || info.Mode().Perm()&0o700 != want || int(stat.Uid) != os.Geteuid() {
			t.Errorf("%s: %s of user %d", name, info.Mode(), stat.Uid)
		}
	}
}

// TestUnpackingKeepsWhatWasThere outside of what it writes, though a link of an earlier copy
// leads to it.
func TestUnpackingKeepsWhatWasThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := filepath.Join(dir, "copy")
	for path, text := range map[string]string{"mine": "mine", "copy/linked": "first"} {
		if err := errors.Join(os.MkdirAll(target, 0o700), os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("../mine", filepath.Join(target, "file")), os.Symlink("..", filepath.Join(target, "up")), os.Link(filepath.Join(target, "linked"), filepath.Join(dir, "other"))); err != nil {
		t.Fatal(err)
	}
	none := func(path, why string) { t.Errorf("%s: %s", path, why) }
	top := entry{name: "./", kind: tar.TypeDir}
	if err := unpack(archive(t, top, entry{name: "./file", body: "theirs", kind: tar.TypeReg}, entry{name: "./linked", body: "theirs", kind: tar.TypeReg}), ".", target, none); err != nil {
		t.Fatal(err)
	}
	if err := unpack(archive(t, top, entry{name: "./up/mine", body: "theirs", kind: tar.TypeReg}), ".", target, none); err == nil {
		t.Error("written through a link that leads out")
	}
	want := map[string]string{"mine": "mine", "other": "first", "copy/file": "theirs", "copy/linked": "theirs", "copy/up": "-> .."}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestSparseFilesAreNotUnpacked: a few bytes would fill the disk.
func TestSparseFilesAreNotUnpacked(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	body := "1\n0\n1\n" // one piece of data at 0, of one byte
	body += strings.Repeat("\x00", 512-len(body)) + "x"
	for _, head := range []*tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700},
		{Name: "./pax", Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(body)), PAXRecords: map[string]string{"SCHILY.x": "1"}},
	} {
		if err := w.WriteHeader(head); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write([]byte(body)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// The writer refuses the keys of sparse files: they are put in afterwards, as long.
	raw := b.Bytes()
	begin := bytes.Index(raw, []byte("14 SCHILY.x=1\n"))
	if begin < 0 {
		t.Fatalf("no record in %q", raw[:2048])
	}
	records := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n30 GNU.sparse.realsize=999999\n"
	copy(raw[begin:], records)
	head := raw[begin-512 : begin]
	copy(head[124:], []byte("00000000112\x00")) // the length of the records
	sum := 0
	copy(head[148:156], "        ")
	for _, c := range head {
		sum += int(c)
	}
	copy(head[148:], []byte{'0' + byte(sum>>15&7), '0' + byte(sum>>12&7), '0' + byte(sum>>9&7), '0' + byte(sum>>6&7), '0' + byte(sum>>3&7), '0' + byte(sum&7), 0, ' '})
	if len(records) != 0o112 {
		t.Fatalf("the records are %o long", len(records))
	}
	var left []string
	dir := filepath.Join(t.TempDir(), "copy")
	if err := unpack(bytes.NewReader(raw), ".", dir, func(path, _ string) { left = append(left, path) }); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, dir); len(got) != 0 || len(left) != 1 {
		t.Errorf("%d files, not copied %q", len(got), left)
	}
	if err := unpack(bytes.NewReader(raw[512:]), "pax", filepath.Join(dir, "alone"), nil); err == nil || !strings.Contains(err.Error(), neither) {
		t.Errorf("alone: %v", err)
	}
}

// TestPackedIsUnpacked with names of all bytes, and without what is no file.
func TestPackedIsUnpacked(t *testing.T) {
	t.Parallel()
	source, target := filepath.Join(t.TempDir(), "source"), filepath.Join(t.TempDir(), "copy")
	long := strings.Repeat("long", 60)
	for _, name := range []string{"plain", "a b", "\xff\xfe", "-rf", "@x", "new\nline", long + "/" + long} {
		if err := errors.Join(os.MkdirAll(filepath.Join(source, filepath.Dir(name)), 0o700), os.WriteFile(filepath.Join(source, name), []byte(name), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Unix(-86400, 500)
	if err := errors.Join(os.Symlink("plain", filepath.Join(source, "link")), syscall.Mkfifo(filepath.Join(source, "pipe"), 0o600), os.Chtimes(filepath.Join(source, "plain"), at, at)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	var left []string
	if err := pack(&b, source, "name", func(path, _ string) { left = append(left, path) }); err != nil {
		t.Fatal(err)
	}
	if err := unpack(&b, "name", target, func(path, why string) { t.Errorf("%s: %s", path, why) }); err != nil {
		t.Fatal(err)
	}
	if want := []string{filepath.Join(source, "pipe")}; !slices.Equal(left, want) {
		t.Errorf("not copied: %q, want %q", left, want)
	}
	if err := os.Remove(filepath.Join(source, "pipe")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tree(t, source), tree(t, target)); diff != "" {
		t.Errorf("(-source +copy):\n%s", diff)
	}
	if info, err := os.Stat(filepath.Join(target, "plain")); err != nil || !info.ModTime().Equal(at.Truncate(time.Second)) || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestProgressIsShownWhenItTakesLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := &progress{line: &passingLine{&out}, began: time.Now()}
		some := make([]byte, 1<<20)
		for range 10 {
			_, _ = p.Write(some)
			<-time.After(progressAfter / 8)
		}
		if want := "\r\x1b[K9.0 MB copied"; !strings.Contains(out.String(), "copied") || strings.Count(out.String(), "\r") > 2 {
			t.Errorf("%q, want something like %q", out.String(), want)
		}
		p.done()
		if !strings.HasSuffix(out.String(), "\r\x1b[K") {
			t.Errorf("it is left: %q", out.String())
		}
		silent := &progress{began: time.Now()}
		<-time.After(time.Hour)
		_, _ = silent.Write(some)
		silent.done()
	})
}

func TestOfManyThatWereNotCopiedSomeAreNamed(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	n := &notCopied{to: &out}
	if n.failure() != nil {
		t.Error(n.failure())
	}
	for range 1000 {
		n.add("bad\x1bname", neither)
	}
	if n.failure() == nil || strings.Count(out.String(), "\n") != 20 || strings.Contains(out.String(), "\x1b") {
		t.Errorf("%v, %q", n.failure(), out.String())
	}
}
