package plan

import (
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// ignored remarks on a source that the ignore file leaves out. Files with
// exceptions are not looked at: something below the source may be let in again.
func (c *checks) ignored(verb, src string, at []parser.Range, lint *linter.Linter) {
	if c.ignore == nil || c.ignore.Exclusions() {
		return
	}
	src = path.Clean(src)
	if (src == "." || src == "/") && !c.ignoresRoot() {
		return
	}
	if hit, err := c.ignore.MatchesOrParentMatches(src); err == nil && hit {
		lint.Run(&linter.RuleCopyIgnoredFile, at, linter.RuleCopyIgnoredFile.Format(verb, src))
	}
}

// ignoresRoot says whether the ignore file leaves everything out.
func (c *checks) ignoresRoot() bool {
	for _, p := range c.ignore.Patterns() {
		switch p.String() {
		case "*", "**", "**/*":
			return true
		}
	}
	return false
}

// word is the expander for the words of one instruction; it remarks on
// variables that are not defined.
func (m *maker) word(lex *shell.Lex, d *draft, c command) instructions.SingleWordExpander {
	lint := m.checks.at(c)
	return func(word string) (string, error) {
		res, err := m.expand(lex, word, d.env)
		m.checks.undefined(d, res.Unmatched, c.Location(), lint)
		return res.Result, err
	}
}

// knownSyntax is the version of the Dockerfile syntax that this package
// evaluates: docker/dockerfile:1.<knownSyntax>.
const knownSyntax = 28

var stableSyntax = regexp.MustCompile(`^(?:docker\.io/)?docker/dockerfile(?::1(?:\.(\d+)(?:\.\d+)?)?(-labs)?)?(?:@.*)?$`)

// syntaxArg is the build argument that replaces the syntax directive.
const syntaxArg = "BUILDKIT_SYNTAX"

// syntax remarks on a syntax directive, or a build argument in its place, that
// asks for another language. Frontend images are never fetched.
func (c *checks) syntax(f *dockerfile.File, args map[string]string) {
	syntax, w := f.Syntax, Warning{Line: f.SyntaxLine}
	if given, ok := args[syntaxArg]; ok {
		syntax, w.Line = strings.TrimSpace(given), 0
	}
	if syntax == "" {
		return
	}
	name, _, _ := strings.Cut(syntax, " ")
	match := stableSyntax.FindStringSubmatch(name)
	minor := 0
	if match != nil && match[1] != "" {
		minor, _ = strconv.Atoi(match[1])
	}
	switch {
	case match == nil:
		w.Text = "syntax " + name + " is not fetched: the file is built as docker/dockerfile:1." + strconv.Itoa(knownSyntax)
	case minor > knownSyntax:
		w.Text = "syntax " + name + " is newer than docker/dockerfile:1." + strconv.Itoa(knownSyntax) + ", the newest that is known"
	default:
		return
	}
	c.warn(w)
}
