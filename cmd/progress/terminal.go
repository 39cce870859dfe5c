package progress

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// tailLines is how many of the last lines of a running step are shown.
const tailLines = 6

// terminal keeps the running steps with the end of their output at the bottom
// of the screen. What has ended is written once, above, and scrolls away.
type terminal struct {
	w       io.Writer
	paint   painter
	size    func() (int, int)
	began   time.Time
	steps   steps
	planned int
	done    int
	above   strings.Builder // lines to write above the display
	drawn   int             // rows of the display on the screen
}

func newTerminal(w io.Writer, paint painter, opt Options) *terminal {
	return &terminal{w: w, paint: paint, size: opt.Size, began: opt.Now()}
}

func (t *terminal) event(e request.Event) {
	columns, _ := t.size()
	switch e.Kind {
	case request.EventPlan:
		t.planned = int(min(max(e.Total, 0), 1<<20))
	case request.EventStart:
		t.steps.start(e)
	case request.EventLog:
		st := t.steps.start(e)
		st.keep(st.feed(e.Data))
	case request.EventProgress:
		st := t.steps.start(e)
		st.bytes, st.total = e.Bytes, e.Total
	case request.EventDone:
		t.finish(t.steps.start(e), e, columns)
	case request.EventWarning:
		t.remark(t.paint.warning("WARNING: ") + Clean(cut(e.Text, maxText)) + line(e.Line))
	case request.EventInfo:
		t.remark(Clean(cut(e.Text, maxText)))
	case request.EventDebug:
		t.remark(t.paint.faint("debug: ") + Clean(cut(e.Text, maxText)))
	}
}

func (t *terminal) remark(text string) {
	t.above.WriteString(further(strings.TrimRight(text, "\n")) + "\n")
}

// keep remembers the last lines of a step's output.
func (st *step) keep(lines []string) {
	for _, l := range lines {
		if strings.TrimSpace(l) != "" {
			st.tail = append(st.tail, l)
		}
	}
	if extra := len(st.tail) - tailLines; extra > 0 {
		st.tail = slices.Clone(st.tail[extra:])
	}
}

// finish writes a step's last line above the display.
func (t *terminal) finish(st *step, e request.Event, columns int) {
	if e.Cached {
		st.name = "CACHED " + st.name
	}
	if e.Error != "" {
		t.above.WriteString(t.paint.bad(row(" => ERROR "+st.name, st.so(e.Time), columns)) + "\n")
	} else {
		t.above.WriteString(t.paint.name(row(" => "+st.name, st.so(e.Time), columns)) + "\n")
		t.done++
	}
	t.steps.remove(st.number)
}

// so is how far a step is: what it has transferred, and its time.
func (st *step) so(now time.Time) string {
	took := seconds(now.Sub(st.start))
	if m := st.moved(); m != "" {
		return m + "  " + took
	}
	return took
}

// last are the last lines of a step's output, with the one that has no newline
// yet: it may be a progress bar.
func (st *step) last() []string {
	parts := cleanLine(string(st.partial))
	if len(parts) == 0 {
		return st.tail
	}
	return append(slices.Clone(st.tail), parts[len(parts)-1])
}

// row is a line with something at its right end. The last column stays free:
// terminals differ in what they do once it is written.
func row(left, right string, columns int) string {
	room := columns - 1 - len(right) - 1
	if room < 8 {
		return fit(left, columns-1)
	}
	left = fit(left, room)
	return left + strings.Repeat(" ", room-columnsOf(left)+1) + right
}

func (t *terminal) tick(now time.Time) { t.draw(now) }

// draw replaces the display: one write, so that nothing flickers.
func (t *terminal) draw(now time.Time) {
	var out strings.Builder
	// The terminal has echoed what was typed, such as ^C.
	out.WriteString("\x1b[G")
	if t.drawn > 0 {
		fmt.Fprintf(&out, "\x1b[%dA", t.drawn)
	}
	// Above the display are lines of any length: wipe it before they come.
	if t.above.Len() > 0 {
		out.WriteString("\x1b[J" + t.above.String())
		t.above.Reset()
	}
	rows := t.rows(now)
	for _, r := range rows {
		out.WriteString("\x1b[2K" + r + "\n")
	}
	out.WriteString("\x1b[J")
	if len(rows) == 0 && t.drawn == 0 && out.Len() == len("\x1b[G\x1b[J") {
		return
	}
	t.drawn = len(rows)
	io.WriteString(t.w, out.String())
}

// rows is the display: the running steps, each with the end of its output, and
// a line about the whole. It always leaves a row of the terminal free.
func (t *terminal) rows(now time.Time) []string {
	columns, height := t.size()
	room := height - 1
	running := t.steps.list
	if room < 1 || (len(running) == 0 && t.planned == 0) {
		return nil
	}
	hidden := 0
	if len(running) > room-1 {
		hidden = len(running) - max(room-2, 0)
		running = running[:len(running)-hidden]
	}
	spare := room - 1 - len(running)
	if hidden > 0 {
		spare = 0
	}
	var rows []string
	for i, st := range running {
		rows = append(rows, row(" => "+st.name, st.so(now), columns))
		tail := st.last()
		share := min(len(tail), tailLines, spare/(len(running)-i))
		for _, l := range tail[len(tail)-share:] {
			rows = append(rows, t.paint.faint(fit(" => => "+l, columns-1)))
		}
		spare -= share
	}
	if hidden > 0 && room > 1 {
		rows = append(rows, fit(fmt.Sprintf(" ... and %d more", hidden), columns-1))
	}
	return append(rows, fit(t.status(now), columns-1))
}

func (t *terminal) status(now time.Time) string {
	if t.planned > 0 {
		return fmt.Sprintf("building %s, %d of %d", seconds(now.Sub(t.began)), t.done, max(t.planned, t.done))
	}
	return fmt.Sprintf("building %s", seconds(now.Sub(t.began)))
}

// close leaves what has ended on the screen, and running steps as they stand.
func (t *terminal) close() {
	columns, _ := t.size()
	for _, st := range t.steps.list {
		t.above.WriteString(row(" => "+st.name, "not finished", columns) + "\n")
	}
	t.steps, t.planned = steps{}, 0
	t.draw(t.began)
}
