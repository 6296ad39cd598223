package api

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

func TestAlerts(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	client := newTestClient(t, Target{Server: overTCP(t, newTestServer(t, b)), Token: b.secret(t, "")})
	got, err := client.Alerts(t.Context())
	want := []PendingAlert{
		{ID: "msg_1", Kind: tenement.AlertFailed, At: time.Unix(1, 0).UTC(), Instance: alice, Attempts: 2, NextAt: time.Unix(2, 0).UTC(), Error: "status 500"},
		{ID: "msg_2", Kind: tenement.AlertDiskLow, At: time.Unix(1, 0).UTC(), NextAt: time.Unix(1, 0).UTC()},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	test, err := client.TestAlert(t.Context())
	if want := (AlertTest{ID: "msg_3", Status: http.StatusBadRequest, Error: "status 400: no", TookMS: 1.5}); err != nil || test != want {
		t.Errorf("%+v, %v", test, err)
	}
	if e := b.events[len(b.events)-1]; e.Action != "alerts-test" || e.Outcome != "ok" || e.Detail != "status 400: no" {
		t.Errorf("the audit log has %+v", e)
	}
}
