package progress

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// progressEvery is how often a transfer is reported in plain lines.
const progressEvery = 5 * time.Second

// plain shows a line for everything, each with the number of its step:
//
//	#3 [2/4] RUN make
//	#3 0.512 cc -o hello hello.c
//	#3 DONE 1.2s
type plain struct {
	w       io.Writer
	paint   painter
	steps   steps
	current int // the step of the last line; 0: none
	started bool
}

func newPlain(w io.Writer, paint painter) *plain {
	return &plain{w: w, paint: paint}
}

func (p *plain) event(e request.Event) {
	var out strings.Builder
	switch e.Kind {
	case request.EventStart, request.EventLog, request.EventProgress, request.EventDone:
		p.step(&out, e)
	case request.EventWarning:
		p.remark(&out, p.paint.warning("WARNING: ")+Clean(cut(e.Text, maxText))+line(e.Line))
	case request.EventInfo:
		p.remark(&out, Clean(cut(e.Text, maxText)))
	case request.EventDebug:
		p.remark(&out, p.paint.faint("debug: ")+Clean(cut(e.Text, maxText)))
	}
	io.WriteString(p.w, out.String())
}

func line(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" (line %d)", n)
}

// remark writes a line of no step.
func (p *plain) remark(out *strings.Builder, text string) {
	p.gap(out)
	p.current = 0
	out.WriteString(further(strings.TrimRight(text, "\n")) + "\n")
}

// gap is the empty line between the lines of two steps.
func (p *plain) gap(out *strings.Builder) {
	if p.started && p.current != 0 {
		out.WriteByte('\n')
	}
	p.started = true
}

// focus writes the name of a step when its lines begin, and again when lines
// of another stood between.
func (p *plain) focus(out *strings.Builder, st *step) {
	if p.current == st.number {
		return
	}
	if p.started && p.current == 0 {
		p.current = st.number // the gap before a step's lines
	}
	p.gap(out)
	p.current = st.number
	fmt.Fprintf(out, "#%d %s\n", st.number, p.paint.name(st.name))
}

func (p *plain) step(out *strings.Builder, e request.Event) {
	st := p.steps.start(e)
	switch e.Kind {
	case request.EventStart:
		p.focus(out, st)
	case request.EventLog:
		p.log(out, st, e.Time, st.feed(e.Data))
	case request.EventProgress:
		st.bytes, st.total = e.Bytes, e.Total
		if e.Time.Sub(st.reported) >= progressEvery {
			st.reported = e.Time
			p.focus(out, st)
			fmt.Fprintf(out, "#%d %s %s\n", st.number, st.moved(), seconds(e.Time.Sub(st.start)))
		}
	case request.EventDone:
		p.log(out, st, e.Time, st.flush(false))
		p.focus(out, st)
		took := seconds(e.Time.Sub(st.start))
		if e.Cached {
			fmt.Fprintf(out, "#%d CACHED\n", st.number)
		} else if e.Error != "" {
			fmt.Fprintf(out, "#%d %s %s\n", st.number, p.paint.bad("ERROR: "+oneLine(e.Error, maxText)), took)
		} else if m := st.moved(); m != "" {
			fmt.Fprintf(out, "#%d %s DONE %s\n", st.number, m, took)
		} else {
			fmt.Fprintf(out, "#%d DONE %s\n", st.number, took)
		}
		p.steps.remove(st.number)
	}
}

func (p *plain) log(out *strings.Builder, st *step, now time.Time, lines []string) {
	for _, l := range lines {
		p.focus(out, st)
		stamp := fmt.Sprintf("%.3f", max(now.Sub(st.start), 0).Seconds())
		fmt.Fprintf(out, "#%d %s %s\n", st.number, p.paint.faint(stamp), l)
	}
}

// stamped puts the time before every line that is not empty. Each Write has
// whole lines.
type stamped struct {
	w   io.Writer
	now func() time.Time
}

func (s *stamped) Write(text []byte) (int, error) {
	var out strings.Builder
	for line := range strings.Lines(string(text)) {
		if line != "\n" {
			out.WriteString(s.now().Format(time.RFC3339) + " ")
		}
		out.WriteString(line)
	}
	if _, err := io.WriteString(s.w, out.String()); err != nil {
		return 0, err
	}
	return len(text), nil
}

func (p *plain) tick(time.Time) {}

// close shows output that has no newline yet, of steps that were cut off.
func (p *plain) close() {
	var out strings.Builder
	for _, st := range p.steps.list {
		if len(st.partial) > 0 {
			p.log(&out, st, st.start, st.flush(false))
		}
	}
	p.gap(&out)
	io.WriteString(p.w, out.String())
}
