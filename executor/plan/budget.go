package plan

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// What a Dockerfile can make grow without limit is counted against these.
// They are far above any real Dockerfile and far below what hurts.
const (
	// maxBytes is the text of a whole plan: expanded words, environments,
	// history, names.
	maxBytes = 32 << 20
	// maxWork is what substitutions by pattern may cost altogether, in bytes of
	// text times bytes of pattern or replacement; maxWordWork in one word.
	maxWork     = 1 << 30
	maxWordWork = 1 << 28
	// maxValue is the longest value of a variable. Linux passes no longer
	// string to a program (MAX_ARG_STRLEN).
	maxValue = 128<<10 - 1
	// maxDepth is how deeply ${a:-${b:-...}} may be nested.
	maxDepth = 500
)

// budget is what is left for a plan; its zero value is untouched.
type budget struct {
	bytes, work int
}

// take counts n bytes of text.
func (b *budget) take(n int) error {
	b.bytes += n
	if b.bytes > maxBytes {
		return fmt.Errorf("the Dockerfile expands to more than %d MiB", maxBytes>>20)
	}
	return nil
}

// gauge looks a word's variables up for the shell lexer, and counts. The
// lexer's interface has no room for an error: once over a limit every variable
// is empty and over is set.
type gauge struct {
	*scope
	budget *budget
	shape  shape
	work   int // spent in this word
	length int // of the longest value so far
	over   bool
}

// Get returns a variable.
func (g *gauge) Get(name string) (string, bool) {
	v, ok := g.scope.Get(name)
	g.length = max(g.length, len(v))
	if g.shape.span > 0 {
		work := len(v) * (g.shape.span + g.shape.inner*g.length)
		g.work += work
		g.budget.work += work
	}
	// Twice: the lexer goes over a value's characters more than once, and slowly.
	if g.budget.take(2*len(v)) != nil || g.work > maxWordWork || g.budget.work > maxWork {
		g.over = true
	}
	if g.over {
		return "", ok
	}
	return v, ok
}

// shape is what about a word decides how much it can cost to expand.
type shape struct {
	depth int // of nested ${
	span  int // length of the longest ${name} with a pattern in it
	inner int // number of $ within such a one
}

// measure reads the shape off a word. It overestimates where quotes or escapes
// take the meaning from a character.
func measure(word string) shape {
	var s shape
	var open []int
	end := func(i int) {
		begin := open[len(open)-1]
		open = open[:len(open)-1]
		if text := word[begin:i]; hasPattern(text) {
			s.span = max(s.span, len(text))
			s.inner = max(s.inner, strings.Count(text, "$"))
		}
	}
	for i := 0; i < len(word) && s.depth <= maxDepth; i++ {
		switch {
		case word[i] == '$' && strings.HasPrefix(word[i+1:], "{"):
			open = append(open, i+2)
			s.depth = max(s.depth, len(open))
		case word[i] == '}' && len(open) > 0:
			end(i)
		}
	}
	for len(open) > 0 && s.depth <= maxDepth {
		end(len(word))
	}
	return s
}

// hasPattern says whether the inside of ${} may hold an operator that takes a
// pattern.
func hasPattern(text string) bool { return strings.ContainsAny(text, "#%/") }

// expand expands a word within the limits.
func (m *maker) expand(lex *shell.Lex, word string, env *scope) (shell.ProcessWordResult, error) {
	g, err := m.gauge(word, env)
	if err != nil {
		return shell.ProcessWordResult{}, err
	}
	res, err := lex.ProcessWordWithMatches(word, g)
	if g.over {
		return shell.ProcessWordResult{}, fmt.Errorf("the variables in %q expand to too much text", abbreviate(word))
	}
	if err == nil {
		err = m.budget.take(len(res.Result))
	}
	return res, err
}

// expandWords expands a word and splits the result at blanks.
func (m *maker) expandWords(word string, env *scope) ([]string, error) {
	g, err := m.gauge(word, env)
	if err != nil {
		return nil, err
	}
	words, err := m.lex.ProcessWords(word, g)
	if g.over {
		return nil, fmt.Errorf("the variables in %q expand to too much text", abbreviate(word))
	}
	return words, err
}

func (m *maker) gauge(word string, env *scope) (*gauge, error) {
	g := &gauge{scope: env, budget: &m.budget, shape: measure(word)}
	if g.shape.depth > maxDepth {
		return nil, fmt.Errorf("the substitutions in %q are nested more than %d deep", abbreviate(word), maxDepth)
	}
	return g, nil
}

// abbreviate shortens a text for a message.
func abbreviate(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
