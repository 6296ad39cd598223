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
		Hour: time.Unix(3600, 0).UTC(), Instance: bob, AwakeSeconds: 60, CPUSeconds: 1.5, MemoryByteSeconds: 1 << 40, Requests: 3, BytesIn: 4, BytesOut: 5, StorageBytes: 6,
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

func TestUsageTotals(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	url := overTCP(t, newTestServer(t, b))
	admin := newTestClient(t, Target{Server: url, Token: b.secret(t, "")})
	since := time.Unix(3600, 0).UTC()
	sum := UsageTotal{AwakeSeconds: 60, Requests: 3}

	got, err := admin.UsageTotals(t.Context(), UsageOptions{Since: since, Instance: bob}, tenement.UsageByInstance, 7)
	of := sum
	of.Instance = &bob
	if diff := cmp.Diff(UsageTotals{All: sum, Totals: []UsageTotal{of}}, got); diff != "" || err != nil {
		t.Errorf("by instance: %v\n%s", err, diff)
	}
	want := totalsAsked{tenement.UsageQuery{Instance: bob, Since: since}, tenement.UsageByInstance, 7}
	if got := b.lastAsked(); got != any(want) {
		t.Errorf("asked %+v, want %+v", got, want)
	}

	got, err = admin.UsageTotals(t.Context(), UsageOptions{}, tenement.UsageByHour, 0)
	if err != nil || len(got.Totals) != 2 || !got.Totals[0].Hour.Equal(since) {
		t.Errorf("by hour: %+v, %v", got, err)
	}
	tenant := newTestClient(t, Target{Server: url, Token: b.secret(t, "alice")})
	if _, err := tenant.UsageTotals(t.Context(), UsageOptions{}, tenement.UsageByInstance, 0); err != nil {
		t.Error(err)
	}
	if asked, ok := b.lastAsked().(totalsAsked); !ok || asked.query.Tenant != "alice" {
		t.Errorf("a tenant's totals are of %+v", b.lastAsked())
	}
}

func TestTimeline(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	client := newTestClient(t, Target{Server: overTCP(t, newTestServer(t, b)), Token: b.secret(t, "")})
	at := time.Unix(15, 0).UTC()
	want := Timeline{
		StepSeconds: 15,
		Samples:     []Sample{{At: at, Requests: 10, Errors: 1, MedianMS: 1.5, P95MS: 1000, CPUSeconds: 0.3, Memory: 1 << 20}},
		Changes:     []StateChange{{At: at, From: tenement.Asleep, To: tenement.Starting}},
	}
	got, err := client.Timeline(t.Context(), alice)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	box, err := client.BoxTimeline(t.Context())
	if err != nil || box.StepSeconds != 15 || len(box.Samples) != 1 || box.Samples[0].Requests != 30 || box.Samples[0].Pressure.IO != 2 {
		t.Errorf("%+v, %v", box, err)
	}
}
