package logs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tenement"
)

// model is a store that is nothing but a list.
type model struct{ lines []Line }

func (m *model) query(q Query) []Line {
	list := slices.DeleteFunc(slices.Clone(m.lines), func(l Line) bool {
		return !q.Instance.IsZero() && l.Instance != q.Instance ||
			q.Tenant != "" && l.Instance.Name != q.Tenant ||
			q.Level != "" && l.Level != q.Level ||
			!q.Since.IsZero() && l.At.Before(q.Since) || !q.Until.IsZero() && l.At.After(q.Until) ||
			l.ID <= q.After || q.Before > 0 && l.ID >= q.Before ||
			!simpleMatch(q.Search, l.Text)
	})
	if excess := len(list) - q.Limit; excess > 0 {
		if q.After > 0 {
			return list[:q.Limit]
		}
		return list[excess:]
	}
	return list
}

var (
	someIDs = []tenement.InstanceID{
		alice, bob, {Service: "web", Name: "alice"}, {Service: "web", Name: "carol"},
	}
	someWords    = []string{"get", "GET", "post", "10.0.0.1", "10", "größe", "a", "-->", ""}
	someSearches = []string{"", "get", "ge*", `"get post"`, "get post", "10.0.0.1", "10", "grö*", "-->", "1*", "a get", "missing"}
)

// TestQueryModel compares the store with the model, with nothing, a part or all of it
// in the index, and after a restart.
func TestQueryModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		dir := t.TempDir()
		limits := Limits{indexStep: 1 << 20, indexIdle: time.Hour}
		if rapid.Bool().Draw(r, "index") {
			limits = Limits{indexStep: 1}
		}
		s := openIn(t, dir, limits)
		m := &model{}
		r.Repeat(map[string]func(*rapid.T){
			"print": func(r *rapid.T) { m.print(t, r, s) },
			"drop": func(r *rapid.T) {
				id := rapid.SampledFrom(someIDs).Draw(r, "id")
				s.Drop(id)
				m.lines = slices.DeleteFunc(m.lines, func(l Line) bool { return l.Instance == id })
			},
			"restart": func(r *rapid.T) {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openIn(t, dir, limits)
			},
			"": func(r *rapid.T) {
				q := m.drawQuery(r)
				if diff := cmp.Diff(m.query(q), query(t, s, q), cmp.Transformer("empty", func(l []Line) []Line { return append([]Line{{}}, l...) })); diff != "" {
					r.Errorf("%+v (-want +got):\n%s", q, diff)
				}
			},
		})
	})
}

// print prints some lines and takes over what the store says of them beyond their text.
func (m *model) print(t *testing.T, r *rapid.T, s *Store) {
	id := rapid.SampledFrom(someIDs).Draw(r, "id")
	level := rapid.SampledFrom([]Level{Stdout, Stderr}).Draw(r, "level")
	lines := rapid.SliceOfN(rapid.SliceOfN(rapid.SampledFrom(someWords), 0, 3), 1, 4).Draw(r, "lines")
	last := int64(1)
	if len(m.lines) > 0 {
		last = m.lines[len(m.lines)-1].ID
	}
	var text strings.Builder
	for _, words := range lines {
		fmt.Fprintln(&text, strings.Join(words, " "))
	}
	s.print(id, level, text.String())
	got := query(t, s, Query{After: last})
	if len(got) != len(lines) {
		r.Fatalf("%d lines were printed, %d are there", len(lines), len(got))
	}
	for i, words := range lines {
		want := Line{got[i].ID, got[i].At, id, level, strings.Join(words, " ")}
		if got[i] != want || got[i].ID <= last || i > 0 && got[i].At != got[0].At {
			r.Fatalf("got %+v, want %+v", got[i], want)
		}
		last = got[i].ID
	}
	m.lines = append(m.lines, got...)
}

func (m *model) drawQuery(r *rapid.T) Query {
	q := Query{
		Level:  rapid.SampledFrom([]Level{"", Stdout, Stderr}).Draw(r, "level"),
		Search: rapid.SampledFrom(someSearches).Draw(r, "search"),
		Limit:  rapid.SampledFrom([]int{1, 2, 3, 10, 1000}).Draw(r, "limit"),
	}
	switch rapid.IntRange(0, 2).Draw(r, "scope") {
	case 1:
		q.Instance = rapid.SampledFrom(someIDs).Draw(r, "instance")
	case 2:
		q.Tenant = rapid.SampledFrom(someIDs).Draw(r, "tenant").Name
	}
	if len(m.lines) == 0 {
		return q
	}
	some := func(label string) Line { return rapid.SampledFrom(m.lines).Draw(r, label) }
	if rapid.Bool().Draw(r, "with since") {
		q.Since = some("since").At
	}
	if rapid.Bool().Draw(r, "with until") {
		q.Until = some("until").At
	}
	if rapid.Bool().Draw(r, "with after") {
		q.After = some("after").ID
	}
	if rapid.Bool().Draw(r, "with before") {
		q.Before = some("before").ID
	}
	return q
}

// TestAnswerIsBounded: an answer of long lines ends before the limit, and the lines of
// several instances then end at the same place.
func TestAnswerIsBounded(t *testing.T) {
	t.Parallel()
	s := open(t, Limits{})
	long := strings.Repeat("x", 1000) + "\n"
	other := tenement.InstanceID{Service: "web", Name: "alice"}
	for range 20 {
		s.print(alice, Stdout, long)
		s.print(other, Stdout, "y\n")
	}
	all := query(t, s, Query{Tenant: "alice"})
	for after, want := range map[int64][]Line{0: all[40-8:], all[0].ID - 1: all[:9]} {
		got, more, err := s.query(t.Context(), Query{Tenant: "alice", After: after}, 4500)
		if err != nil || !more {
			t.Error(more, err)
		}
		if after == 0 {
			want = all[len(all)-len(got):]
		}
		if diff := cmp.Diff(want, got); diff != "" || len(got) < 8 || len(got) > 11 {
			t.Errorf("after %d: %d lines (-want +got):\n%s", after, len(got), diff)
		}
	}
}

// TestClockSetBack: times stay in the order of ids.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	w := &writer{last: int64(10 * time.Hour)}
	for at, want := range map[time.Duration]time.Duration{
		11 * time.Hour:             11 * time.Hour,
		10*time.Hour - time.Second: 10 * time.Hour,
		8 * time.Hour:              8 * time.Hour,
	} {
		if got := w.timeOf(&batch{at: time.Unix(0, int64(at))}); got != int64(want) {
			t.Errorf("%v: %v", at, time.Duration(got))
		}
	}
}
