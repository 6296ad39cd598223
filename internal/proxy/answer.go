package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tenement"
)

// codeHeader tells programs that an answer is ours and what kind of failure it is.
const codeHeader = "X-Tenement-Error"

// answer is an answer of our own, made once. It says nothing about the request,
// the instance or the machine.
type answer struct {
	status  int
	code    tenement.Code
	page    form // for a browser that navigates
	problem form // for everybody else, RFC 9457

	codeValue []string
	pageTail  string // of page, behind the place for a refresh
}

// form is one representation of an answer. The header values are shared by all
// responses; nothing may change them.
type form struct {
	contentType, contentLength []string
	body                       string
}

var (
	noStore    = []string{"no-store"}
	noSniff    = []string{"nosniff"}
	pagePolicy = []string{"default-src 'none'; style-src 'unsafe-inline'"}
)

// All the answers. Apart from their status they are told apart by their code.
var (
	malformed      = newAnswer(http.StatusBadRequest, tenement.CodeInvalid, "The request is malformed.")
	notFound       = newAnswer(http.StatusNotFound, tenement.CodeNotFound, "Nothing is served under this address.")
	stalled        = newAnswer(http.StatusRequestTimeout, tenement.CodeInvalid, "The request did not arrive in time.")
	tooLarge       = newAnswer(http.StatusRequestEntityTooLarge, tenement.CodeInvalid, "The request is larger than this application accepts.")
	internalError  = newAnswer(http.StatusInternalServerError, tenement.CodeInternal, "Something went wrong on our side.")
	notImplemented = newAnswer(http.StatusNotImplemented, tenement.CodeInvalid, "This method is not supported.")
	broken         = newAnswer(http.StatusBadGateway, tenement.CodeBroken, "The application broke off before it answered.")
	suspended      = newAnswer(http.StatusServiceUnavailable, tenement.CodeSuspended, "This application is switched off at the moment.")
	unavailable    = newAnswer(http.StatusServiceUnavailable, tenement.CodeUnavailable, "This application cannot be started at the moment.")
	notWoken       = newAnswer(http.StatusServiceUnavailable, tenement.CodeAsleep, "This application sleeps, and this request does not wake it.")
	notThere       = newAnswer(http.StatusNotFound, tenement.CodeAsleep, "This application sleeps, and is not woken for this address.")
	full           = newAnswer(http.StatusServiceUnavailable, tenement.CodeFull, "The server is full at the moment.")
	storageFull    = newAnswer(http.StatusInsufficientStorage, tenement.CodeStorageFull, "This application has used up its storage and is stopped until there is room.")
	tooSlow        = newAnswer(http.StatusGatewayTimeout, tenement.CodeTimeout, "The application took too long to answer.")
)

// answerTo finds the answer that reports err.
func answerTo(err error) *answer {
	switch {
	case errors.Is(err, errTooLarge):
		return tooLarge
	case errors.Is(err, errStalled):
		return stalled
	}
	switch tenement.CodeOf(err) {
	case tenement.CodeInvalid:
		return malformed
	case tenement.CodeNotFound:
		return notFound
	case tenement.CodeSuspended:
		return suspended
	case tenement.CodeUnavailable, tenement.CodeCanceled: // canceled, but not by the client: we are going away
		return unavailable
	case tenement.CodeAsleep:
		return notWoken
	case tenement.CodeFull:
		return full
	case tenement.CodeStorageFull:
		return storageFull
	case tenement.CodeTimeout:
		return tooSlow
	case tenement.CodeBroken, tenement.CodeUnreachable:
		return broken
	}
	return internalError
}

// retryAfter is the nearest RetryAfter in err's chain, 0 when nobody knows.
func retryAfter(err error) time.Duration {
	var e *tenement.Error
	for errors.As(err, &e) {
		if e.RetryAfter > 0 {
			return e.RetryAfter
		}
		err = e.Err
	}
	return 0
}

