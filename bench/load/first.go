package load

import (
	"context"
	"time"
)

// First is the answer to one request over a connection of its own.
type First struct {
	Began time.Time
	Took  time.Duration // until its first byte
	Body  string        // its beginning
}

// FirstAnswer asks once and times the answer since began.
func FirstAnswer(ctx context.Context, address, host, path string, began time.Time) (*First, error) {
	conn := Conn{Address: address}
	defer conn.Close()
	if err := conn.Send(ctx, Request(host, path)); err != nil {
		return nil, err
	}
	conn.conn.SetDeadline(time.Now().Add(firstPatience))
	if err := conn.await(); err != nil {
		return nil, err
	}
	first := &First{Began: began, Took: time.Since(began)}
	body, err := conn.receive()
	first.Body = string(body)
	return first, err
}

// firstPatience bounds the wait for a program that has to start, among many.
const firstPatience = 3 * time.Minute
