package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Steps numbers and announces pieces of work, from the first pull to the last
// push. It is safe for concurrent use.
type Steps struct {
	sink request.Sink
	mu   sync.Mutex
	last int
	// remarked is how many warnings about the Dockerfile were told.
	remarked int
}

// NewSteps returns a Steps that tells sink.
func NewSteps(sink request.Sink) *Steps { return &Steps{sink: sink} }

// announced is a piece of work that has begun.
type announced struct {
	steps *Steps
	id    int
}

func (s *Steps) emit(e request.Event) {
	e.Time = time.Now()
	s.sink.Emit(e)
}

// Warn tells a warning about a line of the Dockerfile; 0: no line.
func (s *Steps) Warn(text string, line int) {
	s.emit(request.Event{Kind: request.EventWarning, Text: text, Line: line})
}

// remarks tells the warnings about a Dockerfile.
func (s *Steps) remarks(list []plan.Warning) {
	for _, w := range list {
		s.Warn(warning(w), w.Line)
	}
	s.mu.Lock()
	s.remarked += len(list)
	s.mu.Unlock()
}

// count counts the remarks of plans that an earlier role has told.
func (s *Steps) count(plans []*plan.Plan) {
	told := map[plan.Warning]bool{}
	for _, p := range plans {
		for _, w := range p.Warnings {
			told[w] = true
		}
	}
	s.mu.Lock()
	s.remarked += len(told)
	s.mu.Unlock()
}

// warning is a remark in one line, as docker build shows it.
func warning(w plan.Warning) string {
	text := w.Text
	if w.Rule != "" {
		text = w.Rule + ": " + text
	}
	if w.URL != "" {
		text += " (" + w.URL + ")"
	}
	return text
}

// summary tells how many warnings there were: they may have scrolled away.
func (s *Steps) summary() {
	s.mu.Lock()
	n := s.remarked
	s.mu.Unlock()
	switch {
	case n == 1:
		s.Info("1 warning found (--check shows it with its lines)")
	case n > 1:
		s.Info(fmt.Sprintf("%d warnings found (--check shows them with their lines)", n))
	}
}

// Info tells something that the user asked to know.
func (s *Steps) Info(text string) { s.emit(request.Event{Kind: request.EventInfo, Text: text}) }

// start announces work called name.
func (s *Steps) start(name string) *announced {
	s.mu.Lock()
	s.last++
	a := &announced{steps: s, id: s.last}
	s.mu.Unlock()
	s.emit(request.Event{Kind: request.EventStart, Step: a.id, Name: name})
	return a
}

// cached announces work that need not be done.
func (s *Steps) cached(name string) {
	a := s.start(name)
	s.emit(request.Event{Kind: request.EventDone, Step: a.id, Cached: true})
}

// span begins something that takes time and is no step; what it returns ends it.
func (s *Steps) span(name string) (end func()) {
	began := time.Now()
	return func() {
		s.sink.Emit(request.Event{Time: began, Kind: request.EventSpan, Name: name, Total: int64(time.Since(began))})
	}
}

// do runs work between its announcement and its end.
func (s *Steps) do(name string, work func(*announced) error) error {
	a := s.start(name)
	err := work(a)
	a.done(err)
	return err
}

func (a *announced) done(err error) {
	e := request.Event{Kind: request.EventDone, Step: a.id}
	switch {
	case errors.Is(err, context.Canceled):
		e.Error = "canceled"
	case err != nil:
		e.Error = err.Error()
	}
	a.steps.emit(e)
}

// output passes on what a command wrote; chunk is copied.
func (a *announced) output(stream int, chunk []byte) {
	data := append([]byte(nil), chunk...)
	a.steps.emit(request.Event{Kind: request.EventLog, Step: a.id, Stream: stream, Data: data})
}

func (a *announced) progress(done, total int64) {
	a.steps.emit(request.Event{Kind: request.EventProgress, Step: a.id, Bytes: done, Total: total})
}
