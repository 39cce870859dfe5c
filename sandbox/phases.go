package sandbox

import (
	"sync"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// The phases of a role, in their order. Push waits while it works, for its image.
const (
	phaseStart = "start"       // until the executor's first word
	phaseCheck = "check walls" // from outside
	phaseWait  = "wait"        // for another role
	phaseWork  = "work"        // until the result
	phaseEnd   = "end"         // until nothing of the sandbox is left
)

// phases tells a sink how long the parts of something took that follow each other.
// A nil one tells nothing.
type phases struct {
	to request.Sink
	of string // stands behind each name

	mu    sync.Mutex
	name  string // empty: none has begun
	since time.Time
}

func newPhases(to request.Sink, of string) *phases { return &phases{to: to, of: of} }

// enter begins a phase, and so ends the one before it.
func (p *phases) enter(name string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.name != "" {
		text := p.name
		if p.of != "" {
			text += " " + p.of
		}
		p.to.Emit(request.Event{Time: p.since, Kind: request.EventPhase, Name: text, Total: int64(now.Sub(p.since))})
	}
	p.name, p.since = name, now
}

// end ends the last phase.
func (p *phases) end() { p.enter("") }
