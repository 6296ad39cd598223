package rootless

import (
	"strings"
	"testing"

	"tenement"
)

func TestLargestRange(t *testing.T) {
	t.Parallel()
	const name, uid = "alice", 1000
	for text, want := range map[string]Range{
		"":                       {},
		"bob:100000:65536\n":     {},
		"alice:100000:65536\n":   {100_000, 65_536},
		"1000:100000:65536":      {100_000, 65_536},
		"alice:100000:65536:1\n": {},
		"# alice\nbob:1:2\nalice:100000:10\nalice:300000:65536\nalice:200000:20\n": {300_000, 65_536},
	} {
		if got, err := largest(strings.NewReader(text), name, uid); got != want || err != nil {
			t.Errorf("%q gives %v, %v, want %v", text, got, err, want)
		}
	}
	if _, err := largest(strings.NewReader("alice:many:65536\n"), name, uid); err == nil {
		t.Error("no error for a number that is none")
	}
}

func TestNoIDsIsUnavailable(t *testing.T) {
	t.Parallel()
	_, err := subordinate(t.TempDir()+"/none", "alice", 1000)
	if tenement.CodeOf(err) != tenement.CodeUnavailable || !strings.Contains(tenement.HintOf(err), "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 alice") {
		t.Errorf("the error is %v, with the hint %q", err, tenement.HintOf(err))
	}
}
