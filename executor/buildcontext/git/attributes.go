package git

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
)

// Line endings by .gitattributes, as git gives them to the files that it checks
// out (gitattributes, "text" and "eol"). Its other conversions, which are ident,
// working-tree-encoding and filters such as that of LFS, are not made here.

const (
	// maxAttributes is the largest .gitattributes, in bytes.
	maxAttributes = 1 << 20
	// maxRules bounds the rules of a directory and those above it.
	maxRules = 10000
	// maxSet bounds the attributes that one rule sets, with those of macros.
	maxSet = 1000
	// maxAttributeLine is the longest line; git passes over longer ones too.
	maxAttributeLine = 2048
)

// attributes are the rules of a directory and of those above it.
type attributes struct {
	above  *attributes
	dir    string // where the file is; empty: the top
	rules  []attributeRule
	macros map[string][]string // of the top
	count  int                 // of rules, with those above
}

// attributeRule sets attributes of the files that match.
type attributeRule struct {
	path *regexp.Regexp // relative to the file's directory
	base bool           // only the last name counts
	set  []string       // name, -name, !name, name=value
}

// within adds the rules that the directory at has, if it has any.
func (p *pack) within(above *attributes, at string, list []entry) (*attributes, error) {
	e, ok := lookup(list, ".gitattributes")
	if !ok || e.mode&modeType != modeFile {
		return above, nil
	}
	data, err := p.read(e.id, blobKind)
	if err != nil {
		return nil, err
	}
	a := parseAttributes(above, at, string(data[:min(len(data), maxAttributes)]))
	if len(data) > maxAttributes || a.count > maxRules {
		return nil, fmt.Errorf("%s is too large", path.Join(at, ".gitattributes"))
	}
	return a, nil
}

// parseAttributes reads a .gitattributes. What cannot be read is passed over, as
// git does with a warning.
func parseAttributes(above *attributes, dir, text string) *attributes {
	a := &attributes{above: above, dir: dir, macros: map[string][]string{"binary": {"-diff", "-merge", "-text"}}}
	if above != nil {
		a.macros, a.count = above.macros, above.count
	}
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		pattern, rest := splitPattern(strings.Trim(line, " \t\r\n"))
		set := strings.Fields(rest)
		if name, ok := strings.CutPrefix(pattern, "[attr]"); ok {
			if above == nil {
				a.macros[name] = set
			}
			continue
		}
		// Git takes no patterns that exclude.
		if pattern == "" || len(line) > maxAttributeLine || pattern[0] == '#' || pattern[0] == '!' || len(set) == 0 {
			continue
		}
		re, err := wildmatch(strings.TrimPrefix(pattern, "/"))
		if err != nil {
			continue
		}
		if a.count++; a.count > maxRules {
			break
		}
		a.rules = append(a.rules, attributeRule{path: re, base: !strings.Contains(pattern, "/"), set: set})
	}
	return a
}

// splitPattern takes the pattern off a line; it may be quoted.
func splitPattern(line string) (pattern, rest string) {
	if !strings.HasPrefix(line, `"`) {
		i := strings.IndexAny(line, " \t")
		if i < 0 {
			return line, ""
		}
		return line[:i], line[i:]
	}
	var b strings.Builder
	for i := 1; i < len(line); i++ {
		switch {
		case line[i] == '"':
			return b.String(), line[i+1:]
		case line[i] == '\\' && i+1 < len(line):
			i++
		}
		b.WriteByte(line[i])
	}
	return "", ""
}

