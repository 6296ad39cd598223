package tenement

import (
	"errors"
	"strings"
	"testing"
)

// transitionTable is the table of the design, cell by cell. "-" is illegal; a cell
// with a slash differs by goal: what it says for idle, then for all others.
const transitionTable = `
from       wake            ready  exit     deadline  sleep     suspend    retry     freeze
asleep     starting        -      -        -         -         suspended  -         -
starting   starting        ready  backoff  stopping  stopping  stopping   -         -
ready      ready           -      backoff  stopping  draining  draining   -         frozen
frozen     ready           -      backoff  -         stopping  stopping   -         -
draining   ready/draining  -      goal     stopping  draining  draining   -         -
stopping   stopping        -      goal     stopping  stopping  stopping   -         -
backoff    backoff         -      -        failed    asleep    suspended  starting  -
failed     starting        -      -        -         asleep    suspended  -         -
suspended  -               -      -        -         asleep    -          -         -
`

var wantAfterExit = map[Goal]State{
	GoalRun: Backoff, GoalIdle: Asleep, GoalSleep: Asleep,
	GoalRestart: Starting, GoalSuspend: Suspended, GoalBackoff: Backoff,
}

func TestEveryCellOfTheTransitionTable(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSpace(transitionTable), "\n")
	if len(lines) != int(stateCount)+1 || len(wantAfterExit) != int(goalCount) {
		t.Fatal("the table does not have every state and goal")
	}
	triggers := strings.Fields(lines[0])[1:]
	for row, line := range lines[1:] {
		cells := strings.Fields(line)
		from := State(row)
		if cells[0] != from.String() || len(cells) != int(triggerCount)+1 {
			t.Fatalf("row %d is %q", row, line)
		}
		for column, cell := range cells[1:] {
			trigger := Trigger(column)
			if triggers[column] != trigger.String() {
				t.Fatalf("column %d is %q, want %s", column, triggers[column], trigger)
			}
			for goal := range goalCount {
				checkCell(t, from, trigger, goal, cell)
			}
		}
	}
}

func checkCell(t *testing.T, from State, trigger Trigger, goal Goal, cell string) {
	t.Helper()
	got, err := Next(from, trigger, goal)
	if cell == "-" {
		var illegal *TransitionError
		if !errors.As(err, &illegal) || got != from {
			t.Errorf("%s on %s (goal %s): %s, %v; want it to be illegal", from, trigger, goal, got, err)
		} else if !strings.Contains(err.Error(), from.String()) || !strings.Contains(err.Error(), trigger.String()) {
			t.Errorf("error %q names neither state nor trigger", err)
		}
		return
	}
	want := cell
	if idle, other, ok := strings.Cut(cell, "/"); ok {
		want = other
		if goal == GoalIdle {
			want = idle
		}
	}
	if want == "goal" {
		want = wantAfterExit[goal].String()
	}
	if err != nil || got.String() != want {
		t.Errorf("%s on %s (goal %s): %s, %v; want %s", from, trigger, goal, got, err, want)
	}
}

func TestStateText(t *testing.T) {
	t.Parallel()
	for s := range stateCount {
		text, err := s.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back State
		if err := back.UnmarshalText(text); err != nil || back != s {
			t.Errorf("%s came back as %s, %v", s, back, err)
		}
	}
	var s State
	if err := s.UnmarshalText([]byte("sleepy")); CodeOf(err) != CodeInvalid {
		t.Errorf("error %v", err)
	}
}

func FuzzNext(f *testing.F) {
	f.Add([]byte{0, 1, 2, 4, 6})
	f.Fuzz(func(t *testing.T, steps []byte) {
		state := Asleep
		for _, b := range steps {
			goal := Goal(b>>4) % goalCount
			next, err := Next(state, Trigger(b&15), goal)
			if err != nil && next != state {
				t.Fatalf("an illegal step changed %s to %s", state, next)
			}
			if next >= stateCount {
				t.Fatalf("%s led to no state", state)
			}
			// A process appears only by starting one, and disappears only by an exit.
			if !state.HasProcess() && next.HasProcess() && next != Starting {
				t.Fatalf("%s to %s: a process out of nowhere", state, next)
			}
			if state.HasProcess() && !next.HasProcess() && Trigger(b&15) != Exited {
				t.Fatalf("%s to %s on %s: a process forgotten", state, next, Trigger(b&15))
			}
			state = next
		}
	})
}
