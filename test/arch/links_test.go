package arch

import (
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const top = "../.." // of the repository

// link is a Markdown link's target; inline code and fenced blocks are cut out first.
var (
	link   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fenced = regexp.MustCompile("(?ms)^```.*?^```|`[^`\n]+`")
)

// TestDocsLinkToWhatExists keeps the documents from naming files that are gone.
func TestDocsLinkToWhatExists(t *testing.T) {
	t.Parallel()
	documents := 0
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != top && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		documents++
		return checkLinks(t, path)
	})
	if err != nil {
		t.Fatal(err)
	}
	if documents == 0 {
		t.Fatalf("no document found below %s", top)
	}
}

func checkLinks(t *testing.T, document string) error {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	for _, found := range link.FindAllStringSubmatch(fenced.ReplaceAllString(string(text), ""), -1) {
		target, err := url.Parse(found[1])
		if err != nil {
			t.Errorf("%s: link to %q: %v", document, found[1], err)
			continue
		}
		if target.IsAbs() || target.Path == "" {
			continue // elsewhere, or within the document
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(document), target.Path)); err != nil {
			t.Errorf("%s links to %q, which is not there", document, found[1])
		}
	}
	return nil
}
