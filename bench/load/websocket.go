package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// messageSize is of a WebSocket message's payload, in bytes.
const messageSize = 64

// Messages has n clients send WebSocket messages of 64 bytes, each the next when the one
// before has come back. An answer in the result is one message there and back.
func Messages(ctx context.Context, t Target, n int, d time.Duration) *Result {
	return closedLoop(ctx, t, n, d, func(i int) client {
		return &socket{Conn: Conn{Address: t.Address}, host: t.Hosts[i%len(t.Hosts)], path: t.Path}
	})
}

// socket is one end of a WebSocket.
type socket struct {
	Conn
	host, path string
	open       bool
}

// message is a text frame as a client must send it, masked, with a key of zeros
// (RFC 6455 §5.2): the payload is as it is.
var message = append([]byte{0x81, 0x80 | messageSize, 0, 0, 0, 0}, make([]byte, messageSize)...)

var errFrame = errors.New("another frame came back than was sent")

func (s *socket) ask(ctx context.Context) error {
	if !s.open {
		if err := s.handshake(ctx); err != nil {
			s.Close()
			return err
		}
		s.open = true
	}
	err := s.echo()
	if err != nil {
		s.open = false
		s.Close()
	}
	return err
}

func (s *socket) echo() error {
	if _, err := s.conn.Write(message); err != nil {
		return err
	}
	const head = 2 // bytes: the server's frames have no mask
	answer := s.buffer[:head+messageSize]
	if _, err := io.ReadFull(s.conn, answer); err != nil {
		return err
	}
	if answer[0] != message[0] || answer[1] != messageSize {
		return errFrame
	}
	return nil
}

func (s *socket) handshake(ctx context.Context) error {
	// The key is the example of RFC 6455 §1.3.
	err := s.Send(ctx, []byte("GET "+s.path+" HTTP/1.1\r\nHost: "+s.host+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
	if err != nil {
		return err
	}
	head, err := s.head()
	s.have = 0
	if err == nil && string(head[:min(len(head), 12)]) != "HTTP/1.1 101" {
		err = fmt.Errorf("answered %q", firstLine(head))
	}
	return err
}

func (s *socket) close() { s.Close() }
