package progress

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxSequence is the longest terminal sequence that is recognised, in bytes.
const maxSequence = 1024

// Clean makes text from the sandbox fit to be shown on a terminal or in the
// log of a CI system. Colours and other well-formed terminal sequences are
// dropped; every other control byte, byte of broken UTF-8, and character that
// changes the direction of the text is written out (^G, \x9b, \u202e). A
// carriage return that is no part of a line's end begins a new line, so that
// nothing can be overwritten. Words that CI systems take as commands
// (::set-output, ##vso[...) are broken with a backslash.
func Clean(text string) string {
	lines := strings.Split(text, "\n")
	out := make([]string, 0, len(lines))
	for i, line := range lines {
		parts := cleanLine(line)
		if len(parts) == 0 && (i < len(lines)-1 || text == "") {
			parts = []string{""}
		}
		out = append(out, parts...)
	}
	cleaned := strings.Join(out, "\n")
	if strings.HasSuffix(text, "\n") {
		cleaned += "\n"
	}
	return cleaned
}

// cleanLine cleans one line, without its newline. Carriage returns divide it;
// empty parts are left out.
func cleanLine(line string) []string {
	var parts []string
	for part := range strings.SplitSeq(line, "\r") {
		if part = defuse(visible(part)); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// oneLine cleans text for a place that has a single line, at most limit bytes.
func oneLine(text string, limit int) string {
	text = strings.Join(strings.Fields(cut(text, limit)), " ")
	return strings.Join(cleanLine(text), " ")
}

// cut shortens s to at most n bytes, at the start of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// visible drops terminal sequences and writes out what must not be seen raw.
func visible(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < 0x7f || c == '\t' {
			out.WriteByte(c)
			i++
			continue
		}
		if c == 0x1b {
			if n := sequence(s[i:]); n > 0 {
				i += n
				continue
			}
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case c < 0x80: // ^@ to ^_, ^?
			out.WriteByte('^')
			out.WriteByte(c ^ 0x40)
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&out, `\x%02x`, c)
		case deceiving(r):
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			out.WriteString(s[i : i+n])
		}
		i += n
	}
	return out.String()
}

// deceiving tells the characters that no honest output needs: C1 controls,
// line separators, marks of direction, and what is not to be seen. The joiners
// stay (U+200C, U+200D): Persian and emoji need them.
func deceiving(r rune) bool {
	switch {
	case r >= 0x80 && r <= 0x9f, r == 0xad,
		r == 0x061c, r == 0x180e, r == 0x200b, r == 0x200e, r == 0x200f,
		r >= 0x2028 && r <= 0x202e,
		r >= 0x2060 && r <= 0x206f,
		r == 0xfeff, r >= 0xfff9 && r <= 0xfffb,
		r >= 0xe0000 && r <= 0xe0fff:
		return true
	}
	return false
}

// sequence is the length of the terminal sequence at the start of s, which
// begins with ESC; 0 if it is none that is complete (ECMA-48, section 5).
func sequence(s string) int {
	if len(s) < 2 {
		return 0
	}
	if len(s) > maxSequence {
		s = s[:maxSequence]
	}
	switch c := s[1]; {
	case c == '[': // control sequence: parameters, intermediates, one final byte
		for i := 2; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return i + 1
			}
			if s[i] < 0x20 || s[i] > 0x3f {
				return 0
			}
		}
		return 0
	case c == ']', c == 'P', c == 'X', c == '^', c == '_': // strings, to BEL or ST
		for i := 2; i < len(s); i++ {
			if s[i] == 0x07 {
				return i + 1
			}
			if s[i] == 0x1b && i+1 < len(s) && s[i+1] == '\\' {
				return i + 2
			}
		}
		return 0
	case c >= 0x20 && c <= 0x2f: // escape sequence with intermediates
		for i := 2; i < len(s); i++ {
			if s[i] >= 0x30 && s[i] <= 0x7e {
				return i + 1
			}
			if s[i] < 0x20 || s[i] > 0x2f {
				return 0
			}
		}
		return 0
	case c >= 0x30 && c <= 0x7e:
		return 2
	}
	return 0
}

// further begins the lines of a text behind its first with two blanks, so that
// none of them can pass for a line of ours.
func further(text string) string { return strings.ReplaceAll(text, "\n", "\n  ") }

// defuse breaks what CI systems take as a command in a log line: "::name" at
// the start of a line, "##[name", "##vso[", "##teamcity[" anywhere.
func defuse(s string) string {
	if trimmed := strings.TrimLeftFunc(s, unicode.IsSpace); strings.HasPrefix(trimmed, "::") {
		s = s[:len(s)-len(trimmed)] + `\` + trimmed
	}
	if !strings.Contains(s, "##") {
		return s
	}
	var out strings.Builder
	for i := range len(s) {
		out.WriteByte(s[i])
		if strings.HasPrefix(s[i:], "##") && command(s[i+2:]) {
			out.WriteByte('\\')
		}
	}
	return out.String()
}

// command tells whether s begins with a word of small letters and "[".
func command(s string) bool {
	word := strings.TrimLeft(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	return strings.HasPrefix(word, "[")
}
