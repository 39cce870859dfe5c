package git

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// parseConfig reads git's form of configuration (git-config, "Syntax") and
// tells each variable: its section in lower case, the subsection as it is, its
// key in lower case.
func parseConfig(text string, set func(section, sub, key, value string)) error {
	section, sub := "", ""
	p := &configReader{rest: []byte(strings.ReplaceAll(text, "\r\n", "\n"))}
	for {
		p.skip(" \t\n")
		if len(p.rest) == 0 {
			return nil
		}
		switch p.rest[0] {
		case '#', ';':
			p.line()
		case '[':
			var err error
			if section, sub, err = p.section(); err != nil {
				return err
			}
		default:
			key := strings.ToLower(p.take("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"))
			if key == "" {
				return fmt.Errorf("malformed line %q", printable(p.line()))
			}
			value, err := p.value()
			if err != nil {
				return err
			}
			set(section, sub, key, value)
		}
	}
}

// configReader is what is left of a configuration.
type configReader struct{ rest []byte }

func (p *configReader) skip(set string) { p.rest = bytes.TrimLeft(p.rest, set) }

func (p *configReader) take(set string) string {
	n := len(p.rest) - len(bytes.TrimLeft(p.rest, set))
	s := string(p.rest[:n])
	p.rest = p.rest[n:]
	return s
}

func (p *configReader) line() []byte {
	line, rest, _ := bytes.Cut(p.rest, []byte("\n"))
	p.rest = rest
	return line
}

// section reads [name] or [name "sub"].
func (p *configReader) section() (name, sub string, err error) {
	head := p.rest
	malformed := func() (string, string, error) {
		line, _, _ := bytes.Cut(head, []byte("\n"))
		return "", "", fmt.Errorf("malformed section %q", printable(line))
	}
	p.rest = p.rest[1:]
	name = strings.ToLower(p.take("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."))
	p.skip(" \t")
	if name == "" || len(p.rest) == 0 {
		return malformed()
	}
	if p.rest[0] == '"' {
		var b strings.Builder
		for p.rest = p.rest[1:]; ; p.rest = p.rest[1:] {
			if len(p.rest) < 2 || p.rest[0] == '\n' {
				return malformed()
			}
			if p.rest[0] == '"' {
				break
			}
			if p.rest[0] == '\\' {
				p.rest = p.rest[1:]
			}
			b.WriteByte(p.rest[0])
		}
		sub, p.rest = b.String(), p.rest[1:]
	}
	if len(p.rest) == 0 || p.rest[0] != ']' {
		return malformed()
	}
	p.rest = p.rest[1:]
	return name, sub, nil
}

// value reads what follows a key, to the end of the line.
func (p *configReader) value() (string, error) {
	p.skip(" \t")
	if len(p.rest) == 0 || p.rest[0] != '=' {
		if line := p.line(); len(line) > 0 && line[0] != '#' && line[0] != ';' {
			return "", fmt.Errorf("malformed line %q", printable(line))
		}
		return "true", nil // a key alone
	}
	p.rest = p.rest[1:]
	p.skip(" \t")
	var b strings.Builder
	quoted, end := false, 0 // end: without blanks at the end
	for len(p.rest) > 0 {
		c := p.rest[0]
		p.rest = p.rest[1:]
		switch {
		case c == '\n':
			if quoted {
				return "", errors.New("a quote is not closed")
			}
			return b.String()[:end], nil
		case c == '"':
			quoted = !quoted
			end = b.Len()
			continue
		case (c == '#' || c == ';') && !quoted:
			p.line()
			return b.String()[:end], nil
		case c == '\\':
			if len(p.rest) == 0 {
				return "", errors.New("ends in a backslash")
			}
			c = p.rest[0]
			p.rest = p.rest[1:]
			if c == '\n' {
				continue
			}
			i := strings.IndexByte(`ntb"\`, c)
			if i < 0 {
				return "", fmt.Errorf("escape %q", c)
			}
			b.WriteByte("\n\t\b\"\\"[i])
			end = b.Len()
			continue
		}
		b.WriteByte(c)
		if quoted || c != ' ' && c != '\t' {
			end = b.Len()
		}
	}
	if quoted {
		return "", errors.New("a quote is not closed")
	}
	return b.String()[:end], nil
}
