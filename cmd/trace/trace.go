package trace

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/progress"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const (
	// maxName bounds a name or an error, in bytes.
	maxName = 1 << 10
	// maxOpen is how many steps may be at work at once, those of all roles. More
	// are left out.
	maxOpen = 1024
	// maxFile bounds the file, in bytes. What is over is left out, but for phases.
	maxFile = 64 << 20
)

// Trace is a request.Sink that writes a trace. It is safe for concurrent use.
type Trace struct {
	next request.Sink
	mask func(string) string
	now  func() time.Time

	mu    sync.Mutex
	file  io.WriteCloser // nil: nothing is written, or no longer
	err   error          // the first
	began time.Time
	size  int64
	open  map[int]*step
	lanes map[request.Role]lanes
}

var _ request.Sink = (*Trace)(nil)

// step is one that has begun.
type step struct {
	name  string
	start time.Time
	lane  *lane
	bytes int64
}

// Create begins a trace in the file path; "": none is written, and the Trace only
// passes events on. mask takes out of a text what must not be in the file.
func Create(path string, next request.Sink, mask func(string) string) (*Trace, error) {
	if path == "" {
		return &Trace{next: next}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, failed(err)
	}
	t := begin(f, next, mask, time.Now)
	if t.err != nil {
		return nil, t.err
	}
	return t, nil
}

func failed(err error) error { return fmt.Errorf("--trace: %w", err) }

func begin(to io.WriteCloser, next request.Sink, mask func(string) string, now func() time.Time) *Trace {
	t := &Trace{
		next: next, mask: mask, now: now, file: to, began: now(),
		open: map[int]*step{}, lanes: map[request.Role]lanes{},
	}
	t.write(label{Name: "process_name", Phase: "M", PID: pid, Args: labelArgs{Name: "kbuild-sandbox"}})
	return t
}

// Emit implements request.Sink.
func (t *Trace) Emit(e request.Event) {
	t.mu.Lock()
	if t.file != nil {
		t.take(e)
	}
	t.mu.Unlock()
	t.next.Emit(e)
}

// take notes what an event tells of time.
func (t *Trace) take(e request.Event) {
	at := t.within(e.Time, t.began)
	switch e.Kind {
	case request.EventStart:
		if len(t.open) >= maxOpen || t.open[e.Step] != nil {
			return
		}
		if l := t.lane(e.Role, at); l != nil {
			l.busy = true
			t.open[e.Step] = &step{name: t.text(e.Name), start: at, lane: l}
		}
	case request.EventProgress:
		if st := t.open[e.Step]; st != nil {
			st.bytes = e.Bytes
		}
	case request.EventDone:
		t.done(e.Step, at, e.Error)
	case request.EventSpan:
		end := t.within(e.Time.Add(time.Duration(e.Total)), at)
		if l := t.lane(e.Role, at); l != nil {
			l.until = end
			t.span(span{Name: t.text(e.Name), Category: "span", TID: l.tid}, at, end)
		}
	case request.EventPhase:
		l := t.phases(e.Role)
		t.span(span{Name: t.text(e.Name), Category: phase, TID: l.tid}, at, t.within(e.Time.Add(time.Duration(e.Total)), at))
	}
}

// done writes a step that has ended.
func (t *Trace) done(number int, at time.Time, problem string) {
	st := t.open[number]
	if st == nil {
		return
	}
	delete(t.open, number)
	end := t.within(at, st.start)
	st.lane.busy, st.lane.until = false, end
	s := span{Name: t.text(st.name), Category: "step", TID: st.lane.tid}
	s.Args.Bytes, s.Args.Error = st.bytes, t.text(problem)
	t.span(s, st.start, end)
}

// within is a time that a sandbox told, put where it can be.
func (t *Trace) within(at, least time.Time) time.Time {
	if now := t.now(); at.After(now) || at.IsZero() {
		at = now
	}
	if at.Before(least) {
		return least
	}
	return at
}

// text is a name without what must not be shown, and not too long. What is cut is
// masked before: of half a value nobody would know it.
func (t *Trace) text(s string) string {
	s = t.mask(s)
	if len(s) > maxName {
		s = strings.ToValidUTF8(s[:maxName], "")
	}
	return s
}

// Close writes the steps that did not end, ends the file and returns the first error
// of all. Events after it are only passed on.
func (t *Trace) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return t.err
	}
	for _, number := range slices.Sorted(maps.Keys(t.open)) {
		t.done(number, t.now(), "it did not end")
	}
	t.put([]byte("]\n"))
	if err := t.file.Close(); err != nil && t.err == nil {
		t.err = failed(err)
	}
	t.file = nil
	return t.err
}

// pid is the one process that a trace has.
const pid = 1

const phase = "phase"

// span is a complete event of the format; times are in microseconds. Where it
// began says the clock, so that it can be compared with other records.
type span struct {
	Name     string   `json:"name"`
	Category string   `json:"cat"`
	Phase    string   `json:"ph"`
	Start    int64    `json:"ts"`
	Took     int64    `json:"dur"`
	PID      int      `json:"pid"`
	TID      int      `json:"tid"`
	Args     spanArgs `json:"args,omitzero"`
}

type spanArgs struct {
	Bytes int64  `json:"bytes,omitempty"` // that a transfer has moved
	Error string `json:"error,omitempty"`
}

// label is a metadata event: the name of a process or of a thread, or its place.
type label struct {
	Name  string    `json:"name"`
	Phase string    `json:"ph"`
	PID   int       `json:"pid"`
	TID   int       `json:"tid"`
	Args  labelArgs `json:"args"`
}

type labelArgs struct {
	Name string `json:"name,omitempty"`
	Sort int    `json:"sort_index,omitempty"`
}

// span writes a span. Both of its ends are rounded alike, so that what lies in
// another does so in the file.
func (t *Trace) span(s span, start, end time.Time) {
	if t.size > maxFile && s.Category != phase {
		return
	}
	s.Phase, s.PID, s.Start = "X", pid, start.UnixMicro()
	s.Took = end.UnixMicro() - s.Start
	t.write(s)
}

// write writes an event as a line.
func (t *Trace) write(v any) {
	line, err := progress.Line(v)
	if err != nil {
		t.err = failed(err)
		return
	}
	if t.size == 0 {
		t.put(append([]byte("["), line...))
	} else {
		t.put(append([]byte(","), line...))
	}
}

// put writes to the file, until that has failed.
func (t *Trace) put(b []byte) {
	if t.err != nil {
		return
	}
	n, err := t.file.Write(b)
	t.size += int64(n)
	if err != nil {
		t.err = failed(err)
	}
}
