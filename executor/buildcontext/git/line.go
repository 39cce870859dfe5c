package git

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxLine is the longest pkt-line, with its length (gitprotocol-common).
const maxLine = 65520

// headSize is the size of a pkt-line's length. Lines of nothing else count, too.
const headSize = 4

// mark is what a pkt-line is, if it has no data.
type mark int

const (
	dataLine mark = iota
	flushLine
	delimLine
	endLine
)

// remoteError is what a server says when it refuses.
type remoteError struct{ text string }

func (e *remoteError) Error() string { return "remote error: " + e.text }

// lines reads pkt-lines.
type lines struct {
	r   *bufio.Reader
	buf [maxLine]byte
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, maxLine)} }

// next returns the next line, valid until the one after it. An "ERR" line is an
// error.
func (l *lines) next() (data []byte, m mark, err error) {
	head := l.buf[:headSize]
	if _, err := io.ReadFull(l.r, head); err != nil {
		return nil, 0, unexpectedEnd(err)
	}
	n, err := strconv.ParseUint(string(head), 16, 16)
	if err != nil {
		return nil, 0, errors.New("the server does not speak git's protocol")
	}
	switch {
	case n == 3 || n > maxLine:
		return nil, 0, fmt.Errorf("line of %d bytes", n)
	case n < 3:
		return nil, []mark{flushLine, delimLine, endLine}[n], nil
	}
	data = l.buf[:n-headSize]
	if _, err := io.ReadFull(l.r, data); err != nil {
		return nil, 0, unexpectedEnd(err)
	}
	if text, ok := bytes.CutPrefix(data, []byte("ERR ")); ok {
		return nil, 0, &remoteError{printable(text)}
	}
	return data, dataLine, nil
}

// text returns the next line without its line feed.
func (l *lines) text() (string, mark, error) {
	data, m, err := l.next()
	return strings.TrimSuffix(string(data), "\n"), m, err
}

func unexpectedEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the server hung up")
	}
	return err
}

// printable makes a server's words fit for one line of an error.
func printable(text []byte) string {
	const most = 500
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(text[:min(len(text), most)]), "?"))
	return strings.TrimSpace(s)
}

// message builds a request.
type message struct{ bytes.Buffer }

func (m *message) line(form string, args ...any) {
	s := fmt.Sprintf(form, args...)
	fmt.Fprintf(m, "%04x%s\n", len(s)+5, s)
}

func (m *message) flush() { m.WriteString("0000") }
func (m *message) delim() { m.WriteString("0001") }

// band takes the pack out of the lines that it comes in, beside the server's
// progress (gitprotocol-pack, side-band-64k).
type band struct {
	l     *lines
	left  []byte
	done  bool
	aside int // bytes of lines that brought nothing of the pack
}

func (b *band) Read(p []byte) (int, error) {
	for len(b.left) == 0 {
		if b.done {
			return 0, io.EOF
		}
		data, m, err := b.l.next()
		if err != nil {
			return 0, err
		}
		switch {
		case m != dataLine:
			b.done = true
		case len(data) > 1 && data[0] == 1:
			b.left = data[1:]
		case len(data) > 0 && data[0] == 3:
			return 0, &remoteError{printable(data[1:])}
		default:
			if b.aside += headSize + len(data); b.aside > maxAnswer {
				return 0, errTooMuch
			}
		}
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}
