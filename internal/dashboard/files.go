package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed static
var static embed.FS

// types are those of the files: what the machine calls them must not matter.
var types = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

// file is one of the embedded ones. They change with the program only, under the same
// names: a browser keeps them and asks each time whether they are still the same.
type file struct {
	content []byte
	kind    string // Content-Type
	tag     string // ETag
}

func (f file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("ETag", f.tag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}

// readFiles are all embedded files by their paths.
func readFiles() map[string]file {
	files := map[string]file{}
	err := fs.WalkDir(static, "static", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := static.ReadFile(name)
		kind, known := types[path.Ext(name)]
		if !known {
			return fmt.Errorf("%s is of no known type", name)
		}
		sum := sha256.Sum256(content)
		tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
		files[strings.TrimPrefix(name, "static/")] = file{content, kind, tag}
		return err
	})
	if err != nil {
		panic(fmt.Errorf("read the dashboard's files: %w", err))
	}
	return files
}

const (
	importMapBegins = `<script type="importmap">`
	importMapEnds   = `</script>`
)

// policy lets a page load our own files and nothing else. Browsers take an import map only
// from within the page: it is the one thing there that is let run, by its hash.
func policy(index []byte) string {
	_, rest, begins := strings.Cut(string(index), importMapBegins)
	importMap, _, ends := strings.Cut(rest, importMapEnds)
	if !begins || !ends {
		panic("the dashboard's page has no import map")
	}
	sum := sha256.Sum256([]byte(importMap))
	return "default-src 'none'; script-src 'self' 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; " +
		"style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}
