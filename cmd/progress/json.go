package progress

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// lines shows events as they are, one JSON object in a line.
type lines struct{ w io.Writer }

func (l *lines) event(e request.Event) {
	if line, err := Line(e); err == nil {
		l.w.Write(line)
	}
}

func (l *lines) tick(time.Time) {}
func (l *lines) close()         {}

// Line is v as one line of JSON, with everything escaped that Clean would
// break or write out: the value is the same, but no viewer of the log acts on it.
func Line(v any) ([]byte, error) {
	var in, out bytes.Buffer
	enc := json.NewEncoder(&in)
	enc.SetEscapeHTML(false) // nothing of HTML here: "a && b" stays readable
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	raw := bytes.TrimSuffix(in.Bytes(), []byte("\n"))
	out.Grow(len(raw) + 1)
	for i := 0; i < len(raw); {
		r, n := utf8.DecodeRune(raw[i:])
		switch {
		case r == 0x7f || deceiving(r):
			for _, u := range utf16Units(r) {
				fmt.Fprintf(&out, `\u%04x`, u)
			}
		case r == '#' && i+1 < len(raw) && raw[i+1] == '#':
			out.WriteString(`\u0023`) // only strings have it: ##vso[...]
		default:
			out.Write(raw[i : i+n])
		}
		i += n
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// utf16Units is a character as JSON's \u escapes have it.
func utf16Units(r rune) []rune {
	if r < 0x10000 {
		return []rune{r}
	}
	r -= 0x10000
	return []rune{0xd800 + r>>10, 0xdc00 + r&0x3ff}
}
