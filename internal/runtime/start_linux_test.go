package runtime_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tenement"
	"tenement/internal/probe"
	"tenement/internal/runtime"
	"tenement/internal/runtime/runtimetest"
)

// BenchmarkStart takes turns between the degrees of isolation: from Start to the first
// byte of an answer of the same static program, in milliseconds, medians.
func BenchmarkStart(b *testing.B) {
	program := compileTenant(b)
	runtimes := map[string]runtime.Runtime{}
	for _, kind := range []string{"host with cgroups", "namespace"} {
		open := kinds[kind]
		if kind == "namespace" {
			open = func(dir string) (runtime.Runtime, func() error, error) { return openPrepared(dir, 4) }
		}
		rt, closeRuntime, err := open(b.TempDir())
		if err != nil {
			b.Skip(err)
		}
		defer func() {
			if err := closeRuntime(); err != nil {
				b.Error(err)
			}
		}()
		runtimes[kind] = rt
	}
	took := map[string][]time.Duration{}
	dir := b.TempDir()
	for b.Loop() {
		for kind, rt := range runtimes {
			took[kind] = append(took[kind], firstByte(b, rt, kind, dir, program))
		}
	}
	process, namespace := median(took["host with cgroups"]), median(took["namespace"])
	b.ReportMetric(ms(process), "process-ms")
	b.ReportMetric(ms(namespace), "namespace-ms")
	b.ReportMetric(ms(namespace-process), "added-ms")
	b.ReportMetric(float64(namespace)/float64(process), "namespace/process")
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

func compileTenant(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	source := filepath.Join(dir, "main.go")
	err := os.WriteFile(source, []byte(`package main

import (
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("ok")) })
	http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil)
}
`), 0o600)
	if err != nil {
		b.Fatal(err)
	}
	program := filepath.Join(dir, "tenant")
	compiler := exec.Command("go", "build", "-o", program, source)
	compiler.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compiler.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return program
}

func firstByte(b *testing.B, rt runtime.Runtime, kind, dir, program string) time.Duration {
	b.Helper()
	dataDir, err := os.MkdirTemp(dir, "") //nolint:usetesting // beside the others of the service
	if err != nil {
		b.Fatal(err)
	}
	uid, err := runtimetest.OwnUID(kind, dataDir)
	if err != nil {
		b.Fatal(err)
	}
	s := runtime.Spec{
		Instance: tenement.InstanceID{Service: "api", Name: filepath.Base(dataDir)}, DataDir: dataDir, UID: uid,
		Service: &tenement.Service{Name: "api", Egress: tenement.EgressAllow, DataDir: filepath.Dir(dataDir), Command: []tenement.Template{tenement.MustTemplate(program)}},
	}
	begin := time.Now()
	p, err := rt.Start(b.Context(), s)
	if err != nil {
		b.Fatal(err)
	}
	if err := probe.Ready(b.Context(), probe.Target{Dial: p.Dial, Path: "/"}); err != nil {
		b.Fatal(err)
	}
	took := time.Since(begin)
	_ = p.Kill()
	<-p.Exited()
	ended, cancel := context.WithCancel(b.Context())
	cancel()
	if err := p.Release(ended); err != nil {
		b.Fatal(err)
	}
	return took
}
