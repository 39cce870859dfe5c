package language

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// Section is a group of rows.
type Section struct {
	Number string // as in "2.4"
	Title  string
	Rows   []*Row
}

// Row is one thing that the language has.
type Row struct {
	Section string // the section's number
	Key     string // names the row within its section
	Text    string // what BuildKit does, for the reader
	// Refused is what is said instead where a row is refused on purpose.
	Refused string
	// Conformance are cases of the conformance suite, Scripts those of
	// e2e/scripts, and Tests Go tests as "package Test", that hold the row
	// beside the cases here.
	Conformance, Scripts, Tests []string
}

// Name is what a case calls the row: section and key.
func (r *Row) Name() string { return r.Section + " " + r.Key }

// ReadRows reads the list of rows. Its lines are:
//
//	= 2.4 title             a section
//	- key :: text           a row
//	  refused: words        of the row above; so are the following
//	  conformance: a/b c/d
//	  scripts: name name
//	  test: ./package Test
//
// Empty lines and those that begin with # are nothing.
func ReadRows(file string) ([]*Section, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var sections []*Section
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if sections, err = readLine(sections, line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		}
	}
	return sections, lines.Err()
}

func readLine(sections []*Section, line string) ([]*Section, error) {
	if head, ok := strings.CutPrefix(line, "= "); ok {
		number, title, _ := strings.Cut(head, " ")
		return append(sections, &Section{Number: number, Title: title}), nil
	}
	if len(sections) == 0 {
		return nil, fmt.Errorf("%q stands before the first section", line)
	}
	s := sections[len(sections)-1]
	if row, ok := strings.CutPrefix(line, "- "); ok {
		key, text, ok := strings.Cut(row, " :: ")
		if !ok {
			return nil, fmt.Errorf("a row without a text: %q", line)
		}
		s.Rows = append(s.Rows, &Row{Section: s.Number, Key: key, Text: text})
		return sections, nil
	}
	if len(s.Rows) == 0 {
		return nil, fmt.Errorf("%q stands before the first row", line)
	}
	return sections, s.Rows[len(s.Rows)-1].attribute(line)
}

func (r *Row) attribute(line string) error {
	name, value, _ := strings.Cut(line, ": ")
	switch name {
	case "refused":
		r.Refused = value
	case "conformance":
		r.Conformance = append(r.Conformance, strings.Fields(value)...)
	case "scripts":
		r.Scripts = append(r.Scripts, strings.Fields(value)...)
	case "test":
		r.Tests = append(r.Tests, value)
	default:
		return fmt.Errorf("unknown line %q", line)
	}
	return nil
}
