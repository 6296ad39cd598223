package telemetry

import (
	"testing"
	"testing/synctest"
	"time"

	"tenement"
)

func TestWakesWaitForTheFirstByte(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var h Wakes
		asked := &tenement.WakeRecord{Instance: alice, Cause: tenement.CauseRequest, Outcome: tenement.WakeOK}
		silent := &tenement.WakeRecord{Instance: bob, Cause: tenement.CauseRequest, Outcome: tenement.WakeOK}
		failed := &tenement.WakeRecord{Instance: alice, Cause: tenement.CauseRequest, Outcome: "full"}
		pinned := &tenement.WakeRecord{Instance: alice, Cause: tenement.CausePinned, Outcome: tenement.WakeOK}
		for _, w := range []*tenement.WakeRecord{asked, silent, failed, pinned} {
			h.Add(w)
		}
		if list := h.Take(false); len(list) != 2 || list[0].Outcome != "full" || list[1].Cause != tenement.CausePinned {
			t.Errorf("complete are %+v", list)
		}
		if !h.FirstByte(asked, time.Second) || h.FirstByte(asked, time.Minute) || h.FirstByte(failed, time.Second) {
			t.Error("not the first one counts, or one too late")
		}
		if list := h.Take(false); len(list) != 1 || list[0].FirstByte != time.Second || asked.FirstByte != 0 {
			t.Errorf("complete are %+v", list)
		}
		time.Sleep(firstBytePatience + 1) // virtual
		if list := h.Take(false); len(list) != 1 || list[0].Instance != bob {
			t.Errorf("waited for too long: %+v", list)
		}
		h.Add(asked)
		if list := h.Take(true); len(list) != 1 || len(h.held) != 0 {
			t.Errorf("all are %+v", list)
		}
	})
}

func TestWakesAreBounded(t *testing.T) {
	t.Parallel()
	var h Wakes
	w := &tenement.WakeRecord{Instance: alice, Outcome: "full"}
	for n := range maxHeldWakes + 1 {
		if h.Add(w) != (n < maxHeldWakes) {
			t.Fatalf("the record after %d others", n)
		}
	}
}
