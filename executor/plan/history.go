package plan

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// historyComment is what BuildKit's frontend leaves with every entry; tools
// look for it.
const historyComment = "buildkit.dockerfile.v0"

// record adds a history entry.
func (m *maker) record(d *draft, text string, layer bool) error {
	d.Image.History = append(d.Image.History, History{
		Created:    m.created,
		CreatedBy:  text,
		Comment:    historyComment,
		EmptyLayer: !layer,
	})
	return m.budget.take(len(text) + 64)
}

// login is what stands before the @ of a web server's address.
var login = regexp.MustCompile(`(?i)\b(https?://)[^/?#\s]*@`)

// withoutLogins hides users and passwords in the URLs of an ADD, which build
// arguments may have brought there: whoever has the image or the log has the text
// too (CVE-2023-26054). BuildKit leaves them in.
func withoutLogins(text string) string { return login.ReplaceAllString(text, "${1}xxxxx:xxxxx@") }

// runText is a RUN as history has it: the arguments in scope with their number,
// then the command. An argument has the value that the command sees, which may
// be that of an ENV of the same name.
func (m *maker) runText(d *draft, argv []string) (string, error) {
	var parts []string
	at := map[string]int{}
	size := 0
	for _, a := range d.declared {
		v, ok := d.env.Get(a.name)
		if !ok {
			v = a.value
		}
		text := a.name + "=" + v
		if i, twice := at[a.name]; twice {
			parts[i] = text
		} else {
			at[a.name] = len(parts)
			parts = append(parts, text)
		}
		size += len(text)
	}
	if err := m.budget.take(size); err != nil {
		return "", err
	}
	if len(parts) > 0 {
		parts = append([]string{fmt.Sprintf("|%d", len(parts))}, parts...)
	}
	return "RUN " + strings.Join(append(parts, argv...), " ") + " # buildkit", nil
}

// shown is an instruction's text as people see it: variables expanded and the
// instruction in upper case.
func (m *maker) shown(d *draft, text string) string {
	return m.shownAs(m.lex, text, d.env)
}

func (m *maker) shownAs(lex *shell.Lex, text string, env *scope) string {
	if res, err := m.expand(lex, text, env); err == nil {
		text = res.Result
	}
	name, rest, ok := strings.Cut(text, " ")
	if !ok {
		return strings.ToUpper(text)
	}
	return strings.ToUpper(name) + " " + rest
}

// rawLex expands variables and leaves everything else as it is: for the text of
// here-documents.
func rawLex() *shell.Lex {
	lex := shell.NewLex('\\')
	lex.SkipProcessQuotes = true
	return lex
}

// commandLex is for showing commands: quotes and escapes stay, and so do
// variables that are not set, which belong to the shell.
func (m *maker) commandLex() *shell.Lex {
	lex := shell.NewLex(m.file.Escape)
	lex.RawQuotes, lex.RawEscapes, lex.SkipUnsetEnv = true, true, true
	return lex
}
