package dashboard

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"tenement"
	"tenement/internal/api"
)

const (
	maxForm     = 16 << 10         // bytes of a form
	formTimeout = 10 * time.Second // to send it
)

var errOtherOrigin = &tenement.Error{
	Code: tenement.CodeForbidden, Op: "log in", Err: errors.New("cross-origin requests are refused"),
}

// loginPage is what the page says.
type loginPage struct {
	Next    string // where to go from there
	Problem string // what was wrong with the last try; "" on the first
	Hint    string
}

func (h *Handler) showLogin(w http.ResponseWriter, status int, page loginPage) {
	var text bytes.Buffer
	if err := h.login.Execute(&text, page); err != nil {
		panic(err) // it is executed with nothing but texts
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", types[".html"])
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes()) // whoever went away cannot be told more
}

// logIn begins a session for whoever sends a token that the API takes. A wrong one is
// answered with the page again, and with the API's own status.
func (h *Handler) logIn(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(formTimeout)) // where there is none, the server has its own bounds
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	token, next := strings.TrimSpace(r.PostFormValue("token")), r.PostFormValue("next")
	_ = control.SetReadDeadline(time.Time{})
	if answer := h.identify(r, token); answer.status != http.StatusOK {
		for _, name := range []string{"Retry-After", "Www-Authenticate"} {
			w.Header()[name] = answer.header[name]
		}
		p := api.Problem{Detail: "the daemon cannot tell now"}
		_ = json.Unmarshal(answer.body.Bytes(), &p) // or else that is what is said
		h.showLogin(w, answer.status, loginPage{Next: next, Problem: p.Detail, Hint: p.Hint})
		return
	}
	h.sessions.end(sessionOf(r)) // whoever it was before
	// A browser says itself whether it came over HTTPS, and it alone has a use of the answer.
	secure := strings.HasPrefix(r.Header.Get("Origin"), "https://")
	http.SetCookie(w, newCookie(h.sessions.begin(token), secure))
	seeOther(w, r, destination(next))
}

func (h *Handler) logOut(w http.ResponseWriter, r *http.Request) {
	h.sessions.end(sessionOf(r))
	http.SetCookie(w, newCookie("", true))
	http.SetCookie(w, newCookie("", false))
	seeOther(w, r, "/login")
}

func seeOther(w http.ResponseWriter, r *http.Request, path string) {
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, path, http.StatusSeeOther)
}

// destination is next if that is a path of ours, and else the first page.
func destination(next string) string {
	foreign := func(c rune) bool {
		return c > unicode.MaxASCII || !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("/:_-.?=&%+,", c)
	}
	if strings.HasPrefix(next, "/") && !strings.HasPrefix(next, "//") && !strings.ContainsFunc(next, foreign) {
		return next
	}
	return "/"
}

// identify is what the API answers to whoever has token and asks who that is: so a wrong
// one is counted against its sender, and noted, as everywhere else.
func (h *Handler) identify(r *http.Request, token string) *recorder {
	const path = "/api/whoami"
	ask := withToken(r, token)
	ask.Method, ask.URL, ask.RequestURI = http.MethodGet, &url.URL{Path: path}, path
	ask.Body, ask.ContentLength = http.NoBody, 0
	ask.Header.Del("Content-Type")
	answer := &recorder{header: http.Header{}, status: http.StatusOK}
	h.api.ServeHTTP(answer, ask)
	return answer
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
