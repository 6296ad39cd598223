package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mvdan.cc/sh/v3/syntax"

	"github.com/pelletier/go-toml/v2/unstable"

	"tenement"
)

const stringNode = unstable.String

// wakeMargin is how much longer than one start a request waits unless the file says
// otherwise: for its turn, and for a back-off.
const wakeMargin = 30 * time.Second

func (d *draft) readServices(v value) {
	for _, item := range v.items {
		if item.kind != unstable.Table {
			d.wrong(item.at, "write [service."+item.key+"] and its keys below", "service.%s must be a table, not %s", item.key, item.shown())
			continue
		}
		if err := tenement.CheckServiceName(item.key); err != nil {
			d.wrongCode(item.keyAt, err)
		}
		d.service = &tenement.Service{
			Name:      item.key,
			Isolation: tenement.IsolationProcess,
			Workdir:   literal(d.dir),
			Timeouts: tenement.Timeouts{
				Idle: 5 * time.Minute, Startup: 10 * time.Second, Request: 30 * time.Second,
				Drain: 10 * time.Second, Stop: 10 * time.Second,
			},
			Restart: tenement.RestartPolicy{Mode: tenement.RestartOnFailure},
			Create:  tenement.CreateExplicit,
			Persist: true,
		}
		d.args = nil
		d.walk(inService, "service."+item.key, item)
		d.service.Command = append(d.service.Command, d.args...)
		d.services[item.key] = item
		d.config.Services[item.key] = d.service
	}
}

// literal is text as a template without variables.
func literal(text string) tenement.Template {
	return tenement.MustTemplate(strings.ReplaceAll(text, "{", "{{"))
}

// template reads text as a template, or notes what is wrong with it.
func (d *draft) template(n *node, text string) tenement.Template {
	t, err := tenement.ParseTemplate(text)
	if err != nil {
		d.wrongCode(n.at, err)
	}
	return t
}

func (d *draft) readCommand(v value) {
	words, err := splitWords(v.text)
	var syntaxError *wordsError
	if errors.As(err, &syntaxError) {
		d.wrong(v.offset(syntaxError.at), syntaxError.hint, "command: %s", syntaxError.message)
		return
	}
	for _, word := range words {
		d.service.Command = append(d.service.Command, d.template(v.node, word))
	}
}

func (d *draft) readArgs(v value) {
	for _, item := range v.items {
		d.args = append(d.args, d.template(item, item.text))
	}
}

// readWorkdir leaves a path that begins with a variable alone: that is absolute, or
// a mistake that the first start reports.
func (d *draft) readWorkdir(v value) {
	path := v.text
	if !strings.HasPrefix(path, "{") && !filepath.IsAbs(path) {
		path = strings.ReplaceAll(d.dir, "{", "{{") + "/" + path
	}
	d.service.Workdir = d.template(v.node, path)
}

func (d *draft) readIsolation(v value) {
	if level := tenement.Isolation(v.text); level != tenement.IsolationProcess {
		d.wrong(v.at, `until then only "process" is there, which does not protect tenants from one another`,
			"isolation %q is not supported yet", level)
	}
}

func (d *draft) readEnv(v value) {
	d.service.Env = make(map[string]tenement.Template, len(v.items))
	for _, item := range v.items {
		switch {
		case !isEnvName(item.key):
			d.wrong(item.keyAt, "letters, digits and _, not beginning with a digit", "%q is not a name for a variable", item.key)
		case isReserved(item.key):
			d.wrong(item.keyAt, "the daemon sets it for every tenant", "%s cannot be set", item.key)
		default:
			if v := (value{node: item}); d.fits(scalar, &v) {
				text := item.text
				if item.kind != unstable.String {
					text = item.raw
				}
				d.service.Env[item.key] = d.template(item, text)
			}
		}
	}
}

func isEnvName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// isReserved tells the variables that tell a tenant who and where it is.
func isReserved(name string) bool {
	return slices.Contains([]string{"PORT", "NOTIFY_SOCKET"}, name) ||
		strings.HasPrefix(name, "LISTEN_") || strings.HasPrefix(name, "TENEMENT_")
}

// wordsError says why a command cannot be split, and where in it.
type wordsError struct {
	at      int
	message string
	hint    string
}

func (e *wordsError) Error() string { return e.message }

const noShell = "no shell runs it; where you need one, write: sh -c '…'"

