package config

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"tenement"
)

var update = flag.Bool("update", false, "write what the tests get into their golden files")

const mistakesFile = "testdata/mistakes.txtar"

// TestMistakes compares the whole text that people see.
func TestMistakes(t *testing.T) {
	if !*update { // then nobody may read while it writes
		t.Parallel()
	}
	archive, err := txtar.ParseFile(mistakesFile)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, file := range archive.Files {
		want[file.Name] = string(file.Data)
	}
	var written []txtar.File
	for _, file := range archive.Files {
		name, ok := strings.CutSuffix(file.Name, ".toml")
		if !ok {
			continue
		}
		got := refusal(t, file)
		written = append(written, file, txtar.File{Name: name + ".txt", Data: []byte(got)})
		if *update {
			continue
		}
		if diff := cmp.Diff(want[name+".txt"], got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file.Name, diff)
		}
	}
	if *update {
		archive.Files = written
		if err := os.WriteFile(mistakesFile, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// refusal is the text of the error that the file must lead to.
func refusal(t *testing.T, file txtar.File) string {
	t.Helper()
	c, err := Parse("tenement.toml", file.Data, Overrides{})
	var mistakes Mistakes
	if c != nil || tenement.CodeOf(err) != tenement.CodeInvalid || !errors.As(err, &mistakes) {
		t.Fatalf("%s: got %v and %v, want mistakes", file.Name, c, err)
	}
	for _, m := range mistakes {
		if m.File != "tenement.toml" || m.Line < 1 || m.Line > bytes.Count(file.Data, []byte("\n"))+1 || m.Column < 1 {
			t.Errorf("%s: no such place: %s:%d:%d", file.Name, m.File, m.Line, m.Column)
		}
	}
	return err.Error() + "\n"
}

// TestSixMistakes: a file with six different mistakes prints six messages with
// their places.
func TestSixMistakes(t *testing.T) {
	t.Parallel()
	archive, err := txtar.ParseFile(mistakesFile)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Parse("tenement.toml", archive.Files[0].Data, Overrides{})
	var mistakes Mistakes
	if !errors.As(err, &mistakes) {
		t.Fatalf("got %v", err)
	}
	type place struct{ Line, Column int }
	var got []place
	for _, m := range mistakes {
		got = append(got, place{m.Line, m.Column})
	}
	want := []place{{2, 1}, {3, 16}, {6, 27}, {7, 10}, {8, 13}, {11, 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestSnippetIsHarmless: what reaches the terminal has no control characters of
// the file's, and the caret stands below the place.
func TestSnippetIsHarmless(t *testing.T) {
	t.Parallel()
	_, err := Parse("tenement.toml", []byte("a = \"\x1b[2J\"\n"), Overrides{})
	var mistakes Mistakes
	if !errors.As(err, &mistakes) {
		t.Fatalf("got %v", err)
	}
	if strings.ContainsRune(err.Error(), '\x1b') {
		t.Errorf("an escape character in %q", err)
	}
	if want := "a = \"\uFFFD[2J\"\n     ^"; mistakes[0].Snippet != want {
		t.Errorf("got %q, want %q", mistakes[0].Snippet, want)
	}
}
