package route

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tenement"
)

func api(name string) tenement.InstanceID { return tenement.InstanceID{Service: "api", Name: name} }

// everyone gives all instances one rank.
func everyone(a Availability) func(tenement.InstanceID) Availability {
	return func(tenement.InstanceID) Availability { return a }
}

// count picks n times with a fixed seed.
func count(w *Weights, rank func(tenement.InstanceID) Availability, n int) map[string]int {
	random := rand.New(rand.NewPCG(1, 2))
	picked := map[string]int{}
	for range n {
		if id, ok := w.Pick("api", rank, random.IntN); ok {
			picked[id.Name]++
		}
	}
	return picked
}

func TestPickPrefers(t *testing.T) {
	t.Parallel()
	type ranks map[string]Availability
	for name, c := range map[string]struct {
		weights map[string]int
		ranks   ranks
		want    []string // all that are picked
	}{
		"nothing":             {nil, nil, nil},
		"weight 0 only":       {map[string]int{"a": 0}, ranks{"a": Awake}, nil},
		"negative weight":     {map[string]int{"a": -1}, ranks{"a": Awake}, nil},
		"awake first":         {map[string]int{"a": 1000, "b": 1, "c": 1000}, ranks{"a": CanWake, "b": Awake}, []string{"b"}},
		"awake last":          {map[string]int{"a": 1000, "b": 1000, "c": 1}, ranks{"a": CanWake, "c": Awake}, []string{"c"}},
		"all awake":           {map[string]int{"a": 1, "b": 1}, ranks{"a": Awake, "b": Awake}, []string{"a", "b"}},
		"else one that wakes": {map[string]int{"a": 1, "b": 1, "c": 9}, ranks{"a": CanWake, "b": CanWake}, []string{"a", "b"}},
		"else any":            {map[string]int{"a": 1, "b": 1}, ranks{}, []string{"a", "b"}},
		"never weight 0":      {map[string]int{"a": 1, "b": 0}, ranks{"b": Awake}, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := NewWeights()
			for name, weight := range c.weights {
				w.Set(api(name), weight)
			}
			got := count(w, func(id tenement.InstanceID) Availability { return c.ranks[id.Name] }, 200)
			for _, name := range c.want {
				if got[name] == 0 {
					t.Errorf("%s is never picked", name)
				}
				delete(got, name)
			}
			if len(got) > 0 {
				t.Errorf("picked %v too", got)
			}
		})
	}
}

func TestPickFollowsWeights(t *testing.T) {
	t.Parallel()
	w := NewWeights()
	w.Replace(map[tenement.InstanceID]int{api("a"): 1, api("b"): 3, api("c"): 6})
	const n = 100_000
	got := count(w, everyone(Awake), n)
	for name, share := range map[string]float64{"a": 0.1, "b": 0.3, "c": 0.6} {
		if part := float64(got[name]) / n; part < share-0.01 || part > share+0.01 {
			t.Errorf("%s gets %.3f, want %.1f", name, part, share)
		}
	}
}

// TestPickUsesAllNumbers walks every outcome of the dice: a seed could hide an
// error by one.
func TestPickUsesAllNumbers(t *testing.T) {
	t.Parallel()
	w := NewWeights()
	w.Replace(map[tenement.InstanceID]int{api("a"): 2, api("b"): 1})
	got := map[string]int{}
	for n := range 3 {
		id, _ := w.Pick("api", everyone(CanWake), func(total int) int {
			if total != 3 {
				t.Errorf("asked for a number below %d, want 3", total)
			}
			return n
		})
		got[id.Name]++
	}
	if diff := cmp.Diff(map[string]int{"a": 2, "b": 1}, got); diff != "" {
		t.Error(diff)
	}
}

func TestWeightsChange(t *testing.T) {
	t.Parallel()
	w := NewWeights()
	shares := func() map[tenement.InstanceID]int {
		all := map[tenement.InstanceID]int{}
		for _, list := range *w.byService.Load() {
			for _, e := range list {
				all[e.id] = e.weight
			}
		}
		return all
	}
	web := tenement.InstanceID{Service: "web", Name: "a"}
	for _, c := range []struct {
		change func()
		want   map[tenement.InstanceID]int
	}{
		{func() {}, map[tenement.InstanceID]int{}},
		{func() { w.Set(api("b"), 5); w.Set(api("a"), 1); w.Set(web, 2) }, map[tenement.InstanceID]int{api("a"): 1, api("b"): 5, web: 2}},
		{func() { w.Set(api("b"), 6) }, map[tenement.InstanceID]int{api("a"): 1, api("b"): 6, web: 2}},
		{func() { w.Set(api("b"), 0); w.Set(api("c"), 0) }, map[tenement.InstanceID]int{api("a"): 1, web: 2}},
		{
			func() { w.SetAll(map[tenement.InstanceID]int{api("a"): 0, api("c"): 9}) },
			map[tenement.InstanceID]int{api("c"): 9, web: 2},
		},
		{func() { w.Set(web, 0) }, map[tenement.InstanceID]int{api("c"): 9}},
		{
			func() { w.Replace(map[tenement.InstanceID]int{web: 1, api("z"): 0}) },
			map[tenement.InstanceID]int{web: 1},
		},
	} {
		c.change()
		if diff := cmp.Diff(c.want, shares()); diff != "" {
			t.Error(diff)
		}
	}
	if n := len(maps.Clone(*w.byService.Load())); n != 1 {
		t.Errorf("%d services are kept, want 1", n)
	}
}

// TestPickSeesWholeChanges: while all weight moves from one to the other and
// back, somebody always has it.
func TestPickSeesWholeChanges(t *testing.T) {
	t.Parallel()
	w := NewWeights()
	w.Set(api("v0"), 100)
	var users sync.WaitGroup
	users.Go(func() {
		for n := range 2000 {
			w.SetAll(map[tenement.InstanceID]int{api(fmt.Sprint("v", n%2)): 0, api(fmt.Sprint("v", 1-n%2)): 100})
		}
	})
	for range 2 {
		users.Go(func() {
			for range 2000 {
				if _, ok := w.Pick("api", everyone(Awake), nil); !ok {
					t.Error("nobody had a weight")
					return
				}
			}
		})
	}
	users.Wait()
}
