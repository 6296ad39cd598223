package runtimetest

import (
	"os"
	"path/filepath"
	"testing"

	"tenement/internal/runtime"
)

// held runs the tenant program once the func that it gives is called.
func (b *bench) held(s runtime.Spec) (_ runtime.Spec, letGo func()) {
	b.t.Helper()
	wait := templates("sh", "-c", `until [ -e "$DATA_DIR/go" ]; do sleep 0.01; done; exec "$@"`, "sh")
	s.Service.Command = append(wait, s.Service.Command...)
	return s, func() {
		b.t.Helper()
		if err := os.WriteFile(filepath.Join(s.DataDir, "go"), nil, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}

func testListening(t *testing.T, b *bench) {
	s, letGo := b.held(b.spec("alice", TenantCommand()...))
	p := b.start(s)
	began, done := p.Listening()
	defer done()
	if began == nil {
		t.Skip("nobody tells here: take a runtime with cgroups, as root on Linux 5.15 or newer; TENEMENT_REQUIRE=bpf makes this a failure")
	}
	select {
	case <-began:
		t.Fatal("told before it listens")
	default:
	}
	letGo()
	Within(t, "event", began)
	conn, err := p.Dial(t.Context())
	if err != nil {
		t.Fatalf("it does not accept connections when it is said to: %v", err)
	}
	_ = conn.Close() // nothing was sent
}
