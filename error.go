package tenement

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Code says what kind of failure an [Error] is. It alone decides the HTTP status
// and the exit status, so that no caller ever matches on text.
type Code string

// The codes. A new one needs a line in codeTable.
const (
	CodeInvalid         Code = "invalid"         // the request itself is wrong
	CodeUnauthenticated Code = "unauthenticated" // no credential, or one we do not know
	CodeForbidden       Code = "forbidden"       // a known credential that may not do this
	CodeNotFound        Code = "not_found"       // no such service, instance or token
	CodeConflict        Code = "conflict"        // not in the present state
	CodeChanged         Code = "changed"         // not any more as it was when the caller looked
	CodeSuspended       Code = "suspended"       // switched off by the operator
	CodeUnavailable     Code = "unavailable"     // the instance cannot be started now
	CodeAsleep          Code = "asleep"          // the instance sleeps, and this request does not wake it
	CodeFull            Code = "full"            // a bound on waiting work, or on what is awake, is reached
	CodeStorageFull     Code = "storage_full"    // the instance has used up its storage quota
	CodeTimeout         Code = "timeout"         // the tenant took too long
	CodeBroken          Code = "broken"          // the tenant broke off
	CodeUnreachable     Code = "unreachable"     // the daemon does not answer
	CodeCanceled        Code = "canceled"        // whoever asked went away
	CodeInternal        Code = "internal"        // a fault of ours
)

// statusClientClosed is nginx's status for a client that went away. It reaches
// only logs: nobody is left to read it.
const statusClientClosed = 499

var codeTable = map[Code]struct{ httpStatus, exitStatus int }{
	CodeInvalid:         {http.StatusBadRequest, 2},
	CodeUnauthenticated: {http.StatusUnauthorized, 4},
	CodeForbidden:       {http.StatusForbidden, 4},
	CodeNotFound:        {http.StatusNotFound, 3},
	CodeConflict:        {http.StatusConflict, 1},
	CodeChanged:         {http.StatusPreconditionFailed, 1},
	CodeSuspended:       {http.StatusServiceUnavailable, 1},
	CodeUnavailable:     {http.StatusServiceUnavailable, 1},
	CodeAsleep:          {http.StatusServiceUnavailable, 1},
	CodeFull:            {http.StatusServiceUnavailable, 1},
	CodeStorageFull:     {http.StatusInsufficientStorage, 1},
	CodeTimeout:         {http.StatusGatewayTimeout, 1},
	CodeBroken:          {http.StatusBadGateway, 1},
	CodeUnreachable:     {http.StatusBadGateway, 5},
	CodeCanceled:        {statusClientClosed, 1},
	CodeInternal:        {http.StatusInternalServerError, 1},
}

// HTTPStatus is the status of an answer that reports c; 500 for a code we do not know.
func (c Code) HTTPStatus() int {
	if row, ok := codeTable[c]; ok {
		return row.httpStatus
	}
	return http.StatusInternalServerError
}

// ExitStatus is the exit status of a command that failed with c; 1 for a code we do not know.
func (c Code) ExitStatus() int {
	if row, ok := codeTable[c]; ok {
		return row.exitStatus
	}
	return 1
}

// Error is a failure with its kind, the operation that failed, its cause and,
// for operators, the way out. Return it; only the edge logs or prints it.
type Error struct {
	Code Code
	Op   string // what was being done, such as "start api:alice"
	Err  error
	Hint string // what the operator can do; empty when we do not know

	// RetryAfter is how long to wait before the same request may succeed; 0 when unknown.
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return e.Op + ": " + string(e.Code)
	case e.Op == "":
		return e.Err.Error()
	default:
		return e.Op + ": " + e.Err.Error()
	}
}

func (e *Error) Unwrap() error { return e.Err }

// CodeOf is the code of the outermost [Error] in err's chain. A context's end
// that nobody wrapped is CodeTimeout or CodeCanceled, nil is "", and anything
// else is CodeInternal.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.DeadlineExceeded):
		return CodeTimeout
	case errors.Is(err, context.Canceled):
		return CodeCanceled
	}
	return CodeInternal
}

// HintOf is the hint nearest to the outside of err's chain, or "".
func HintOf(err error) string {
	var e *Error
	for errors.As(err, &e) {
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
