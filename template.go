package tenement

import (
	"fmt"
	"slices"
	"strings"
)

// The variables a [Template] may name.
const (
	VarName    = "name"     // the service
	VarID      = "id"       // the instance's name
	VarPort    = "port"     // the port to listen on
	VarDataDir = "data_dir" // <settings.data_dir>/<service>
)

var templateVars = []string{VarName, VarID, VarPort, VarDataDir}

// Template is a text with variables in braces, such as "{data_dir}/{id}". Braces
// around anything that does not look like a variable name are plain text, so
// JSON passes through; "{{" is a plain "{". The zero value is the empty text.
type Template struct{ raw string }

// Vars gives the variables of one start their values.
type Vars map[string]string

// ParseTemplate checks that every variable in s is known; an unknown one is an
// error with CodeInvalid that lists the known ones.
func ParseTemplate(s string) (Template, error) {
	var unknown string
	t := Template{raw: s}
	t.walk(func(string) {}, func(name string) {
		if unknown == "" && !slices.Contains(templateVars, name) {
			unknown = name
		}
	})
	if unknown != "" {
		return Template{}, &Error{
			Code: CodeInvalid, Op: "parse template",
			Err:  fmt.Errorf("unknown variable {%s}", unknown),
			Hint: "known are {" + strings.Join(templateVars, "}, {") + "}; write {{" + unknown + "} for the plain text",
		}
	}
	return t, nil
}

// MustTemplate is [ParseTemplate] for texts that are part of the program; it panics.
func MustTemplate(s string) Template {
	t, err := ParseTemplate(s)
	if err != nil {
		panic(err)
	}
	return t
}

// String is the text as written.
func (t Template) String() string { return t.raw }

// Expand puts the variables in. A variable that vars lacks becomes "".
func (t Template) Expand(vars Vars) string {
	var b strings.Builder
	t.walk(func(text string) { b.WriteString(text) }, func(name string) { b.WriteString(vars[name]) })
	return b.String()
}

// walk calls text for plain runs and variable for names in braces, in order.
func (t Template) walk(text, variable func(string)) {
	rest := t.raw
	for {
		open := strings.IndexByte(rest, '{')
		if open < 0 {
			text(rest)
			return
		}
		text(rest[:open])
		rest = rest[open+1:]
		if strings.HasPrefix(rest, "{") {
			text("{")
			rest = rest[1:]
			continue
		}
		name, after, ok := strings.Cut(rest, "}")
		if !ok || !isVarName(name) {
			text("{")
			continue
		}
		variable(name)
		rest = after
	}
}

func isVarName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == ""
}
