package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime/pprof"
	"runtime/trace"
	"time"

	"tenement"
	"tenement/internal/api"
)

// Profile implements [api.Backend].
func (b *backend) Profile(ctx context.Context, kind api.ProfileKind, duration time.Duration) ([]byte, error) {
	switch kind {
	case api.ProfileCPU:
		return record(ctx, duration, pprof.StartCPUProfile, pprof.StopCPUProfile)
	case api.ProfileTrace:
		return record(ctx, duration, trace.Start, trace.Stop)
	}
	of := pprof.Lookup(string(kind))
	if of == nil {
		return nil, &tenement.Error{Code: tenement.CodeInvalid, Op: "take a profile", Err: errors.New("there is no kind " + string(kind))}
	}
	var profile bytes.Buffer
	err := of.WriteTo(&profile, 0)
	return profile.Bytes(), err
}

// record takes down what happens for a time. The program can do that once at a time.
func record(ctx context.Context, duration time.Duration, start func(io.Writer) error, stop func()) ([]byte, error) {
	var profile bytes.Buffer
	if err := start(&profile); err != nil {
		return nil, &tenement.Error{
			Code: tenement.CodeConflict, Op: "take a profile", Err: err,
			Hint: "another one is being taken: try again when it has ended",
		}
	}
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	stop()
	return profile.Bytes(), ctx.Err()
}
