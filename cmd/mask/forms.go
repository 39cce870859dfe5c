package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"iter"
	"net/url"
	"regexp"
	"strings"
)

// minLine is the shortest line of several, and the shortest value in a line,
// that is masked, in bytes: a file of secrets has words of every day too.
const minLine = 8

// assigned finds the value in a line of .env, .npmrc, INI, YAML, JSON or netrc.
var assigned = regexp.MustCompile(`(?:=|:[ \t]|(?:^|\s)password\s)\s*(.+)$`)

// atoms are the parts of a value that must not be shown, each without a newline:
// all of it where it is one line, else its lines, and what is assigned in a line.
func atoms(value []byte) [][]byte {
	lines := bytes.FieldsFunc(value, func(c rune) bool { return c == '\n' || c == '\r' })
	if len(lines) == 1 {
		return append([][]byte{lines[0], bytes.TrimSpace(lines[0])}, assignment(lines[0])...)
	}
	var out [][]byte
	for _, line := range lines {
		line = bytes.TrimSpace(line)
		if len(line) < minLine || bytes.HasPrefix(line, []byte("-----")) { // RFC 7468: the armour of a key
			continue
		}
		out = append(append(out, line), assignment(line)...)
	}
	return out
}

func assignment(line []byte) [][]byte {
	found := assigned.FindSubmatch(line)
	if found == nil {
		return nil
	}
	value := bytes.Trim(found[1], " \t\"',;")
	if len(value) < minLine {
		return nil
	}
	return [][]byte{value}
}

// forms are the ways in which programs write a value: as it is, in base64, in
// hex, escaped for a URL, JSON, a shell or HTML.
func forms(value []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		text := string(value)
		all := [][]byte{
			value,
			[]byte(hex.EncodeToString(value)), []byte(strings.ToUpper(hex.EncodeToString(value))),
			[]byte(url.QueryEscape(text)), []byte(url.PathEscape(text)), []byte(lowerEscapes(url.QueryEscape(text))),
			inJSON(text, false), inJSON(text, true), []byte(html.EscapeString(text)),
			[]byte(strings.ReplaceAll(text, "'", `'\''`)), []byte(inShell(text)),
		}
		all = append(all, inBase64(value)...)
		for _, form := range all {
			if !yield(form) {
				return
			}
		}
	}
}

// inBase64 is a value in base64 at the three places where it may begin in a
// larger text, such as that of user:password, in both alphabets: what is the
// same whatever stands around it, and what it is at the end.
func inBase64(value []byte) [][]byte {
	var out [][]byte
	for before := range 3 {
		padded := append(make([]byte, before), value...)
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			text := []byte(enc.EncodeToString(padded))
			text = text[(before*8+5)/6:] // the first whole character
			out = append(out, text)
			if open := len(bytes.TrimRight(text, "=")); open < len(text) {
				// Its last character depends on what follows.
				out = append(out, text[:open], text[:open-1])
			}
		}
	}
	return out
}

func inJSON(text string, escapeHTML bool) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(escapeHTML)
	_ = enc.Encode(text) // a string and a buffer never fail
	return bytes.Trim(bytes.TrimSpace(out.Bytes()), `"`)
}

// inShell is text as printf %q of bash writes it.
func inShell(text string) string {
	var out strings.Builder
	for i := range len(text) {
		if strings.IndexByte(" \t!\"#$&'()*,;<>?[\\]^`{|}~", text[i]) >= 0 {
			out.WriteByte('\\')
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// lowerEscapes writes the escapes of a URL in small letters.
func lowerEscapes(text string) string {
	b := []byte(text)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}
