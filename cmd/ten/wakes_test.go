package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tenement"
	"tenement/internal/api"
)

func TestWakes(t *testing.T) {
	t.Parallel()
	var query string
	at := time.Date(2026, 1, 31, 15, 4, 5, 0, time.Local)
	daemon := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.Path + "?" + r.URL.RawQuery
		write(w, 200, "application/json", api.Wakes{Wakes: []api.Wake{
			{ID: 1, At: at, Instance: alice.ID, Cause: tenement.CauseRequest, Client: "public", UserAgent: "Mozilla\x1b", Path: "/page", QueueMS: 0.25, SpawnMS: 12.4, ReadyMS: 12345, FirstByteMS: 3, Outcome: "ok", Shared: 2},
			{ID: 2, At: at, Instance: alice.ID, Cause: tenement.CauseRestart, Outcome: "unavailable"},
		}})
	})
	got := ten(t, daemon, "wakes", "api:alice", "--limit", "7", "--since", "2026-01-01T00:00:00Z")
	want := "AT                    INSTANCE    CAUSE     OUTCOME       QUEUE   SPAWN   READY   FIRST BYTE   SHARED   CLIENT   PATH    USER AGENT\n" +
		"2026-01-31 15:04:05   api:alice   request   ok            0.2ms   12ms    12.3s   3.0ms        2        public   /page   Mozilla\\x1b\n" +
		"2026-01-31 15:04:05   api:alice   restart   unavailable   -       -       -       -            0        -        -       -\n"
	if diff := cmp.Diff(outcome{0, want, ""}, got, cmp.AllowUnexported(outcome{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if want := "/api/wakes?instance=api%3Aalice&limit=7&since=2026-01-01T00%3A00%3A00Z"; query != want {
		t.Errorf("asked %s, want %s", query, want)
	}
	if got := ten(t, daemon, "wakes", "--json"); strings.Count(got.stdout, "\n") != 2 || !strings.Contains(got.stdout, `{"id":2,`) {
		t.Errorf("%s", got.stdout)
	}
}

// TestUsage: two pages, as sums and hour by hour.
func TestUsage(t *testing.T) {
	t.Parallel()
	hour := time.Date(2026, 1, 31, 15, 0, 0, 0, time.UTC)
	bob := tenement.InstanceID{Service: "api", Name: "bob"}
	var queries []string
	daemon := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		queries = append(queries, r.URL.RawQuery)
		page := api.Usage{Next: hour.Add(time.Hour), Hours: []api.UsageHour{
			{Hour: hour, Instance: bob, AwakeSeconds: 30, Requests: 1},
			{Hour: hour, Instance: alice.ID, AwakeSeconds: 3600, CPUSeconds: 1.25, MemoryByteSeconds: 1 << 41, Requests: 2, BytesIn: 10, BytesOut: 2048, StorageBytes: 4096},
		}}
		if len(queries)%2 == 0 {
			page = api.Usage{Hours: []api.UsageHour{{Hour: hour.Add(time.Hour), Instance: alice.ID, AwakeSeconds: 1800, Requests: 3}}}
		}
		write(w, 200, "application/json", page)
	})
	got := ten(t, daemon, "usage", "--since", "2026-01-01T00:30:00Z")
	want := "INSTANCE    AWAKE   CPU    MEMORY       REQUESTS   IN     OUT       STORAGE\n" +
		"api:alice   1h30m   1.2s   0.57 GiB·h   5          10 B   2.0 KiB   4.0 KiB\n" +
		"api:bob     30s     0.0s   0.00 GiB·h   1          0 B    0 B       0 B\n"
	if diff := cmp.Diff(outcome{0, want, ""}, got, cmp.AllowUnexported(outcome{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"since=2026-01-01T00%3A00%3A00Z", "since=2026-01-31T16%3A00%3A00Z"}, queries); diff != "" {
		t.Errorf("asked for %s", diff)
	}
	got = ten(t, daemon, "usage", "--csv", "--since", "2026-01-01T00:00:00Z")
	want = "hour,service,name,awake_seconds,cpu_seconds,memory_byte_seconds,requests,bytes_in,bytes_out,storage_bytes\n" +
		"2026-01-31T15:00:00Z,api,bob,30.000,0.000,0,1,0,0,0\n" +
		"2026-01-31T15:00:00Z,api,alice,3600.000,1.250,2199023255552,2,10,2048,4096\n" +
		"2026-01-31T16:00:00Z,api,alice,1800.000,0.000,0,3,0,0,0\n"
	if diff := cmp.Diff(outcome{0, want, ""}, got, cmp.AllowUnexported(outcome{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got = ten(t, daemon, "usage", "--json"); strings.Count(got.stdout, "\n") != 3 {
		t.Errorf("%s", got.stdout)
	}
}
