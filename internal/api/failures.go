package api

import (
	"net/netip"
	"sync"
	"time"
)

const (
	failuresAllowed = 10 // of one address within failureWindow
	failureWindow   = time.Minute
	failureRows     = 1024 // addresses remembered
)

// failures counts by client address what strangers do: their wrong tokens, and what they
// have in the audit log. It slows down whoever guesses and never decides about a right
// token.
type failures struct {
	mu   sync.Mutex
	rows map[netip.Prefix]failureRow
}

type failureRow struct {
	count int
	until time.Time // when count starts anew
}

// add counts one failure of the client at addr (see [clientAddress]) and is how long it
// should wait before it tries again; 0 while it has tries left.
func (f *failures) add(addr string, now time.Time) time.Duration {
	client := clientOf(addr)
	f.mu.Lock()
	defer f.mu.Unlock()
	row, known := f.rows[client]
	if !known || !now.Before(row.until) {
		f.makeRoom(now)
		row = failureRow{until: now.Add(failureWindow)}
	}
	row.count++
	if f.rows == nil {
		f.rows = map[netip.Prefix]failureRow{}
	}
	f.rows[client] = row
	if row.count <= failuresAllowed {
		return 0
	}
	return row.until.Sub(now)
}

// makeRoom keeps the table within its bound: what has passed goes first, then any
// row, because a guesser with a thousand addresses is not held by this anyway.
func (f *failures) makeRoom(now time.Time) {
	if len(f.rows) < failureRows {
		return
	}
	for client, row := range f.rows {
		if !now.Before(row.until) {
			delete(f.rows, client)
		}
	}
	for client := range f.rows {
		if len(f.rows) < failureRows {
			return
		}
		delete(f.rows, client)
	}
}

// clientOf is the one client behind an address: an IPv6 user has a whole /64. What
// is no address, such as a unix socket's peer, is all one client.
func clientOf(addr string) netip.Prefix {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.Prefix{}
	}
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, _ := ip.Prefix(bits) // fails only for more bits than the address has
	return prefix
}

// clientAddress is the address in "host:port", without a zone and an IPv4 address as
// one; "" if it is none, such as a unix socket's.
func clientAddress(remote string) string {
	endpoint, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ""
	}
	return endpoint.Addr().Unmap().WithZone("").String()
}
