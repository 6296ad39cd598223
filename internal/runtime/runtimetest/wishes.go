package runtimetest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"tenement/internal/runtime"
)

// asker is a tenant that may ask something of us, and is told its own name.
func (b *bench) asker(name string) runtime.Spec {
	b.t.Helper()
	s := b.spec(name, TenantCommand()...)
	s.Service.Wake.Self = true
	s.Heed = func(l net.Listener) {
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, name, " asks for ", r.URL.Path)
		})}
		server.SetKeepAlivesEnabled(false)
		_ = server.Serve(l) // says that it was closed
	}
	return s
}

// asks has p send a request to a socket, its own if that is "".
func (b *bench) asks(p runtime.Process, path, socket string) string {
	b.t.Helper()
	return b.get(p, "/ask?method=POST&path="+url.QueryEscape(path)+"&to="+url.QueryEscape(socket))
}

// testWishes: each asks for itself, as often as it likes, and for nobody else.
func testWishes(t *testing.T, b *bench) {
	alice := b.start(b.asker("alice"))
	b.awaitHealth(alice)
	socket := b.variable(alice, "TENEMENT_SOCKET")
	if b.ownKernel() {
		if socket != "" {
			t.Errorf("it is told of a socket, %s, that it cannot reach", socket)
		}
		return
	}
	for n := range 10 {
		path := fmt.Sprintf("/%d", n)
		if got := b.asks(alice, path, ""); got != "200 alice asks for "+path {
			t.Fatalf("%s is answered %q", path, got)
		}
	}
	bob := b.start(b.asker("bob"))
	b.awaitHealth(bob)
	if got := b.asks(bob, "/x", socket); strings.HasPrefix(got, "200") {
		t.Errorf("bob asks at %s and is answered %q", socket, got)
	}
	if got := b.asks(bob, "/x", ""); got != "200 bob asks for /x" {
		t.Errorf("bob is answered %q", got)
	}
	b.end(alice)
	if got := b.asks(bob, "/x", socket); !strings.Contains(got, "refused") {
		t.Errorf("at the socket of one that has ended somebody answers %q", got)
	}

	s := b.asker("carol")
	s.Service.Wake.Self = false
	carol := b.start(s)
	b.awaitHealth(carol)
	if socket := b.variable(carol, "TENEMENT_SOCKET"); socket != "" {
		t.Errorf("carol may ask nothing, and is told of %s", socket)
	}
}

// variable is one of p's environment, "" if it is not there.
func (b *bench) variable(p runtime.Process, name string) string {
	b.t.Helper()
	var env []string
	if err := json.Unmarshal([]byte(b.get(p, "/env")), &env); err != nil {
		b.t.Fatal(err)
	}
	at := slices.IndexFunc(env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
	if at < 0 {
		return ""
	}
	return strings.TrimPrefix(env[at], name+"=")
}
