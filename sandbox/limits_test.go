package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// What the end of a build's time makes of how the build ended.
func TestTimedOut(t *testing.T) {
	late, cancel := context.WithTimeoutCause(t.Context(), time.Nanosecond, &request.TimeoutError{Flag: request.TimeoutFlag, Limit: time.Minute})
	defer cancel()
	<-late.Done()
	canceled, stop := context.WithCancelCause(t.Context())
	stop(errors.New("somebody pressed Ctrl-C"))

	other := errors.New("other")
	stopped := &request.Failure{Class: request.ClassCanceled, Message: "build canceled", Line: 7, Excerpt: ">>> RUN x"}
	lost := &request.Failure{Class: request.ClassResolve, Message: "canceled"}
	for _, tt := range []struct {
		name    string
		ctx     context.Context
		failure *request.Failure
		roles   map[request.Role]request.Result
		err     error

		message string // "": it stays what it was
		line    int
	}{
		{"in time", t.Context(), nil, nil, nil, "", 0},
		{"in time, failed", t.Context(), stopped, nil, nil, "", 7},
		{"in time, broke", t.Context(), nil, nil, other, "", 0},
		{"ended just before", late, nil, nil, nil, "", 0},
		{"the executor said where it was", late, stopped, nil, nil, "did not end within 1m0s (--timeout)", 7},
		{"it said nothing", late, nil, nil, context.Cause(late), "did not end within 1m0s (--timeout)", 0},
		{"push was the first to end", late, lost, map[request.Role]request.Result{request.RoleBuild: {Failure: stopped}}, context.Cause(late), "did not end", 7},
		{"canceled by a person", canceled, nil, nil, context.Cause(canceled), "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &limiter{at: newWatch(noSink{}), results: tt.roles}
			l.at.Emit(request.Event{Kind: request.EventStart, Step: 3, Name: "[2/2] RUN sleep\nmore"})
			res := request.Result{Failure: tt.failure}
			err := l.timedOut(tt.ctx, &res, tt.err)
			if tt.message == "" {
				if !errors.Is(err, tt.err) || res.Failure != tt.failure {
					t.Fatalf("%v, %v", err, res.Failure)
				}
				return
			}
			f := res.Failure
			if err != nil || f == nil || f.Class != request.ClassTimeout || f.Line != tt.line || !strings.Contains(f.Message, tt.message) {
				t.Fatalf("%v, %+v", err, f)
			}
			if !strings.HasSuffix(f.Message, ", it was at [2/2] RUN sleep") {
				t.Errorf("message %q", f.Message)
			}
		})
	}
}

// The names of steps that a hostile executor announces are few and short.
func TestWatchIsBounded(t *testing.T) {
	w := newWatch(noSink{})
	for i := range 10000 {
		w.Emit(request.Event{Kind: request.EventStart, Step: i, Name: strings.Repeat("n", 1000)})
	}
	if n := len(w.text()); n > maxWatched*(maxWatchedName+2)+20 {
		t.Errorf("%d bytes", n)
	}
	w = newWatch(noSink{})
	for i := range 3 {
		w.Emit(request.Event{Kind: request.EventStart, Step: i, Name: fmt.Sprint("step ", i)})
	}
	w.Emit(request.Event{Kind: request.EventDone, Step: 0})
	w.Emit(request.Event{Kind: request.EventDone, Step: 1, Error: "canceled"})
	if got := w.text(); got != ", it was at step 1; step 2" {
		t.Errorf("%q", got)
	}
}

// The launcher cuts the output itself, whatever the executor does.
func TestOutputIsCutOutside(t *testing.T) {
	var got keptEvents
	c := Config{Sink: &got, Request: request.Build{Limits: request.Limits{Log: 1000}}}
	_, l := c.limited(t.Context())
	for range 1000 {
		c.Sink.Emit(request.Event{Kind: request.EventLog, Step: 1, Data: bytes.Repeat([]byte("x"), 1000)})
	}
	l.stop() // all is passed on
	n := 0
	for _, e := range got {
		n += len(e.Data)
	}
	if n > 10000 || !bytes.Contains(got[len(got)-1].Data, []byte("output clipped")) {
		t.Errorf("%d bytes passed, at last %q", n, got[len(got)-1].Data)
	}
}

type keptEvents []request.Event

func (k *keptEvents) Emit(e request.Event) { *k = append(*k, e) }

// What --pids-limit comes to on the host, and that nothing asked for is nothing.
func TestLimitsOutside(t *testing.T) {
	if l := (Limits{}).with(request.Limits{Timeout: time.Second, Log: 5}); !l.None() {
		t.Errorf("%+v", l)
	}
	if l := (Limits{}).with(request.Limits{PIDs: 100}); l.Tasks != 1424 {
		t.Errorf("%+v", l)
	}
	var h *hold
	if err := errors.Join(h.verify(nil), h.close(t.Context())); err != nil {
		t.Error(err)
	}
	if h.blame(&request.Result{Failure: &request.Failure{}}, nil) {
		t.Error("blamed without a group")
	}
}
