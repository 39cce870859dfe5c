package progress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf16"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/mask"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Answer writes the answer to --call, as harmless as everything that the
// sandbox says: see Clean, cleanJSON and mask.
func Answer(w io.Writer, c request.Called, values *mask.Values) error {
	text := values.Text(Clean(values.Text(string(c.Text))))
	if len(c.JSON) > 0 {
		var err error
		if text, err = cleanJSON(c.JSON, values); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, text)
	return err
}

// cleanJSON writes out what must not be seen raw, as escapes of JSON, so that
// the values stay what they are, but for what is masked.
func cleanJSON(data []byte, values *mask.Values) (string, error) {
	if !json.Valid(data) {
		return "", errors.New("the executor's answer is not JSON")
	}
	var out strings.Builder
	last := rune(0)
	for _, r := range maskStrings(string(data), values) {
		switch {
		case r == '#' && last == '#', r == 0x7f, deceiving(r) && r <= 0xffff:
			fmt.Fprintf(&out, `\u%04x`, r)
		case deceiving(r):
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		case r == '\r': // a blank, as valid JSON has it in no string
		default:
			out.WriteRune(r)
		}
		last = r
	}
	return out.String(), nil
}

// aString is a string of JSON (RFC 8259, section 7).
var aString = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// maskStrings masks the strings of valid JSON, each by itself, so that it stays
// valid.
func maskStrings(data string, values *mask.Values) string {
	return aString.ReplaceAllStringFunc(data, func(quoted string) string {
		var text string
		if json.Unmarshal([]byte(quoted), &text) != nil {
			return quoted
		}
		masked := values.Text(text)
		if masked == text {
			return quoted
		}
		b, err := json.Marshal(masked)
		if err != nil {
			return `"` + mask.Mask + `"`
		}
		return string(b)
	})
}
