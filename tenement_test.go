package tenement

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParseInstanceID(t *testing.T) {
	t.Parallel()
	label := strings.Repeat("a", 63)
	for text, want := range map[string]InstanceID{
		"api:alice":            {"api", "alice"},
		"a:b":                  {"a", "b"},
		"my-api:a_b-c9":        {"my-api", "a_b-c9"},
		label + ":" + label:    {label, label},
		"0:1":                  {"0", "1"},
		"api":                  {},
		"":                     {},
		":":                    {},
		"api:":                 {},
		":alice":               {},
		"api:alice:x":          {},
		"API:alice":            {},
		"api:Alice":            {},
		"api:-alice":           {},
		"api:alice-":           {},
		"api:_alice":           {},
		"my_api:alice":         {},
		"api:..":               {},
		"api:a/b":              {},
		"api:a.b":              {},
		"api:ä":                {},
		"api:a b":              {},
		"api:a\x00b":           {},
		"api:" + label + "a":   {},
		".tenement:state":      {},
		"api:alice\n":          {},
		" api:alice":           {},
		"api:" + "\u202ealice": {},
	} {
		got, err := ParseInstanceID(text)
		if got != want || (err == nil) == want.IsZero() {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
		if err != nil && (CodeOf(err) != CodeInvalid || HintOf(err) == "") {
			t.Errorf("%q: code %s, hint %q", text, CodeOf(err), HintOf(err))
		}
		if ValidInstanceName(text) != (CheckInstanceName(text) == nil) {
			t.Errorf("%q: the two checks of a name differ", text)
		}
	}
}

func TestInstanceIDInJSON(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(map[string]any{"id": InstanceID{"api", "alice"}})
	if err != nil || string(text) != `{"id":"api:alice"}` {
		t.Errorf("%s, %v", text, err)
	}
	var back struct{ ID InstanceID }
	if err := json.Unmarshal([]byte(`{"ID":"no such thing"}`), &back); CodeOf(err) != CodeInvalid {
		t.Errorf("error %v", err)
	}
}

func FuzzParseInstanceID(f *testing.F) {
	f.Add("api:alice")
	f.Add("../../etc:passwd")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseInstanceID(s)
		if err != nil {
			return
		}
		if id.String() != s || strings.ContainsAny(s, "/\\. \x00") {
			t.Errorf("%q was read as %v", s, id)
		}
	})
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	vars := Vars{VarName: "api", VarID: "alice", VarPort: "80", VarDataDir: "/d/api"}
	for text, want := range map[string]string{
		"":                    "",
		"plain":               "plain",
		"{data_dir}/{id}":     "/d/api/alice",
		"{name}:{port}{port}": "api:8080",
		`{"a": {"b": 1}}`:     `{"a": {"b": 1}}`,
		"{{id}":               "{id}",
		"{":                   "{",
		"{}":                  "{}",
		"{id":                 "{id",
		"a}b{ id }":           "a}b{ id }",
		"{ID}":                "{ID}",
	} {
		template, err := ParseTemplate(text)
		if err != nil || template.Expand(vars) != want {
			t.Errorf("%q: %q, %v; want %q", text, template.Expand(vars), err, want)
		}
	}
	_, err := ParseTemplate("x{nonsense}y")
	if CodeOf(err) != CodeInvalid || !strings.Contains(err.Error(), "{nonsense}") || !strings.Contains(HintOf(err), "{data_dir}") {
		t.Errorf("error %v, hint %q", err, HintOf(err))
	}
}

// TestTemplateValuesAreNotExpanded: what a variable brings in is text, whatever it says.
func TestTemplateValuesAreNotExpanded(t *testing.T) {
	t.Parallel()
	if got := MustTemplate("{id}").Expand(Vars{VarID: "{port}", VarPort: "80"}); got != "{port}" {
		t.Errorf("got %q", got)
	}
}

func TestRestartDelay(t *testing.T) {
	t.Parallel()
	p := RestartPolicy{BackoffBase: time.Second, BackoffMax: 10 * time.Second}
	for n, want := range []time.Duration{0, 0, 1, 2, 4, 8, 10, 10} {
		if got := p.Delay(n); got != want*time.Second {
			t.Errorf("after crash %d: %s, want %s", n, got, want*time.Second)
		}
	}
	if got := p.Delay(1 << 30); got != p.BackoffMax {
		t.Errorf("after very many: %s", got)
	}
	if got := (RestartPolicy{BackoffBase: time.Minute, BackoffMax: time.Second}).Delay(2); got != time.Second {
		t.Errorf("base above max: %s", got)
	}
}

func TestErrorCodes(t *testing.T) {
	t.Parallel()
	inner := &Error{Code: CodeNotFound, Op: "find", Err: errors.New("gone"), Hint: "look elsewhere"}
	outer := &Error{Code: CodeUnavailable, Op: "start", Err: fmt.Errorf("wrapped: %w", inner)}
	for _, test := range []struct {
		err    error
		code   Code
		hint   string
		status int
		exit   int
	}{
		{nil, "", "", 500, 1},
		{errors.New("x"), CodeInternal, "", 500, 1},
		{inner, CodeNotFound, "look elsewhere", 404, 3},
		{outer, CodeUnavailable, "look elsewhere", 503, 1},
		{fmt.Errorf("more: %w", inner), CodeNotFound, "look elsewhere", 404, 3},
		{context.DeadlineExceeded, CodeTimeout, "", 504, 1},
		{fmt.Errorf("more: %w", context.Canceled), CodeCanceled, "", 499, 1},
		{&Error{Code: "strange"}, "strange", "", 500, 1},
	} {
		code := CodeOf(test.err)
		if code != test.code || HintOf(test.err) != test.hint || code.HTTPStatus() != test.status || code.ExitStatus() != test.exit {
			t.Errorf("%v: %s, %q, %d, %d", test.err, code, HintOf(test.err), code.HTTPStatus(), code.ExitStatus())
		}
	}
	if got := outer.Error(); got != "start: wrapped: find: gone" {
		t.Errorf("text %q", got)
	}
}
