package store

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"tenement"
)

func uid(t *testing.T, s *Store, name string, first int) int {
	t.Helper()
	got, err := s.UID(t.Context(), instanceID(t, name), first, 0)
	must(t, err)
	return got
}

// TestUIDsAreNeverGivenTwice: not after a delete, not after a restart, and not when the
// blocks that the operator names overlap.
func TestUIDsAreNeverGivenTwice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	var given []int
	give := func(first int) {
		t.Helper()
		name := fmt.Sprintf("api:i%d", len(given))
		register(t, s, name)
		number := uid(t, s, name, first)
		if slices.Contains(given, number) || first > 0 && (number < first || number >= first+uidBlock) {
			t.Errorf("%s was given %d, of the block at %d, after %v", name, number, first, given)
		}
		given = append(given, number)
		if again := uid(t, s, name, 0); again != number {
			t.Errorf("%s has %d, and was told %d", name, number, again)
		}
		i, err := s.Instance(t.Context(), instanceID(t, name))
		if err != nil || i.UID != number {
			t.Errorf("on record is %d, %v, want %d", i.UID, err, number)
		}
		must(t, s.Delete(t.Context(), instanceID(t, name)))
	}
	for _, first := range []int{0, 0, 3_000_000, 3_000_001, 3_000_000, 3_000_000 - uidBlock/2, 3_000_000, 0} {
		give(first)
	}
	must(t, s.Close())
	s = openStore(t, dir)
	give(0)
	give(3_000_000)
	if block := given[0] / uidBlock * uidBlock; block < lowestBlock || block > highestBlock || given[0] != block || given[1] != block+1 || given[len(given)-2] != block+3 {
		t.Errorf("the registry's own block is used like this: %v", given)
	}
}

func TestUIDOfTheUnregistered(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	_, err := s.UID(t.Context(), instanceID(t, "api:nobody"), 0, 0)
	wantCode(t, err, tenement.CodeNotFound)
	var rows int
	must(t, s.read.QueryRow("SELECT count(*) FROM uid_blocks").Scan(&rows))
	if rows != 0 {
		t.Error("it has cost a uid")
	}
}

func TestUIDBlockIsUsedUp(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	register(t, s, "api:alice", "api:bob")
	_, err := s.write.Exec("INSERT INTO uid_blocks (first, next) VALUES (70000, ?)", 70_000+uidBlock-1)
	must(t, err)
	if got, want := uid(t, s, "api:alice", 70_000), 70_000+uidBlock-1; got != want {
		t.Errorf("the last one is %d, want %d", got, want)
	}
	_, err = s.UID(t.Context(), instanceID(t, "api:bob"), 70_000, 0)
	wantCode(t, err, tenement.CodeConflict)
	if tenement.HintOf(err) == "" {
		t.Error("no hint")
	}
	if got := uid(t, s, "api:bob", 70_000+uidBlock); got != 70_000+uidBlock {
		t.Errorf("the next block begins with %d", got)
	}
}

func TestUIDsAtOnce(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	var group sync.WaitGroup
	var mu sync.Mutex
	given := map[int]int{}
	for n := range 8 {
		name := fmt.Sprintf("api:i%d", n)
		register(t, s, name)
		for range 2 {
			group.Go(func() {
				number, err := s.UID(t.Context(), instanceID(t, name), 0, 0)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				given[number]++
			})
		}
	}
	group.Wait()
	if len(given) != 8 {
		t.Errorf("8 instances were given %v", given)
	}
}
