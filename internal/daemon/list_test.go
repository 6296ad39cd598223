package daemon_test

import (
	"net/http"
	"strings"
	"testing"

	"tenement"
	"tenement/internal/api"
)

// TestListFilters asks for every kind of state, page by page, and how many there are.
func TestListFilters(t *testing.T) {
	t.Parallel()
	s := build(t, settings+"max_restarts = 0\n"+service("api", "")+service("broken", "", "-exit=1"))
	s.spawn("api:alice", "api:bob", "api:carol", "api:dave", "broken:alice", "broken:untried")
	s.get("http://alice.api.localhost/")
	s.get("http://carol.api.localhost/")
	s.wants("http://alice.broken.localhost/", http.StatusServiceUnavailable)
	s.until("broken:alice", tenement.Failed)
	if err := s.api.Suspend(t.Context(), id(t, "api:dave")); err != nil {
		t.Fatal(err)
	}
	in := func(states ...tenement.State) api.ListOptions { return api.ListOptions{States: states} }
	for _, row := range []struct {
		o    api.ListOptions
		want string
	}{
		{api.ListOptions{}, "api:alice api:bob api:carol api:dave broken:alice broken:untried"},
		{api.ListOptions{AwakeOnly: true}, "api:alice api:carol broken:alice"},
		{api.ListOptions{Text: "n:a"}, "broken:alice"},
		{api.ListOptions{Text: "al", Service: "api"}, "api:alice"},
		{in(tenement.Ready), "api:alice api:carol"},
		{in(tenement.Asleep), "api:bob broken:untried"},
		{in(tenement.Failed), "broken:alice"},
		{in(tenement.Suspended), "api:dave"},
		{in(tenement.Ready, tenement.Asleep), "api:alice api:bob api:carol broken:untried"},
		{in(tenement.Draining, tenement.Backoff), ""},
		{api.ListOptions{States: []tenement.State{tenement.Ready, tenement.Asleep}, Text: "b"}, "api:bob broken:untried"},
	} {
		for _, limit := range []int{1, 2, 1000} {
			got, total := s.list(row.o, limit)
			if got != row.want || total != len(strings.Fields(row.want)) {
				t.Errorf("%+v, %d a page: %q, in all %d, want %q", row.o, limit, got, total, row.want)
			}
		}
	}
}

// list asks for page after page; total is what the first one says.
func (s *site) list(o api.ListOptions, limit int) (ids string, total int) {
	s.t.Helper()
	var list []string
	o.Limit = limit
	for range 10 {
		page, err := s.api.Instances(s.t.Context(), o)
		if err != nil {
			s.t.Fatal(err)
		}
		if page.Total != nil {
			total = *page.Total
		}
		for _, in := range page.Instances {
			list = append(list, in.ID.String())
		}
		if o.After = page.Next; o.After.IsZero() {
			break
		}
	}
	return strings.Join(list, " "), total
}
