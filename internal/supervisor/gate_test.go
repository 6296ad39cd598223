package supervisor

import (
	"sync"
	"sync/atomic"
	"testing"
)

func newGate() *gate {
	g := &gate{}
	g.init()
	return g
}

func (g *gate) hasDrained() bool {
	select {
	case <-g.drained:
		return true
	default:
		return false
	}
}

func TestGateClosesOnlyWhenIdle(t *testing.T) {
	t.Parallel()
	g := newGate()
	if !g.enter() || g.closeIfIdle() || !g.enter() || g.count() != 2 {
		t.Fatal("a gate with a lease was closed")
	}
	g.leave()
	g.leave()
	if !g.closeIfIdle() || !g.hasDrained() || g.enter() {
		t.Fatal("an idle gate was not closed")
	}
	g.reopen()
	if !g.enter() || g.count() != 1 {
		t.Fatal("a gate that was opened again gives no leases")
	}
}

func TestGateDrains(t *testing.T) {
	t.Parallel()
	g := newGate()
	if !g.enter() {
		t.Fatal("closed from the start")
	}
	g.close()
	g.close()
	if g.enter() || g.hasDrained() || g.count() != 1 {
		t.Fatal("closed with one lease: new ones, drained, or a wrong count")
	}
	g.leave()
	if !g.hasDrained() || g.count() != 0 {
		t.Fatal("the last lease was returned, and nobody was told")
	}
}

// TestGateRace: of everybody who wants in while it is closed, those who got a lease
// are counted, and the others were refused.
func TestGateRace(t *testing.T) {
	t.Parallel()
	g := newGate()
	var entered atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 1000 {
				if g.enter() {
					entered.Add(1)
				}
			}
		})
	}
	group.Go(g.close)
	group.Wait()
	if g.enter() || int64(g.count()) != entered.Load() {
		t.Errorf("%d leases are counted, %d were given", g.count(), entered.Load())
	}
}
