package progress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Answer writes the answer to --call, as harmless as everything that the
// sandbox says: see Clean and cleanJSON.
func Answer(w io.Writer, c request.Called) error {
	text := Clean(string(c.Text))
	if len(c.JSON) > 0 {
		var err error
		if text, err = cleanJSON(c.JSON); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, text)
	return err
}

// cleanJSON writes out what must not be seen raw, as escapes of JSON, so that
// the values stay what they are.
func cleanJSON(data []byte) (string, error) {
	if !json.Valid(data) {
		return "", errors.New("the executor's answer is not JSON")
	}
	var out strings.Builder
	last := rune(0)
	for _, r := range string(data) {
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
