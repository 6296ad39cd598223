package logs

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"tenement"
)

func ended(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// next wants lines to be there already.
func next(t *testing.T, f *Follower) []Line {
	t.Helper()
	lines, err := f.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestFollow(t *testing.T) {
	t.Parallel()
	s := open(t, Limits{})
	s.print(alice, Stdout, numbered(0, 5))
	s.print(bob, Stdout, "bob's\n")
	last := s.Follow(Query{Instance: alice, Limit: 2})
	fresh := s.Follow(Query{Instance: alice})
	resumed := s.Follow(Query{After: query(t, s, Query{})[3].ID})
	found := s.Follow(Query{Search: "6", Limit: 1})

	wantTexts(t, next(t, last), "line 3", "line 4")
	wantTexts(t, next(t, resumed), "line 4", "bob's")
	for _, f := range []*Follower{fresh, last, resumed, found} {
		if lines, err := f.Next(ended(t)); tenement.CodeOf(err) != tenement.CodeCanceled {
			t.Errorf("%v %v", lines, err)
		}
	}
	s.print(alice, Stdout, numbered(5, 7))
	wantTexts(t, next(t, fresh), "line 5", "line 6")
	wantTexts(t, next(t, last), "line 5", "line 6")
	wantTexts(t, next(t, found), "line 6")
	s.print(bob, Stdout, "6\n")
	wantTexts(t, next(t, resumed), "line 5", "line 6", "6")
	wantTexts(t, next(t, found), "6")
}

// TestFollowEverything: several followers see every line once while it is printed,
// more than a page at a time, and across a restart.
func TestFollowEverything(t *testing.T) {
	t.Parallel()
	const printers, rounds, lines = 4, 30, 50
	dir := t.TempDir()
	s := openIn(t, dir, Limits{indexStep: 1000})
	after := query(t, s, Query{})
	if len(after) > 0 {
		t.Fatal("it is not empty")
	}
	place := map[string]int64{"all": 1, "one": 1, "found": 1}
	for round := range 2 {
		var printing sync.WaitGroup
		for p := range printers {
			printing.Go(func() {
				k := s.Sink(tenement.InstanceID{Service: "api", Name: "p" + strconv.Itoa(p)}, Stdout)
				for n := range rounds {
					take(k, []byte(numbered((round*rounds+n)*lines, (round*rounds+n+1)*lines)), false)
				}
			})
		}
		for name, c := range map[string]struct {
			query Query
			want  int
		}{
			"all":   {Query{}, printers * rounds * lines},
			"one":   {Query{Instance: tenement.InstanceID{Service: "api", Name: "p2"}}, rounds * lines},
			"found": {Query{Search: "line 17*"}, -1},
		} {
			c.query.After = place[name]
			f := s.Follow(c.query)
			seen := map[tenement.InstanceID]int{}
			for total := 0; c.want >= 0 && total < c.want || c.want < 0 && f.after < place["all"]; {
				page := next(t, f)
				total += len(page)
				for _, l := range page {
					if l.ID <= place[name] {
						t.Fatalf("%s: %d after %d", name, l.ID, place[name])
					}
					place[name] = l.ID
					if want := fmt.Sprint("line ", round*rounds*lines+seen[l.Instance]); c.want >= 0 && l.Text != want {
						t.Fatalf("%s: %s of %s, want %s", name, l.Text, l.Instance, want)
					}
					seen[l.Instance]++
				}
				if c.want < 0 {
					break
				}
			}
		}
		printing.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openIn(t, dir, Limits{indexStep: 1000})
	}
}