// refuse answers a request that nothing was done for. A body that is still on its
// way is not waited for.
func refuse(w http.ResponseWriter, r *http.Request, a *answer) {
	if hasBody(r) && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close") // otherwise the server reads the body before it answers
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(lingerTimeout))
	}
	a.write(w, r, 0)
}

// write sends the answer. retry is when another attempt may succeed, 0 when
// unknown; a 503 asks for at least a second (RFC 9110 §10.2.3).
func (a *answer) write(w http.ResponseWriter, r *http.Request, retry time.Duration) {
	h := w.Header()
	h[codeHeader] = a.codeValue
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
	if a.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.FormatInt(seconds(retry), 10))
	}
	form, refresh := &a.problem, ""
	if navigates(r) {
		form = &a.page
		h["Content-Security-Policy"] = pagePolicy
		if retry > 0 && a.status == http.StatusServiceUnavailable && r.Method == http.MethodGet {
			refresh = fmt.Sprintf(`<meta http-equiv="refresh" content="%d">`, seconds(retry))
		}
	}
	h["Content-Type"] = form.contentType
	body := form.body
	if refresh == "" {
		h["Content-Length"] = form.contentLength
	} else {
		head := strings.TrimSuffix(body, a.pageTail)
		body = head + refresh + a.pageTail
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead {
		_, _ = writeString(w, body) // nobody is left to tell
	}
}

func writeString(w http.ResponseWriter, s string) (int, error) {
	if sw, ok := w.(interface{ WriteString(string) (int, error) }); ok {
		return sw.WriteString(s)
	}
	return w.Write([]byte(s))
}

// seconds rounds up: a client that comes back too early was asked in vain.
func seconds(d time.Duration) int64 {
	return max(1, int64((d+time.Second-1)/time.Second))
}

// navigates reports whether a person will look at the answer. Browsers say so
// (Fetch Metadata); of those that do not, we guess by what they accept.
func navigates(r *http.Request) bool {
	if mode := r.Header["Sec-Fetch-Mode"]; len(mode) > 0 {
		return mode[0] == "navigate"
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	for _, accept := range r.Header["Accept"] {
		if strings.Contains(strings.ToLower(accept), "text/html") {
			return true
		}
	}
	return false
}

func newAnswer(status int, code tenement.Code, detail string) *answer {
	title := http.StatusText(status)
	problem, err := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"about:blank", title, status, detail})
	if err != nil {
		panic(err) // strings and a number
	}
	tail := strings.NewReplacer(
		"{status}", strconv.Itoa(status), "{title}", title, "{detail}", detail,
	).Replace(pageTail)
	return &answer{
		status: status, code: code,
		codeValue: []string{string(code)},
		page:      newForm("text/html; charset=utf-8", pageHead+tail),
		pageTail:  tail,
		problem:   newForm("application/problem+json", string(problem)+"\n"),
	}
}

func newForm(contentType, body string) form {
	return form{
		contentType:   []string{contentType},
		contentLength: []string{strconv.Itoa(len(body))},
		body:          body,
	}
}

const pageHead = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
`

const pageTail = `
<title>{title}</title>
<style>
:root { color-scheme: light dark; --ink: light-dark(#1d2330, #e8eaf0); --soft: light-dark(#667085, #98a1b3); --paper: light-dark(#f7f8fa, #14171d); --card: light-dark(#fff, #1c2028); --line: light-dark(#e3e6eb, #2b313c); }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--paper); color: var(--ink); font: 17px/1.5 system-ui, sans-serif; }
main { box-sizing: border-box; width: min(30rem, 100% - 2rem); padding: 2.25rem; background: var(--card); border: 1px solid var(--line); border-radius: 14px; }
p { margin: 0; }
.status { color: var(--soft); font-size: .9rem; font-variant-numeric: tabular-nums; letter-spacing: .06em; }
h1 { margin: .3rem 0 .6rem; font-size: 1.5rem; line-height: 1.25; }
</style>
</head>
<body>
<main>
<p class="status">{status}</p>
<h1>{title}</h1>
<p>{detail}</p>
</main>
</body>
</html>
`
