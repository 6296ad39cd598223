package dashboard

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestFilesAreServed with what lets browsers keep them until they change.
func TestFilesAreServed(t *testing.T) {
	t.Parallel()
	h := New(newFakeAPI())
	seen := 0
	for name, f := range readFiles() {
		if f.kind == types[".html"] {
			continue
		}
		seen++
		w := send(h, http.MethodGet, "/assets/"+name, nil)
		if w.Code != http.StatusOK || w.Body.String() != string(f.content) || w.Header().Get("Content-Type") != f.kind || w.Header().Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %d, %v", name, w.Code, w.Header())
		}
		tag := w.Header().Get("ETag")
		if w = send(h, http.MethodGet, "/assets/"+name, http.Header{"If-None-Match": {tag}}); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
			t.Errorf("%s, known as %s: %d", name, tag, w.Code)
		}
		if w = send(h, http.MethodGet, "/assets/"+name, http.Header{"If-None-Match": {`"other"`}}); w.Code != http.StatusOK {
			t.Errorf("%s, known otherwise: %d", name, w.Code)
		}
	}
	if seen < 10 {
		t.Errorf("only %d files", seen)
	}
	for _, none := range []string{"/assets/", "/assets/login.html", "/assets/index.html", "/assets/none.js", "/assets/lib/", "/static/app.js", "/assets/../files.go"} {
		if w := send(h, http.MethodGet, none, nil); w.Code == http.StatusOK {
			t.Errorf("%s is served", none)
		}
	}
}

var (
	address  = regexp.MustCompile(`(?i)(?:https?|wss?)://[^\s"'` + "`" + `<>)]+`)
	relative = regexp.MustCompile(`["'(]//\w`) // to the scheme of the page

	comment = regexp.MustCompile(`(?m)(?:^|\s)//.*$|(?s:/\*.*?\*/)`)

	// What is named and never asked for.
	namespaces = regexp.MustCompile(`^http://www\.w3\.org/`)
)

// TestNothingComesFromElsewhere: no file of the dashboard names another host to ask.
func TestNothingComesFromElsewhere(t *testing.T) {
	t.Parallel()
	for name, f := range readFiles() {
		if strings.HasSuffix(name, ".txt") {
			continue // licences
		}
		text := comment.ReplaceAllString(string(f.content), "")
		for _, found := range address.FindAllString(text, -1) {
			if !namespaces.MatchString(found) {
				t.Errorf("%s names %s", name, found)
			}
		}
		if found := relative.FindString(text); found != "" {
			t.Errorf("%s has %s", name, found)
		}
	}
}

var imports = regexp.MustCompile(`(?:\bfrom|\bimport)\s*\(?\s*["']([^"'\s]+)["']`)

// TestImportsResolve: every module that a script imports is one of our files.
func TestImportsResolve(t *testing.T) {
	t.Parallel()
	files := readFiles()
	_, rest, _ := strings.Cut(string(files["index.html"].content), importMapBegins)
	text, _, _ := strings.Cut(rest, importMapEnds)
	var importMap struct{ Imports map[string]string }
	if err := json.Unmarshal([]byte(text), &importMap); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for name, f := range files {
		if path.Ext(name) != ".js" {
			continue
		}
		for _, found := range imports.FindAllSubmatch(f.content, -1) {
			module := string(found[1])
			target := path.Join("/assets", path.Dir(name), module)
			if !strings.HasPrefix(module, ".") {
				target, used[module] = importMap.Imports[module], true
			}
			if _, ok := files[strings.TrimPrefix(target, "/assets/")]; !ok {
				t.Errorf("%s imports %q, which is no file", name, module)
			}
		}
	}
	for _, module := range slices.Sorted(maps.Keys(importMap.Imports)) {
		if !used[module] {
			t.Errorf("nobody imports %s", module)
		}
	}
}

// inline is what a strict policy keeps from working.
var inline = regexp.MustCompile(`(?i)<script(?:>| [^>]*)|<style|\sstyle=|\son[a-z]+=|javascript:`)

// TestPolicyFitsPages: what the pages have within them is what the policy lets run.
func TestPolicyFitsPages(t *testing.T) {
	t.Parallel()
	files := readFiles()
	for _, name := range []string{"index.html", "login.html"} {
		for _, found := range inline.FindAllString(string(files[name].content), -1) {
			if found != `<script type="importmap"` && found != `<script type="module" src="/assets/app.js"` {
				t.Errorf("%s has %s", name, found)
			}
		}
	}
	for name, f := range files {
		if path.Ext(name) == ".js" && !strings.HasPrefix(name, "lib/") {
			if found := regexp.MustCompile(`\sstyle=|innerHTML|localStorage|\beval\(`).Find(f.content); found != nil {
				t.Errorf("%s has %s", name, found)
			}
		}
	}
	_, rest, _ := strings.Cut(string(files["index.html"].content), `<script type="importmap">`)
	importMap, _, _ := strings.Cut(rest, "</script>")
	sum := sha256.Sum256([]byte(importMap))
	got := policy(files["index.html"].content)
	for _, part := range []string{
		"default-src 'none'", "script-src 'self' 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "';",
		"style-src 'self';", "connect-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
	} {
		if !strings.Contains(got, part) {
			t.Errorf("the policy %q lacks %q", got, part)
		}
	}
	if strings.Contains(got, "unsafe") || strings.Contains(got, "http") || strings.Contains(got, "*") {
		t.Errorf("the policy is %q", got)
	}
}
