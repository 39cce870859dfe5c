package progress

import (
	"strings"
	"unicode"
)

// width is the number of columns that a character takes on a terminal.
func width(r rune) int {
	switch {
	case r < ' ':
		return 0
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case wide(r):
		return 2
	}
	return 1
}

// wide tells the blocks whose characters take two columns (Unicode's East Asian
// Width W and F, by block, and the emoji that terminals draw wide).
func wide(r rune) bool {
	switch {
	case r >= 0x1100 && r <= 0x115f, // Hangul Jamo
		r >= 0x231a && r <= 0x231b, r >= 0x23e9 && r <= 0x23ec,
		r >= 0x2614 && r <= 0x2615, r == 0x26a1, r == 0x2705, r == 0x274c,
		r >= 0x2e80 && r <= 0x303e, // CJK radicals, punctuation
		r >= 0x3041 && r <= 0xa4cf, // kana to Yi
		r >= 0xa960 && r <= 0xa97c,
		r >= 0xac00 && r <= 0xd7a3, // Hangul
		r >= 0xf900 && r <= 0xfaff,
		r >= 0xfe30 && r <= 0xfe6f,
		r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6,
		r >= 0x1f300 && r <= 0x1f64f, r >= 0x1f680 && r <= 0x1f6ff, // emoji
		r >= 0x1f900 && r <= 0x1f9ff, r >= 0x1fa70 && r <= 0x1faff,
		r >= 0x20000 && r <= 0x3fffd:
		return true
	}
	return false
}

// fit makes s take at most columns columns: tabs become spaces, and what is too
// long ends in "...".
func fit(s string, columns int) string {
	s = strings.ReplaceAll(s, "\t", "    ")
	const dots = "..."
	total, room := 0, 0
	for i, r := range s {
		if total+width(r) <= columns-len(dots) {
			room = i + len(string(r))
		}
		if total += width(r); total > columns {
			if columns <= len(dots) {
				return dots[:max(columns, 0)]
			}
			return s[:room] + dots
		}
	}
	return s
}

// columnsOf is the number of columns that s takes; it has no tabs.
func columnsOf(s string) int {
	n := 0
	for _, r := range s {
		n += width(r)
	}
	return n
}