// splitWords splits a command as a POSIX shell would, and refuses everything that
// only a shell could do. It knows nothing of variables: what is put in for them later
// cannot become another word. Every error is a *wordsError.
func splitWords(text string) ([]string, error) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX), syntax.KeepComments(true)).Parse(strings.NewReader(text), "")
	var parseError syntax.ParseError
	var langError syntax.LangError
	switch {
	case errors.As(err, &parseError):
		return nil, &wordsError{at: int(parseError.Pos.Offset()), message: parseError.Text, hint: noShell}
	case errors.As(err, &langError):
		return nil, &wordsError{at: int(langError.Pos.Offset()), message: langError.Feature + " is not allowed", hint: noShell}
	case err != nil:
		return nil, &wordsError{message: err.Error(), hint: noShell}
	case len(file.Stmts) == 0:
		return nil, &wordsError{message: "it is empty", hint: `such as "python3 app.py"`}
	case len(file.Stmts) > 1:
		return nil, &wordsError{at: int(file.Stmts[1].Pos().Offset()), message: "it is more than one command", hint: noShell}
	}
	call, err := simpleCall(file.Stmts[0])
	if err != nil {
		return nil, err
	}
	words := make([]string, 0, len(call.Args))
	for _, word := range call.Args {
		plain, err := plainWord(word.Parts)
		if err != nil {
			return nil, err
		}
		words = append(words, plain)
	}
	return words, nil
}

// simpleCall is the one command with its words that a statement must consist of.
func simpleCall(s *syntax.Stmt) (*syntax.CallExpr, error) {
	call, ok := s.Cmd.(*syntax.CallExpr)
	switch {
	case len(s.Redirs) > 0:
		return nil, &wordsError{at: int(s.Redirs[0].OpPos.Offset()), message: "it redirects", hint: noShell}
	case !ok || s.Negated || s.Background || s.Coprocess || s.Semicolon.IsValid() || len(s.Comments) > 0:
		return nil, &wordsError{at: int(s.Pos().Offset()), message: "it is not one plain command", hint: noShell}
	case len(call.Assigns) > 0:
		return nil, &wordsError{
			at: int(call.Assigns[0].Pos().Offset()), message: "it sets a variable", hint: "put it into [service.NAME.env]",
		}
	}
	return call, nil
}

func plainWord(parts []syntax.WordPart) (string, error) {
	var b strings.Builder
	for _, part := range parts {
		switch part := part.(type) {
		case *syntax.Lit:
			b.WriteString(unescape(part.Value, ""))
			continue
		case *syntax.SglQuoted:
			if !part.Dollar {
				b.WriteString(part.Value)
				continue
			}
		case *syntax.DblQuoted:
			text, err := quoted(part)
			if err != nil {
				return "", err
			}
			b.WriteString(text)
			continue
		}
		return "", &wordsError{at: int(part.Pos().Offset()), message: "it has something that a shell would expand", hint: noShell}
	}
	return b.String(), nil
}

func quoted(q *syntax.DblQuoted) (string, error) {
	var b strings.Builder
	for _, part := range q.Parts {
		lit, ok := part.(*syntax.Lit)
		if !ok || q.Dollar {
			return "", &wordsError{at: int(part.Pos().Offset()), message: "it has something that a shell would expand", hint: noShell}
		}
		b.WriteString(unescape(lit.Value, "$`\"\\"))
	}
	return b.String(), nil
}

// unescape removes the backslashes that quote: all of them outside of quotes, inside
// double quotes only those before one of special (POSIX, Shell Command Language, 2.2).
func unescape(s, special string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			next := s[i+1]
			switch {
			case next == '\n':
				i++
				continue
			case special == "" || strings.IndexByte(special, next) >= 0:
				i++
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// nearest is the one of names that s is most likely a slip of, or "".
func nearest(s string, names []string) string {
	best, least := "", max(1, len(s)/3)+1
	for _, name := range names {
		if n := distance(s, name); n < least {
			best, least = name, n
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// serviceExists notes a reference to a service that the file does not have.
func (d *draft) serviceExists(n *node, at int, name string) bool {
	if d.config.Services[name] != nil {
		return true
	}
	names := make([]string, 0, len(d.config.Services))
	for known := range d.config.Services {
		names = append(names, known)
	}
	slices.Sort(names)
	hint := fmt.Sprintf("add [service.%s]", name)
	if best := nearest(name, names); best != "" {
		hint = "did you mean " + best + "?"
	}
	d.wrong(at, hint, "there is no service %q", name)
	return false
}
