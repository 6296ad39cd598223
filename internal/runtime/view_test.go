package runtime

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

func TestViewLeavesOutWhatIsShownAlready(t *testing.T) {
	t.Parallel()
	v := view{
		links:   map[string]string{"/bin": "usr/bin"},
		covered: "/srv/app/data",
		binds: []bind{
			{path: "/usr", source: "/usr"},
			{path: "/srv/app", source: "/srv/app"},
			{path: "/srv/app/main.py", source: "/srv/app/main.py"},       // in it
			{path: "/srv/app/lib", source: "/opt/lib"},                   // a link in it, whose target is
			{path: "/opt/lib", source: "/opt/lib"},                       // shown
			{path: "/srv/app/up", source: "/srv/app/up", writable: true}, // in it, but to be changed
			{path: "/srv/app/data/tool", source: "/srv/app/data/tool"},   // below what is covered
			{path: "/bin/sh", source: "/usr/bin/dash"},                   // behind a link
			{path: "/srv/application", source: "/srv/application"},       // not in /srv/app
			{path: "/var/cache", source: "/var/cache", writable: true},   // twice: the stronger holds
			{path: "/var/cache", source: "/var/cache"},
			{path: "/current", source: "/releases/7"}, // a link at the top has a place of its own
			{path: "/releases/7", source: "/releases/7"},
			{path: "/tmp/app", source: "/tmp/app"}, // where each process has a place of its own
		},
	}
	v.simplify()
	var shown, late []string
	for _, b := range v.binds {
		path := b.path
		if b.writable {
			path += " writable"
		}
		shown = append(shown, path)
	}
	for _, b := range v.late {
		late = append(late, b.path)
	}
	want := []string{
		"/current", "/opt/lib", "/releases/7", "/srv/app", "/srv/app/data/tool", "/srv/app/up writable", "/srv/application", "/usr", "/var/cache writable",
	}
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/tmp/app"}, late); diff != "" {
		t.Errorf("late (-want +got)\n%s", diff)
	}
}

func TestOwnPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	venv := filepath.Join(dir, "venv")
	if err := os.MkdirAll(filepath.Join(venv, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(venv, "pyvenv.cfg"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	python := filepath.Join(venv, "bin", "python")
	if err := os.Symlink("/usr/bin/true", python); err != nil {
		t.Fatal(err)
	}
	s := Spec{DataDir: "/data/api/alice", Service: &tenement.Service{DataDir: "/data/api"}}
	for name, c := range map[string]struct {
		command command
		want    []string
	}{
		"a program":             {command{path: "/opt/app", args: []string{"app"}, dir: "/data/api/alice"}, []string{"/opt/app"}},
		"a working directory":   {command{path: "/opt/app", args: []string{"app"}, dir: "/srv/app"}, []string{"/srv/app", "/opt/app"}},
		"a script":              {command{path: "/usr/bin/node", args: []string{"node", "--x", "rel.js", "/srv/app.js"}, dir: "/data/api/alice"}, []string{"/srv/app.js", "/usr/bin/node"}},
		"all there is":          {command{path: "/opt/app", args: []string{"app", "/", "/data"}, dir: "/data/api/alice"}, []string{"/opt/app"}},
		"others' data":          {command{path: "/opt/app", args: []string{"app", "/data/web", "/data/api/bob"}, dir: "/data/api/alice"}, []string{"/opt/app"}},
		"a virtual environment": {command{path: python, args: []string{"python"}, dir: "/data/api/alice"}, []string{python, venv, "/usr/bin/true"}},
	} {
		if diff := cmp.Diff(c.want, ownPaths(s, c.command)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}

func TestProgramsAreLookedForWhereTheyAreSeen(t *testing.T) {
	t.Parallel()
	service := &tenement.Service{Readable: []string{"/opt/tools"}}
	got := visibleFirst([]string{"/root/.shims", "/usr/local/bin", "/opt/tools/bin", "/home/me/bin", "/bin"}, service)
	want := []string{"/usr/local/bin", "/opt/tools/bin", "/bin", "/root/.shims", "/home/me/bin"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
