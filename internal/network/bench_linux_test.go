package network

import (
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"tenement"
)

// BenchmarkNamespace makes one and removes it again.
func BenchmarkNamespace(b *testing.B) {
	for _, egress := range []tenement.Egress{tenement.EgressDeny, tenement.EgressAllow} {
		b.Run("take "+string(egress), func(b *testing.B) {
			p := open(b, "ten", 0)
			all := make([]*Namespace, 0, b.N)
			for b.Loop() {
				all = append(all, take(b, p, egress))
			}
			for _, n := range all {
				must(b, n.Close())
			}
			must(b, p.Close())
		})
		b.Run("close "+string(egress), func(b *testing.B) {
			p := open(b, "ten", 0)
			for b.Loop() {
				b.StopTimer()
				n := take(b, p, egress)
				b.StartTimer()
				must(b, n.Close())
			}
			must(b, p.Close())
		})
	}
}

// BenchmarkCloseMany closes a hundred at once, and takes one meanwhile.
func BenchmarkCloseMany(b *testing.B) {
	p := open(b, "ten", 0)
	var waited time.Duration
	for b.Loop() {
		b.StopTimer()
		all := make([]*Namespace, 100)
		for i := range all {
			all[i] = take(b, p, tenement.EgressAllow)
		}
		b.StartTimer()
		var closers sync.WaitGroup
		for _, n := range all {
			closers.Go(func() { must(b, n.Close()) })
		}
		begin := time.Now()
		n := take(b, p, tenement.EgressAllow)
		waited += time.Since(begin)
		closers.Wait()
		must(b, n.Close())
	}
	b.ReportMetric(float64(waited.Microseconds())/1000/float64(b.N), "ms/take-meanwhile")
	must(b, p.Close())
}

// BenchmarkDial compares a connection made in a namespace with one on the machine itself,
// in turns, by their medians.
func BenchmarkDial(b *testing.B) {
	p := open(b, "ten", 0)
	n := take(b, p, tenement.EgressDeny)
	greetIn(b, n, "127.0.0.1:8000", "tenant")
	greet(b, "127.0.0.1:8000", "machine")
	onMachine := net.Dialer{KeepAlive: -1}
	dialers := map[string]func() (net.Conn, error){
		"namespace": func() (net.Conn, error) { return n.Dial(b.Context(), 8000) },
		"machine":   func() (net.Conn, error) { return onMachine.DialContext(b.Context(), "tcp4", "127.0.0.1:8000") },
	}
	took := make(map[string][]time.Duration)
	for b.Loop() {
		for name, dial := range dialers {
			begin := time.Now()
			conn, err := dial()
			took[name] = append(took[name], time.Since(begin))
			must(b, err)
			answer(conn) // and so closed
		}
	}
	for name, all := range took {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1000, "µs/"+name)
	}
	must(b, n.Close())
	must(b, p.Close())
}
