package main

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 64 << 10

//go:embed page.html
var files embed.FS

// page is parsed when it is first asked for, so that it costs the start nothing.
var page = sync.OnceValue(func() *template.Template {
	return template.Must(template.ParseFS(files, "page.html"))
})

// web serves a notebook as a page and as JSON.
type web struct {
	notes   *notebook
	started time.Time
}

func newHandler(notes *notebook, started time.Time) http.Handler {
	w := &web{notes: notes, started: started}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "ok\n")
	})
	mux.HandleFunc("GET /{$}", w.page)
	mux.HandleFunc("GET /notes", w.list)
	mux.HandleFunc("POST /notes", w.add)
	return mux
}

func (w *web) page(rw http.ResponseWriter, r *http.Request) {
	notes, err := w.notes.List(r.Context())
	if err != nil {
		fail(rw, r, err)
		return
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	err = page().Execute(rw, map[string]any{
		"Host":    r.Host,
		"Notes":   notes,
		"PID":     os.Getpid(),
		"Started": w.started.UTC(),
	})
	if err != nil {
		slog.Warn("page", "err", err) // the header is out: nobody else can be told
	}
}

func (w *web) list(rw http.ResponseWriter, r *http.Request) {
	notes, err := w.notes.List(r.Context())
	if err != nil {
		fail(rw, r, err)
		return
	}
	writeJSON(rw, http.StatusOK, notes)
}

func (w *web) add(rw http.ResponseWriter, r *http.Request) {
	text, err := readText(rw, r)
	if err != nil {
		writeJSON(rw, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	added, err := w.notes.Add(r.Context(), text)
	if err != nil {
		fail(rw, r, err)
		return
	}
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		http.Redirect(rw, r, "/", http.StatusSeeOther) // a browser's form: back to the page
		return
	}
	writeJSON(rw, http.StatusCreated, added)
}

// readText takes the note's text from a JSON object or a form with the field
// "text", or from any other body as it is.
func readText(rw http.ResponseWriter, r *http.Request) (string, error) {
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxBody))
	if err != nil {
		return "", err
	}
	text := string(body)
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) // none or a broken one: plain text
	switch mediaType {
	case "application/json":
		var in struct {
			Text string `json:"text"`
		}
		if err := json.Unmarshal(body, &in); err != nil {
			return "", fmt.Errorf(`send {"text": "…"}: %w`, err)
		}
		text = in.Text
	case "application/x-www-form-urlencoded":
		// curl -d 'buy milk' says it is a form; without the field it is the text itself.
		if form, err := url.ParseQuery(text); err == nil && form.Has("text") {
			text = form.Get("text")
		}
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return "", errors.New("the note is empty")
	}
	return text, nil
}

func writeJSON(rw http.ResponseWriter, status int, value any) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	if err := json.NewEncoder(rw).Encode(value); err != nil {
		slog.Warn("answer", "err", err) // the header is out: nobody else can be told
	}
}

// fail logs err and tells the client no more than that it happened.
func fail(rw http.ResponseWriter, r *http.Request, err error) {
	slog.ErrorContext(r.Context(), "request", "method", r.Method, "path", r.URL.Path, "err", err)
	http.Error(rw, "the notes cannot be read or written now", http.StatusInternalServerError)
}
