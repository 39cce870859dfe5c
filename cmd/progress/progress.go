package progress

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/mask"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Mode is how a build is shown.
type Mode string

const (
	TTY   Mode = "tty"   // a display on a terminal, redrawn in place
	Plain Mode = "plain" // a line for everything
	JSON  Mode = "json"  // a request.Event in a line
)

// Level is how much is shown.
type Level int

const (
	Quiet  Level = iota // nothing: errors are the caller's to report
	Warn                // warnings
	Normal              // steps, their output, remarks
	Debug               // everything
)

// Options say how a Display shows a build.
type Options struct {
	Mode  Mode // empty: Plain
	Level Level
	Color bool
	// Mask is what must not be shown; nil: everything may be.
	Mask *mask.Values
	// Timestamp begins every line with its time, in Plain mode.
	Timestamp bool
	// Size is the terminal's size, asked before every redraw; nil: 80 by 24.
	Size func() (columns, rows int)
	// Now is the clock for events without a time; nil: time.Now.
	Now func() time.Time
}

// maxName bounds the name of a step, maxText a remark, in bytes.
const (
	maxName = 2 << 10
	maxText = 64 << 10
)

// maxSteps bounds how many running steps are remembered; the events of more
// are shown as if they had not been announced.
const maxSteps = 1024

// view is one way to show events. Calls never overlap.
type view interface {
	event(e request.Event)
	// tick is called about ten times a second while the build runs.
	tick(now time.Time)
	close()
}

// Display is a request.Sink that shows what it is told.
type Display struct {
	mu     sync.Mutex
	view   view
	opt    Options
	closed bool
	stop   chan struct{}
	ended  chan struct{}
}

var _ request.Sink = (*Display)(nil)

// New returns a Display that writes to w, until Close.
func New(w io.Writer, opt Options) *Display {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Size == nil {
		opt.Size = func() (int, int) { return 80, 24 }
	}
	d := &Display{opt: opt, stop: make(chan struct{}), ended: make(chan struct{})}
	d.view = &masked{view: newView(w, opt), values: opt.Mask, streams: map[output]*mask.Stream{}, now: opt.Now}
	go d.run()
	return d
}

func newView(w io.Writer, opt Options) view {
	paint := painter{on: opt.Color}
	switch opt.Mode {
	case JSON:
		return &lines{w: w}
	case TTY:
		return newTerminal(hiding{w, opt.Mask}, paint, opt)
	}
	if opt.Timestamp {
		w = &stamped{w: w, now: opt.Now}
	}
	return newPlain(hiding{w, opt.Mask}, paint)
}

func (d *Display) run() {
	defer close(d.ended)
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-t.C:
			d.mu.Lock()
			d.view.tick(d.opt.Now())
			d.mu.Unlock()
		}
	}
}

// Emit shows an event.
func (d *Display) Emit(e request.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || !d.wanted(e.Kind) {
		return
	}
	if e.Time.IsZero() {
		e.Time = d.opt.Now()
	}
	d.view.event(e)
}

func (d *Display) wanted(k request.EventKind) bool {
	switch k {
	case request.EventDebug, request.EventSpan, request.EventPhase:
		return d.opt.Level >= Debug
	case request.EventWarning:
		return d.opt.Level >= Warn
	}
	return d.opt.Level >= Normal
}

// Close shows what is left and gives the terminal back. Events after it are
// dropped.
func (d *Display) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	close(d.stop)
	d.view.close()
}

// step is a running step as a view remembers it.
type step struct {
	number  int
	name    string
	start   time.Time
	bytes   int64
	total   int64
	partial []byte // output after the last newline
	// reported is when the transfer was last told of, at first the start.
	reported time.Time
	tail     []string // the last lines of output, cleaned
}

// steps remembers the running steps in the order of their start.
type steps struct {
	list []*step
}

func (s *steps) find(number int) *step {
	for _, st := range s.list {
		if st.number == number {
			return st
		}
	}
	return nil
}

// start remembers the step of an event; a step that was not announced starts
// with its first event.
func (s *steps) start(e request.Event) *step {
	st := s.find(e.Step)
	if st == nil {
		st = &step{number: e.Step, start: e.Time, reported: e.Time}
		if len(s.list) < maxSteps {
			s.list = append(s.list, st)
		}
	}
	if e.Kind == request.EventStart {
		st.name, st.start, st.reported = oneLine(e.Name, maxName), e.Time, e.Time
	}
	return st
}

func (s *steps) remove(number int) {
	for i, st := range s.list {
		if st.number == number {
			s.list = append(s.list[:i], s.list[i+1:]...)
			return
		}
	}
}

// maxLine is the longest line of output that is kept together, in bytes.
const maxLine = 16 << 10

// feed adds output to a step and returns the lines that are now complete,
// cleaned. How much comes is bounded before (see request.Clip).
func (st *step) feed(data []byte) []string {
	var out []string
	for _, c := range data {
		if c == '\n' || len(st.partial) >= maxLine {
			out = append(out, st.flush(c == '\n')...)
		}
		if c != '\n' {
			st.partial = append(st.partial, c)
		}
	}
	return out
}

// flush returns what stands after the last newline, cleaned; whole says that
// the line has ended, so that an empty one counts.
func (st *step) flush(whole bool) []string {
	parts := cleanLine(string(st.partial))
	st.partial = st.partial[:0]
	if whole && len(parts) == 0 {
		return []string{""}
	}
	return parts
}

// size is a number of bytes for people, in powers of 1000 as registries count.
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v := float64(n)
	for _, unit := range []string{"kB", "MB", "GB"} {
		if v /= 1000; v < 999.5 {
			return fmt.Sprintf("%.3g %s", v, unit)
		}
	}
	return fmt.Sprintf("%.3g TB", v/1000)
}

// moved is how much a step has transferred, or empty.
func (st *step) moved() string {
	switch {
	case st.bytes <= 0 && st.total <= 0:
		return ""
	case st.total > 0 && st.bytes != st.total:
		return size(max(st.bytes, 0)) + " / " + size(st.total)
	}
	return size(st.bytes)
}

// seconds is a time for people; clocks of two sides may differ, so it is never
// negative.
func seconds(d time.Duration) string {
	return fmt.Sprintf("%.1fs", max(d, 0).Seconds())
}

// painter adds colour where it is wanted.
type painter struct{ on bool }

func (p painter) with(code, s string) string {
	if !p.on || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p painter) name(s string) string    { return p.with("36", s) }
func (p painter) bad(s string) string     { return p.with("31", s) }
func (p painter) warning(s string) string { return p.with("33", s) }
func (p painter) faint(s string) string   { return p.with("2", s) }
