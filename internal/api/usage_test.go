package api

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

func TestWakes(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	url := overTCP(t, newTestServer(t, b))
	since := time.Unix(5, 0).UTC()
	admin := newTestClient(t, Target{Server: url, Token: b.secret(t, "")})
	page, err := admin.Wakes(t.Context(), WakeOptions{Instance: alice, Since: since, Before: 7, Limit: 1})
	want := Wake{
		ID: 1, At: time.Unix(1, 0).UTC(), Instance: alice, Cause: tenement.CauseRequest, Client: "public", UserAgent: "curl", Path: "/",
		QueueMS: 1.5, ReadyMS: 1000, Outcome: "ok", Shared: 1,
	}
	if diff := cmp.Diff(Wakes{Wakes: []Wake{want}, Next: 1}, page); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if diff := cmp.Diff(any(tenement.WakeQuery{Instance: alice, Since: since, Before: 7, Limit: 1}), b.lastAsked()); diff != "" {
		t.Error(diff)
	}
	// A tenant is not told where its visitors are.
	tenant := newTestClient(t, Target{Server: url, Token: b.secret(t, "alice")})
	page, err = tenant.Wakes(t.Context(), WakeOptions{})
	want.Client = ""
	if diff := cmp.Diff(Wakes{Wakes: []Wake{want}}, page); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	url := overTCP(t, newTestServer(t, b))
	o := UsageOptions{Instance: bob, Since: time.Unix(3600, 0).UTC(), Until: time.Unix(7200, 0).UTC()}
	page, err := newTestClient(t, Target{Server: url, Token: b.secret(t, "")}).Usage(t.Context(), o)
	want := Usage{Next: time.Unix(7200, 0).UTC(), Hours: []UsageHour{{
		Hour: time.Unix(3600, 0).UTC(), Instance: bob, AwakeSeconds: 60, CPUSeconds: 1.5, MemoryByteSeconds: 1 << 40, Requests: 3, BytesIn: 4, BytesOut: 5,
	}}}
	if diff := cmp.Diff(want, page); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if diff := cmp.Diff(any(tenement.UsageQuery{Instance: bob, Since: o.Since, Until: o.Until}), b.lastAsked()); diff != "" {
		t.Error(diff)
	}
	// A tenant is told of its own.
	if _, err = newTestClient(t, Target{Server: url, Token: b.secret(t, "alice")}).Usage(t.Context(), UsageOptions{}); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(any(tenement.UsageQuery{Tenant: "alice"}), b.lastAsked()); diff != "" {
		t.Error(diff)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	token := b.secretFor(t, tenement.Token{Scope: tenement.Scope{Role: tenement.RoleMetrics}})
	text, err := newTestClient(t, Target{Server: overTCP(t, newTestServer(t, b)), Token: token}).Metrics(t.Context())
	if err != nil || !strings.Contains(string(text), "tenement_held_requests 0") {
		t.Errorf("%s, %v", text, err)
	}
}
