package progress

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// screen is as much of a terminal as the display uses. It fails the test where
// a row would wrap or something unknown arrives.
type screen struct {
	t             *testing.T
	columns, rows int
	lines         []string // all lines ever, the last rows of them are visible
	y             int
	typed         bool // a key was echoed: the cursor is not at the begin of its row
}

func (s *screen) Write(p []byte) (int, error) {
	text := string(p)
	for text != "" {
		if s.y >= len(s.lines) {
			s.lines = append(s.lines, "")
		}
		switch {
		case text[0] == '\n':
			s.y, s.typed, text = s.y+1, false, text[1:]
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexAny(text, "AGJKm")
			if end < 0 {
				s.t.Fatalf("sequence %q", text)
			}
			s.control(text[2:end], text[end])
			text = text[end+1:]
		default:
			if s.typed {
				s.t.Errorf("%q is written behind what was typed", text)
			}
			n := strings.IndexAny(text, "\n\x1b")
			if n < 0 {
				n = len(text)
			}
			s.lines[s.y] += text[:n]
			text = text[n:]
			if w := columnsOf(s.lines[s.y]); w >= s.columns && strings.Contains(s.lines[s.y], "=>") {
				s.t.Errorf("a row of %d columns on a terminal of %d: %q", w, s.columns, s.lines[s.y])
			}
		}
	}
	return len(p), nil
}

func (s *screen) control(parameter string, final byte) {
	switch final {
	case 'A':
		var n int
		fmt.Sscan(parameter, &n)
		if n >= s.rows || s.y-n < 0 {
			s.t.Fatalf("%d rows up from row %d on a terminal of %d", n, s.y, s.rows)
		}
		s.y -= n
	case 'G':
		s.typed = false
	case 'J':
		s.lines = s.lines[:s.y]
	case 'K':
		s.lines[s.y] = ""
	}
}

func (s *screen) String() string { return strings.Join(s.lines, "\n") + "\n" }

func newScreen(t *testing.T, columns, rows int) (*screen, *terminal) {
	s := &screen{t: t, columns: columns, rows: rows}
	opt := Options{Size: func() (int, int) { return columns, rows }, Now: at0}
	return s, newTerminal(s, painter{}, opt)
}

func TestTerminal(t *testing.T) {
	s, v := newScreen(t, 60, 24)
	var out strings.Builder
	for _, e := range story() {
		v.event(e)
		v.draw(e.Time)
		if e.Kind == request.EventLog || e.Kind == request.EventProgress {
			fmt.Fprintf(&out, "---- %s\n%s", e.Kind, s)
		}
	}
	v.close()
	fmt.Fprintf(&out, "---- the end\n%s", s)
	checkSafe(t, "tty", out.String())
	golden(t, "terminal.txt", out.String())
}

// TestTerminalSmall holds that no terminal is too small: the display never
// takes more rows than there are, and no row wraps.
func TestTerminalSmall(t *testing.T) {
	for _, rows := range []int{1, 2, 3, 5, 24} {
		for _, columns := range []int{1, 4, 10, 20, 200} {
			s, v := newScreen(t, columns, rows)
			for n := 1; n <= 30; n++ {
				v.event(request.Event{Time: at(1), Kind: request.EventStart, Step: n, Name: strings.Repeat("name ", n)})
				v.event(request.Event{Time: at(1), Kind: request.EventLog, Step: n, Data: []byte("a long line of 世界 output\n\n\tb\n")})
				v.draw(at(2))
				if v.drawn >= rows {
					t.Errorf("%d rows are drawn on a terminal of %d", v.drawn, rows)
				}
			}
			v.close()
			if rows > 1 && !strings.Contains(s.String(), "=>") && columns > 10 {
				t.Errorf("nothing is left on a terminal of %d x %d", columns, rows)
			}
		}
	}
}

// TestTerminalTyped holds that a key, such as ^C, does not shift the display.
func TestTerminalTyped(t *testing.T) {
	s, v := newScreen(t, 40, 10)
	v.event(request.Event{Time: at(1), Kind: request.EventStart, Step: 1, Name: "RUN sleep 100"})
	v.draw(at(2))
	s.typed = true
	v.draw(at(3))
	s.typed = true
	v.event(request.Event{Time: at(4), Kind: request.EventDone, Step: 1, Error: "canceled"})
	v.close()
	if s.typed {
		t.Error("nothing was drawn")
	}
}

func TestTerminalKeepsOrder(t *testing.T) {
	s, v := newScreen(t, 80, 10)
	for n := 1; n <= 50; n++ {
		v.event(request.Event{Time: at(1), Kind: request.EventStart, Step: n, Name: fmt.Sprintf("step-%02d", n)})
		v.draw(at(2))
		v.event(request.Event{Time: at(3), Kind: request.EventDone, Step: n})
		v.draw(at(3))
	}
	v.close()
	last := -1
	for n := 1; n <= 50; n++ {
		name := fmt.Sprintf("step-%02d", n)
		if c := strings.Count(s.String(), name); c != 1 {
			t.Errorf("%s stands there %d times", name, c)
		}
		if i := strings.Index(s.String(), name); i <= last {
			t.Errorf("%s stands before an earlier one", name)
		} else {
			last = i
		}
	}
}