// wildmatch makes a regular expression of git's pattern for paths.
func wildmatch(p string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString(`(?s)^`)
	for i := 0; i < len(p); i++ {
		rest := p[i:]
		atStart := i == 0 || p[i-1] == '/'
		switch {
		case atStart && strings.HasPrefix(rest, "**/"):
			b.WriteString(`(?:.*/)?`)
			i += 2
		case atStart && rest == "**":
			b.WriteString(`.*`)
			i++
		case p[i] == '*':
			b.WriteString(`[^/]*`)
		case p[i] == '?':
			b.WriteString(`[^/]`)
		case p[i] == '\\' && i+1 < len(p):
			i++
			b.WriteString(regexp.QuoteMeta(p[i : i+1]))
		case p[i] == '[':
			n := strings.IndexByte(rest[min(2, len(rest)):], ']')
			if n < 0 {
				b.WriteString(`\[`)
				continue
			}
			set := rest[1 : n+2]
			if set[0] == '!' {
				set = "^" + set[1:]
			}
			b.WriteString("[" + strings.ReplaceAll(set, "[", `\[`) + "]")
			i += n + 2
		default:
			b.WriteString(regexp.QuoteMeta(p[i : i+1]))
		}
	}
	return regexp.Compile(b.String() + "$")
}

// endings is how a file's lines end in the worktree.
type endings int

const (
	asStored endings = iota
	crlf
	crlfIfText // if the file looks like text, and has no CR yet
)

// endings finds out how the lines of the file at name end.
func (a *attributes) endings(name string) endings {
	values := map[string]string{}
	a.collect(name, values)
	text := values["text"]
	if text == "" {
		text = values["crlf"] // the name of long ago
	}
	switch {
	case text == "false" || values["eol"] != "crlf":
		return asStored
	case text == "auto":
		return crlfIfText
	}
	return crlf
}

// collect sets the values that a file's attributes have, those of deeper
// directories and of later lines last.
func (a *attributes) collect(name string, values map[string]string) {
	if a == nil {
		return
	}
	a.above.collect(name, values)
	rel := strings.TrimPrefix(strings.TrimPrefix(name, a.dir), "/")
	for _, r := range a.rules {
		at := rel
		if r.base {
			at = path.Base(rel)
		}
		if r.path.MatchString(at) {
			left := maxSet
			a.set(r.set, values, 0, &left)
		}
	}
}

func (a *attributes) set(list []string, values map[string]string, depth int, left *int) {
	for _, s := range list {
		if *left--; *left < 0 {
			return
		}
		name, value, given := strings.Cut(s, "=")
		switch {
		case given:
			values[name] = value
		case s[0] == '-':
			values[s[1:]] = "false"
		case s[0] == '!':
			delete(values, s[1:])
		default:
			values[s] = "true"
			if depth < 8 { // macros of macros
				a.set(a.macros[s], values, depth+1, left)
			}
		}
	}
}

// looksLikeText is git's guess (convert.c), for a file that CRs may be put into.
type looksLikeText struct {
	last                  byte
	cr, lf, nul           bool // a CR, an LF and a zero were seen
	printable, unprinting int
}

func (l *looksLikeText) Write(b []byte) (int, error) {
	for _, c := range b {
		l.last = c
		switch {
		case c == '\r':
			l.cr = true
		case c == '\n':
			l.lf = true
		case c == 0:
			l.nul = true
			l.unprinting++
		case c == '\b', c == '\t', c == '\x1b', c == '\f', c >= ' ' && c != 0x7f:
			l.printable++
		default:
			l.unprinting++
		}
	}
	return len(b), nil
}

func (l *looksLikeText) yes() bool {
	if l.last == 0x1a { // the end of a file, once
		l.unprinting--
	}
	return l.lf && !l.cr && !l.nul && l.printable>>7 >= l.unprinting
}

// crlfWriter puts a CR before each LF that has none.
type crlfWriter struct {
	w    io.Writer
	last byte
}

func (c *crlfWriter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := bytes.IndexByte(rest, '\n')
		line := rest
		if n >= 0 {
			line = rest[:n]
		}
		if _, err := c.w.Write(line); err != nil {
			return 0, err
		}
		if len(line) > 0 {
			c.last = line[len(line)-1]
		}
		rest = rest[len(line):]
		if n < 0 {
			break
		}
		end := "\r\n"
		if c.last == '\r' {
			end = "\n"
		}
		if _, err := io.WriteString(c.w, end); err != nil {
			return 0, err
		}
		c.last, rest = '\n', rest[1:]
	}
	return len(b), nil
}
