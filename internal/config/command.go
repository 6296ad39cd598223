package config

import (
	"errors"
	"fmt"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// shellHint is the way out for a command that only a shell can run.
const shellHint = "no shell runs a command; write sh -c '…' for one that needs it, or quotes around plain text"

// maxCommand bounds a command, in bytes. The parser descends once per parenthesis: a
// longer one could exhaust the stack, which no program survives.
const maxCommand = 16 << 10

const programHint = `a program and its arguments, such as "python3 app.py"`

// commandError is what is wrong with a command line, and where in it.
type commandError struct {
	message, hint string
	offset        int // in bytes
}

func (e *commandError) Error() string { return e.message }

// splitCommand splits a command line into words by the rules of the POSIX shell
// (XCU 2.2, Quoting) without running any of it: quotes and backslashes are taken
// away, and ~, *, ?, [ and {} stay as they are. Whatever would make a shell do
// more than start one program with these words is a *commandError.
func splitCommand(line string) ([]string, error) {
	if len(line) > maxCommand {
		return nil, &commandError{message: fmt.Sprintf("command is longer than %d bytes", maxCommand), hint: "put it into a script"}
	}
	parser := syntax.NewParser(syntax.Variant(syntax.LangPOSIX), syntax.KeepComments(true))
	file, err := parser.Parse(strings.NewReader(line), "")
	if err != nil {
		return nil, parseFailure(err)
	}
	if len(file.Last) > 0 {
		return nil, refuse(file.Last[0].Pos(), "a comment")
	}
	if len(file.Stmts) == 0 {
		return nil, &commandError{message: "command is empty", hint: programHint}
	}
	call, err := onlyCall(file.Stmts)
	if err != nil {
		return nil, err
	}
	var words []string
	for _, word := range call.Args {
		text, err := wordText(word)
		if err != nil {
			return nil, err
		}
		words = append(words, text)
	}
	if words[0] == "" {
		return nil, &commandError{message: "command names no program", hint: programHint}
	}
	return words, nil
}

func parseFailure(err error) error {
	var parse syntax.ParseError
	if errors.As(err, &parse) {
		return &commandError{"command: " + parse.Text, shellHint, int(parse.Pos.Offset())}
	}
	var lang syntax.LangError
	if errors.As(err, &lang) {
		return refuse(lang.Pos, lang.Feature)
	}
	return &commandError{message: "command: " + err.Error(), hint: shellHint}
}

func refuse(at syntax.Pos, what string) error {
	return &commandError{"command has " + what + ", which would need a shell", shellHint, int(at.Offset())}
}

// onlyCall is the simple command that the statements are, if they are just that.
func onlyCall(statements []*syntax.Stmt) (*syntax.CallExpr, error) {
	s := statements[0]
	call, simple := s.Cmd.(*syntax.CallExpr)
	binary, _ := s.Cmd.(*syntax.BinaryCmd)
	switch {
	case len(statements) > 1:
		return nil, refuse(statements[1].Pos(), "a second command")
	case len(s.Comments) > 0:
		return nil, refuse(s.Comments[0].Pos(), "a comment")
	case len(s.Redirs) > 0:
		return nil, refuse(s.Redirs[0].Pos(), "a redirection")
	case s.Negated:
		return nil, refuse(s.Pos(), "a negation")
	case s.Semicolon.IsValid():
		return nil, refuse(s.Semicolon, "a separator")
	case binary != nil:
		return nil, refuse(binary.OpPos, binary.Op.String())
	case !simple:
		return nil, refuse(s.Pos(), "more than a program and its arguments")
	case len(call.Assigns) > 0:
		return nil, refuse(call.Assigns[0].Pos(), "an assignment")
	}
	return call, nil
}

// wordText is the word without its quoting.
func wordText(word *syntax.Word) (string, error) {
	var b strings.Builder
	dollar := false // the part before ended with a plain "$"
	for _, part := range word.Parts {
		if literal, ok := part.(*syntax.Lit); ok {
			b.WriteString(unescape(literal.Value, ""))
			dollar = endsInDollar(literal.Value)
			continue
		}
		if dollar {
			return "", refuse(part.Pos(), "a $ before a quote")
		}
		switch part := part.(type) {
		case *syntax.SglQuoted:
			b.WriteString(part.Value)
		case *syntax.DblQuoted:
			for _, inner := range part.Parts {
				literal, ok := inner.(*syntax.Lit)
				if !ok {
					return "", refuse(inner.Pos(), expansion(inner))
				}
				b.WriteString(unescape(literal.Value, "$`\"\\"))
			}
		default:
			return "", refuse(part.Pos(), expansion(part))
		}
	}
	return b.String(), nil
}

// endsInDollar reports whether an unquoted text ends with a $ that no backslash
// precedes. Shells disagree about a quote after it.
func endsInDollar(s string) bool {
	s = strings.ReplaceAll(s, `\\`, "")
	return strings.HasSuffix(s, "$") && !strings.HasSuffix(s, `\$`)
}

func expansion(part syntax.WordPart) string {
	switch part.(type) {
	case *syntax.ParamExp:
		return "a shell variable"
	case *syntax.CmdSubst:
		return "a command substitution"
	}
	return "an expansion"
}

// unescape takes backslashes away: before any character, or within double quotes
// only before one of special (XCU 2.2.1, 2.2.3). The parser has already joined
// continued lines.
func unescape(s, special string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && (special == "" || strings.IndexByte(special, s[i+1]) >= 0) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// readCommand splits first and reads templates second: what a variable stands
// for can never become another argument.
func (d *draft) readCommand(v value) {
	words, err := splitCommand(v.text)
	var wrong *commandError
	if errors.As(err, &wrong) {
		d.mistake(v.offset(wrong.offset), wrong.hint, "%s", wrong.message)
		return
	}
	for _, word := range words {
		if template, ok := d.parseTemplate(v.at, "command", word); ok {
			d.service.program = append(d.service.program, template)
		}
	}
}
