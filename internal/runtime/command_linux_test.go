package runtime

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"

	"tenement"
)

// spawned runs sh with the script to its end.
func spawned(t testing.TB, script string, openFiles int) tenement.Exit {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll([]*os.File{null})
	c := command{path: "/bin/sh", args: []string{"sh", "-c", script}, dir: "/", openFiles: openFiles}
	h, err := spawn(c, []*os.File{null, null, null}, &syscall.SysProcAttr{Setpgid: true})
	if err != nil {
		t.Error(err)
		return tenement.Exit{}
	}
	defer h.close()
	return h.wait()
}

func TestManyAreLimitedAtOnce(t *testing.T) {
	t.Parallel()
	var group sync.WaitGroup
	for n := range 64 {
		group.Go(func() {
			limit := 100 + n
			if n%4 == 0 {
				limit = 0 // and some are not
			}
			script := fmt.Sprintf("test %d = 0 -o $(ulimit -n) = %[1]d && kill -TERM $$", limit)
			if got, want := spawned(t, script, limit), (tenement.Exit{Status: -1, Signal: "terminated", Known: true}); got != want {
				t.Errorf("with a limit of %d: %+v", limit, got)
			}
		})
	}
	group.Wait()
}

func TestEndForWantOfMemory(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		exit tenement.Exit
		want bool
	}{
		{tenement.Exit{Status: -1, Signal: "killed", Known: true}, true},
		{tenement.Exit{Status: 137, Known: true}, true}, // what a shell says of its command
		{tenement.Exit{Status: -1}, true},
		{tenement.Exit{Status: -1, Signal: "terminated", Known: true}, false},
		{tenement.Exit{Status: 1, Known: true}, false},
		{tenement.Exit{Known: true}, false},
	} {
		if got := endedByKill(test.exit); got != test.want {
			t.Errorf("%+v: %t", test.exit, got)
		}
	}
}

func BenchmarkSpawn(b *testing.B) {
	for name, limit := range map[string]int{"free": 0, "limited": 1024} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				spawned(b, "exit", limit)
			}
		})
	}
}
