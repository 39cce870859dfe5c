package sandbox

import (
	"context"
	"sync"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// patient passes events on to a sink that may take its time: where nobody reads
// what is shown, a step waits, but not the end of a build. Events of one sender
// keep their order.
type patient struct {
	to    request.Sink
	queue chan request.Event
	stop  chan struct{} // closed when no more come
	ended chan struct{} // closed when all were passed on
	over  chan struct{} // closed when nobody waits any more
}

const (
	// mostWaiting is how many events wait for the sink.
	mostWaiting = 16
	// lastWords is what a sink has for taking events after the end of the context.
	lastWords = time.Second
)

func newPatient(ctx context.Context, to request.Sink) *patient {
	p := &patient{
		to: to, queue: make(chan request.Event, mostWaiting),
		stop: make(chan struct{}), ended: make(chan struct{}), over: make(chan struct{}),
	}
	giveUp := sync.OnceFunc(func() { close(p.over) })
	context.AfterFunc(ctx, func() { time.AfterFunc(lastWords, giveUp) })
	go p.pass()
	return p
}

func (p *patient) pass() {
	defer close(p.ended)
	for {
		select {
		case e := <-p.queue:
			p.to.Emit(e)
			continue
		default:
		}
		select {
		case e := <-p.queue:
			p.to.Emit(e)
		case <-p.stop:
			if len(p.queue) == 0 {
				return
			}
		}
	}
}

// Emit implements request.Sink.
func (p *patient) Emit(e request.Event) {
	select {
	case p.queue <- e:
	case <-p.over:
	}
}

// close waits until all is passed on, or nobody waits any more. Nothing may come
// after it.
func (p *patient) close() {
	close(p.stop)
	select {
	case <-p.ended:
	case <-p.over:
	}
}
