package progress

import (
	"cmp"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/mask"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// masked shows events without the values of secrets. What a step writes is
// looked through as one text, however it was cut; a few bytes of it may come
// with the step's next event.
type masked struct {
	view
	values  *mask.Values
	streams map[output]*mask.Stream
	now     func() time.Time
}

// output is one of the two outputs of a step.
type output struct{ step, stream int }

func (m *masked) event(e request.Event) {
	switch e.Kind {
	case request.EventLog:
		e.Data = m.write(output{e.Step, e.Stream}, e.Data)
		if len(e.Data) == 0 {
			return
		}
	case request.EventDone:
		m.flush(e.Time, func(o output) bool { return o.step == e.Step })
	default:
		e.Data = []byte(m.values.Text(string(e.Data)))
	}
	e.Name, e.Text, e.Error = m.values.Text(e.Name), m.values.Text(e.Text), m.values.Text(e.Error)
	m.view.event(e)
}

// write masks a piece of an output. Where there are more steps than are
// remembered each piece is a text of its own.
func (m *masked) write(to output, data []byte) []byte {
	s := m.streams[to]
	if s == nil {
		if len(m.streams) >= 2*maxSteps {
			return []byte(m.values.Text(string(data)))
		}
		s = m.values.Stream()
		m.streams[to] = s
	}
	return s.Write(data)
}

// flush shows what is held back of the outputs that which picks.
func (m *masked) flush(now time.Time, which func(output) bool) {
	order := slices.SortedFunc(maps.Keys(m.streams), func(a, b output) int {
		return cmp.Or(cmp.Compare(a.step, b.step), cmp.Compare(a.stream, b.stream))
	})
	for _, o := range order {
		if !which(o) {
			continue
		}
		if rest := m.streams[o].Close(); len(rest) > 0 {
			m.view.event(request.Event{Time: now, Kind: request.EventLog, Step: o.step, Stream: o.stream, Data: rest})
		}
		delete(m.streams, o)
	}
}

func (m *masked) close() {
	m.flush(m.now(), func(output) bool { return true })
	m.view.close()
}

// hiding is a writer of text that is clean: what was no value before may be one
// when the terminal sequences in it are gone. Each Write has whole lines.
type hiding struct {
	w      io.Writer
	values *mask.Values
}

func (h hiding) Write(text []byte) (int, error) {
	if _, err := io.WriteString(h.w, h.values.Text(string(text))); err != nil {
		return 0, err
	}
	return len(text), nil
}

// Mask is a failure without the values of secrets.
func Mask(f request.Failure, values *mask.Values) request.Failure {
	for _, text := range []*string{&f.Message, &f.Hint, &f.File, &f.Excerpt} {
		*text = values.Text(*text)
	}
	f.Log = []byte(values.Text(string(f.Log)))
	return f
}
