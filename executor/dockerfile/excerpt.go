package dockerfile

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
)

// excerptWidth is how much of a line an excerpt shows, in characters.
const excerptWidth = 200

// excerptLines bounds an excerpt: an instruction with a long here-document
// fills no screen.
const excerptLines = 40

// Excerpt shows the lines line to endLine (counted from 1) of a Dockerfile and
// some around them, in BuildKit's form: numbered, the lines in question marked
// with >>>. Control characters are replaced, since the text goes to a terminal.
// It is empty if line is not in the file.
func Excerpt(data []byte, line, endLine int) string {
	lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	if line < 1 || line > len(lines) {
		return ""
	}
	endLine = min(max(line, endLine), len(lines))
	first, last := around(line, endLine, len(lines))
	var b strings.Builder
	b.WriteString(rule)
	for i := first; i <= last; i++ {
		if i-first == excerptLines {
			fmt.Fprintf(&b, " ... | (%d lines more)\n", last-i+1)
			break
		}
		mark := "   "
		if i >= line && i <= endLine {
			mark = ">>>"
		}
		fmt.Fprintf(&b, " %3d | %s %s\n", i, mark, printable(lines[i-1]))
	}
	b.WriteString(rule)
	return b.String()
}

const rule = "--------------------\n"

// around widens a range of lines as BuildKit does: a single line gets about
// four lines of context, a longer range about two, shared by both sides.
func around(start, end, total int) (first, last int) {
	pad := 2
	if start == end {
		pad = 4
	}
	for p := 0; p < pad; p++ {
		if start > 1 {
			start--
			p++
		}
		if end < total {
			end++
			p++
		}
	}
	return start, end
}

// printable makes one line fit for a terminal.
func printable(line []byte) string {
	s := strings.TrimSuffix(string(line), "\r")
	cut := false
	if r := []rune(s); len(r) > excerptWidth {
		s, cut = string(r[:excerptWidth]), true
	}
	s = strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsGraphic(r) {
			return r
		}
		return unicode.ReplacementChar
	}, strings.ToValidUTF8(s, string(unicode.ReplacementChar)))
	if cut {
		s += "..."
	}
	return s
}
