package tenement

import "fmt"

// State is where an instance stands. The zero value is Asleep.
type State uint8

// The states. Only [Next] leads from one to another.
const (
	Asleep    State = iota // no process; a row in the registry and nothing else
	Starting               // a process exists and is not ready yet
	Ready                  // serves
	Frozen                 // paused in memory
	Draining               // serves what is under way, takes nothing new
	Stopping               // told to end
	Backoff                // ended by itself; waits before the next start
	Failed                 // restart budget spent; waits to be asked again
	Suspended              // switched off by the operator
	stateCount
)

var stateNames = [stateCount]string{
	"asleep", "starting", "ready", "frozen", "draining", "stopping", "backoff", "failed", "suspended",
}

// States lists them all.
func States() []State {
	list := make([]State, stateCount)
	for i := range list {
		list[i] = State(i)
	}
	return list
}

func (s State) String() string {
	if s < stateCount {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText writes the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a state's name; an unknown one is an error with CodeInvalid.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if name == string(text) {
			*s = State(i)
			return nil
		}
	}
	return &Error{Code: CodeInvalid, Op: "parse state", Err: fmt.Errorf("unknown state %q", text)}
}

// HasProcess reports whether an instance in this state owns a process.
func (s State) HasProcess() bool {
	switch s {
	case Starting, Ready, Frozen, Draining, Stopping:
		return true
	}
	return false
}

// Rests reports whether an instance in this state needs nobody: it has no owner, or one
// that is about to end.
func (s State) Rests() bool { return s == Asleep || s == Failed || s == Suspended }

// Trigger is what happened to an instance.
type Trigger uint8

// The triggers.
const (
	Wake     Trigger = iota // somebody wants it: a request, the operator, or the configuration
	IsReady                 // the process answered its readiness check
	Exited                  // the process is gone
	Deadline                // the time allowed for the present state is up
	Sleep                   // it is to be put to sleep
	Suspend                 // it is to be switched off
	Retry                   // the back-off has passed
	Freeze                  // it is to be paused for want of traffic
	triggerCount
)

var triggerNames = [triggerCount]string{"wake", "ready", "exit", "deadline", "sleep", "suspend", "retry", "freeze"}

func (t Trigger) String() string {
	if t < triggerCount {
		return triggerNames[t]
	}
	return fmt.Sprintf("trigger(%d)", uint8(t))
}

// Goal is what an instance is to become once its present process is gone. It
// decides the cells of the table that depend on why a process is being ended.
type Goal uint8

// The goals.
const (
	GoalRun     Goal = iota // keep it running: an exit is a crash
	GoalIdle                // put to sleep for want of traffic: a request calls it back
	GoalSleep               // put to sleep by the operator: a request waits for the stop, then wakes it
	GoalRestart             // ended in order to be started again
	GoalSuspend             // ended in order to be switched off
	GoalBackoff             // ended because it misbehaved: never became ready, or failed its health checks
	goalCount
)

var goalNames = [goalCount]string{"run", "idle", "sleep", "restart", "suspend", "backoff"}

func (g Goal) String() string {
	if g < goalCount {
		return goalNames[g]
	}
	return fmt.Sprintf("goal(%d)", uint8(g))
}

// afterExit is where a process that was told to end leaves its instance.
func (g Goal) afterExit() State {
	switch g {
	case GoalIdle, GoalSleep:
		return Asleep
	case GoalRestart:
		return Starting
	case GoalSuspend:
		return Suspended
	default:
		return Backoff
	}
}

// TransitionError names a step that the table does not have.
type TransitionError struct {
	From    State
	Trigger Trigger
	Goal    Goal
}

func (e *TransitionError) Error() string {
	return fmt.Sprintf("no transition from %s on %s (goal %s)", e.From, e.Trigger, e.Goal)
}

// step decides the state that follows; goal matters only to the steps that say so.
type step func(goal Goal) State

func to(s State) step { return func(Goal) State { return s } }

// transitions is the only transition table. A cell that leads to its own state
// is legal: whoever asked joins or waits. An empty cell is illegal.
var transitions = [stateCount][triggerCount]step{
	Asleep:    {Wake: to(Starting), Suspend: to(Suspended)},
	Starting:  {Wake: to(Starting), IsReady: to(Ready), Exited: to(Backoff), Deadline: to(Stopping), Sleep: to(Stopping), Suspend: to(Stopping)},
	Ready:     {Wake: to(Ready), Exited: to(Backoff), Deadline: to(Stopping), Sleep: to(Draining), Suspend: to(Draining), Freeze: to(Frozen)},
	Frozen:    {Wake: to(Ready), Exited: to(Backoff), Sleep: to(Stopping), Suspend: to(Stopping)},
	Draining:  {Wake: backIfIdle, Exited: Goal.afterExit, Deadline: to(Stopping), Sleep: to(Draining), Suspend: to(Draining)},
	Stopping:  {Wake: to(Stopping), Exited: Goal.afterExit, Deadline: to(Stopping), Sleep: to(Stopping), Suspend: to(Stopping)},
	Backoff:   {Wake: to(Backoff), Retry: to(Starting), Deadline: to(Failed), Sleep: to(Asleep), Suspend: to(Suspended)},
	Failed:    {Wake: to(Starting), Sleep: to(Asleep), Suspend: to(Suspended)},
	Suspended: {Sleep: to(Asleep)},
}

// backIfIdle calls an instance back that was going to sleep for want of traffic.
// One that the operator ends is ended first: the request waits.
func backIfIdle(goal Goal) State {
	if goal == GoalIdle {
		return Ready
	}
	return Draining
}

// Next returns the state that follows from when trigger happens while the
// instance pursues goal. A step that the table does not have leaves the state as
// it is and is a *TransitionError.
//
// Ready meets Deadline when its health checks have failed for good; Backoff meets
// it when the restart budget is spent; Stopping meets it when it must be killed.
// Frozen meets Wake when somebody wants it, and when it could not be frozen.
// Sleep is also how the operator forgives a failed instance and resumes a
// suspended one.
func Next(from State, trigger Trigger, goal Goal) (State, error) {
	if from < stateCount && trigger < triggerCount {
		if step := transitions[from][trigger]; step != nil {
			return step(goal), nil
		}
	}
	return from, &TransitionError{From: from, Trigger: trigger, Goal: goal}
}
