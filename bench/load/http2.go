package load

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// SaturateH2C is [Saturate] over HTTP/2 without TLS, prior knowledge (RFC 9113 §3.3):
// conns connections with streams requests at a time on each.
func SaturateH2C(ctx context.Context, t Target, conns, streams int, d time.Duration) *Result {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	shared := make([]*http.Transport, conns)
	for i := range shared {
		shared[i] = &http.Transport{Protocols: protocols, MaxConnsPerHost: 1, DisableCompression: true}
		defer shared[i].CloseIdleConnections()
	}
	return closedLoop(ctx, t, conns*streams, d, func(i int) client {
		return &stream{transport: shared[i%conns], target: t, next: i}
	})
}

// stream asks for one thing at a time over a connection that others use as well.
type stream struct {
	transport *http.Transport
	target    Target
	next      int
}

func (s *stream) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.target.Address+s.target.Path, nil)
	if err != nil {
		return err
	}
	request.Host = s.target.Hosts[s.next%len(s.target.Hosts)]
	s.next++
	answer, err := s.transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", answer.Status)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

func (s *stream) close() {}
