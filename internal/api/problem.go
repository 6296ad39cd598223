package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"tenement"
)

const problemType = "application/problem+json"

// Problem is an error as the API writes it: a problem document (RFC 9457) with
// the extension members code, hint and errors.
type Problem struct {
	Title  string         `json:"title" doc:"the status in words"`
	Status int            `json:"status"`
	Detail string         `json:"detail,omitempty" doc:"what went wrong"`
	Code   tenement.Code  `json:"code" doc:"what kind of failure it is; decides the status"`
	Hint   string         `json:"hint,omitempty" doc:"the way out, where it is known"`
	Errors []ProblemField `json:"errors,omitempty" nullable:"false" doc:"every mistake in the request"`

	retryAfter time.Duration
}

// ProblemField is one mistake in a request.
type ProblemField struct {
	Location string `json:"location,omitempty" example:"body.weight"`
	Detail   string `json:"detail"`
}

// newProblem is err as the client may see it. What is CodeInternal tells nothing
// about our insides unless the caller is an admin.
func newProblem(err error, admin bool) *Problem {
	code := tenement.CodeOf(err)
	p := &Problem{
		Status: code.HTTPStatus(),
		Detail: err.Error(),
		Code:   code,
		Hint:   tenement.HintOf(err),
	}
	p.Title = title(p.Status)
	if code == tenement.CodeInternal && !admin {
		p.Detail, p.Hint = "internal error", "the daemon's log says more"
	}
	var e *tenement.Error
	if errors.As(err, &e) {
		p.retryAfter = e.RetryAfter
	}
	return p
}

// refusal is a Problem about the HTTP request itself, with a status that no code has.
func refusal(status int, detail, hint string) *Problem {
	return &Problem{
		Title: title(status), Status: status, Detail: detail,
		Code: codeOfStatus(status), Hint: hint,
	}
}

// codeOfStatus is the kind of a refusal for which only a status was chosen.
func codeOfStatus(status int) tenement.Code {
	switch {
	case status == http.StatusForbidden:
		return tenement.CodeForbidden
	case status == http.StatusNotFound:
		return tenement.CodeNotFound
	case status == http.StatusTooManyRequests:
		return tenement.CodeUnauthenticated
	case status < http.StatusInternalServerError:
		return tenement.CodeInvalid
	}
	return tenement.CodeInternal
}

// title is needed beside http.StatusText because one of our statuses is nginx's.
func title(status int) string {
	if text := http.StatusText(status); text != "" {
		return text
	}
	return "Status " + strconv.Itoa(status)
}

func (p *Problem) Error() string { return p.Detail }

// GetStatus makes a Problem a huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType makes a Problem a huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return problemType }

// GetHeaders makes a Problem a huma.HeadersError.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="tenement"`) // RFC 6750 §3
	}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.retryAfter.Seconds()))))
	}
	return h
}

// write is for answers that huma has no part in.
func (p *Problem) write(w http.ResponseWriter) {
	for name, values := range p.GetHeaders() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	// The status is sent: whoever went away cannot be told more.
	_ = json.NewEncoder(w).Encode(p)
}

// WriteProblem answers for a daemon that has no [Server] to do so: with status, and
// otherwise as a Server says err to an admin.
func WriteProblem(w http.ResponseWriter, status int, err error) {
	p := newProblem(err, true)
	p.Status, p.Title = status, title(status)
	p.write(w)
}

// err is what the client makes of p, so that its caller sees the server's error.
func (p *Problem) err(retryAfter time.Duration) error {
	detail := p.Detail
	for _, f := range p.Errors {
		detail += "; " + strings.TrimPrefix(f.Location+": "+f.Detail, ": ")
	}
	if detail == "" {
		detail = p.Title
	}
	return &tenement.Error{
		Code: p.Code, Err: errors.New(detail), Hint: p.Hint, RetryAfter: retryAfter,
	}
}

// huma makes its own refusals, and the schema of errors, through these variables:
// they are its documented way to another error type, and it has no other.
func init() {
	huma.NewError = humaProblem
	huma.NewErrorWithContext = func(_ huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(status, msg, errs...)
	}
}

// humaProblem is a request that huma refused: it does not fit the schema, or
// cannot be read.
func humaProblem(status int, msg string, errs ...error) huma.StatusError {
	if status == http.StatusUnprocessableEntity {
		status = http.StatusBadRequest // ours for CodeInvalid
	}
	p := refusal(status, msg, "")
	for _, err := range errs {
		p.Errors = append(p.Errors, problemField(err))
	}
	slices.SortStableFunc(p.Errors, func(a, b ProblemField) int { return strings.Compare(a.Location, b.Location) })
	return p
}

// problemField leaves the offending value out: it may be a secret.
func problemField(err error) ProblemField {
	var d *huma.ErrorDetail
	if errors.As(err, &d) {
		return ProblemField{Location: d.Location, Detail: d.Message}
	}
	return ProblemField{Detail: fmt.Sprint(err)}
}
