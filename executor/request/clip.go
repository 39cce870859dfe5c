package request

import (
	"fmt"
	"slices"
	"sync"
)

// Clip is a Sink that bounds what passes: the output of each step, and the size
// of all events of a build. What is over is dropped, and said to be. It is safe
// for concurrent use.
type Clip struct {
	to    Sink
	limit int64 // of the output of a step, bytes
	slack int64 // what is let pass beside it

	mu    sync.Mutex
	steps map[int]int64 // bytes of output by step
	all   int64         // bytes of events
	over  bool          // the whole build is clipped
	after int           // events that passed since
}

const (
	// eventCost is what an event counts beside its texts, in bytes.
	eventCost = 64
	// maxSteps is how many steps may have output.
	maxSteps = 10000
)

// NewClip bounds what goes to a sink. With again set another Clip with the same
// limits has seen the events already, if nobody cheats, and its words pass.
func NewClip(to Sink, l Limits, again bool) *Clip {
	c := &Clip{to: to, limit: l.LogOf(), steps: map[int]int64{}}
	if again {
		c.slack = 4 << 10
	}
	return c
}

// Emit implements Sink.
func (c *Clip) Emit(e Event) {
	c.mu.Lock()
	pass, note := c.take(&e)
	c.mu.Unlock()
	if pass {
		c.to.Emit(e)
	}
	if note != nil {
		note.Time = e.Time
		c.to.Emit(*note)
	}
}

// take counts an event and cuts it to what may pass. The note is to follow it.
func (c *Clip) take(e *Event) (pass bool, note *Event) {
	if c.over {
		return c.frame(e), nil
	}
	if e.Kind == EventLog {
		if pass, note = c.output(e); !pass {
			return false, nil
		}
	}
	c.all += eventCost + int64(len(e.Name)+len(e.Data)+len(e.Text)+len(e.Error))
	if c.all > MaxLogs*(c.limit+c.slack) {
		c.over = true
		return false, &Event{Kind: EventWarning, Text: fmt.Sprintf("output clipped: no more of this build is shown after %s (--log-limit)", size(MaxLogs*c.limit))}
	}
	return true, note
}

// frame lets the beginnings and ends of some more steps pass, and spans.
func (c *Clip) frame(e *Event) bool {
	const small = 1 << 10
	timed := slices.Contains([]EventKind{EventStart, EventDone, EventSpan, EventPhase}, e.Kind)
	if !timed || len(e.Name)+len(e.Error) > small || c.after == maxSteps {
		return false
	}
	c.after++
	e.Data, e.Text = nil, ""
	return true
}

// output is take for what a step has written.
func (c *Clip) output(e *Event) (pass bool, note *Event) {
	most := c.limit + c.slack
	had, known := c.steps[e.Step]
	if had > most || !known && len(c.steps) >= maxSteps {
		return false, nil
	}
	c.steps[e.Step] = had + int64(len(e.Data))
	if left := most - had; int64(len(e.Data)) > left {
		c.steps[e.Step] = most + 1
		e.Data = e.Data[:left]
		note = &Event{Kind: EventLog, Step: e.Step, Stream: e.Stream,
			Data: fmt.Appendf(nil, "\n[output clipped: no more of this step is shown after %s (--log-limit)]\n", size(c.limit))}
	}
	return true, note
}

// size is a number of bytes in words.
func size(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
