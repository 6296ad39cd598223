package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
	"tenement/internal/api"
)

func TestAlertsCommand(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	daemon := answers(map[string]any{
		"GET /api/alerts": api.PendingAlerts{Alerts: []api.PendingAlert{
			{ID: "msg_1", Kind: tenement.AlertFailed, At: at, Instance: alice.ID, Attempts: 2, NextAt: at.Add(time.Minute), Error: "status 500: a\x1bb"},
			{ID: "msg_2", Kind: tenement.AlertDiskLow, At: at, NextAt: at},
		}},
		"POST /api/alerts/test": api.AlertTest{ID: "msg_3", Delivered: true, Status: 204, TookMS: 12.3},
	})
	for line, want := range map[string]outcome{
		"alerts": {0, `AT                    KIND       INSTANCE    ATTEMPTS   NEXT                  ERROR
2026-01-02 03:04:05   failed     api:alice   2          2026-01-02 03:05:05   status 500: a\x1bb
2026-01-02 03:04:05   disk_low   -           0          2026-01-02 03:04:05   -
`, ""},
		"alerts test": {0, "msg_3 was delivered: status 204 after 12 ms\n", ""},
	} {
		got := ten(t, daemon, strings.Fields(line)...)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("ten %s (-want +got):\n%s", line, diff)
		}
	}
	refuses := answers(map[string]any{"POST /api/alerts/test": api.AlertTest{ID: "msg_3", Status: 400, Error: "status 400: a\x1bb"}})
	if got := ten(t, refuses, "alerts", "test"); got != (outcome{1, "msg_3 was not delivered: status 400: a\\x1bb\n", ""}) {
		t.Errorf("%+v", got)
	}
	if got := ten(t, refuses, "alerts", "tset"); got.status != 2 {
		t.Errorf("%+v", got)
	}
}
