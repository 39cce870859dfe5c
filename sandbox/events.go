package sandbox

import (
	"sync"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// numbering makes one stream of events of those of several roles, each of which
// counts its steps from 1.
type numbering struct {
	to request.Sink

	mu    sync.Mutex
	last  int
	steps map[roleStep]int
	total map[request.Role]int64 // steps that each role expects
}

type roleStep struct {
	role request.Role
	step int
}

// maxSteps bounds the steps of one build, pulls and pushes included.
const maxSteps = 100000

func newNumbering(to request.Sink) *numbering {
	return &numbering{to: to, steps: map[roleStep]int{}, total: map[request.Role]int64{}}
}

// of returns the sink of one role.
func (n *numbering) of(role request.Role) request.Sink { return roleSink{n, role} }

type roleSink struct {
	n    *numbering
	role request.Role
}

// Emit implements request.Sink. An event of a step that never began is dropped:
// no executor of ours sends it.
func (s roleSink) Emit(e request.Event) {
	e.Role = s.role
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	if s.n.translate(s.role, &e) {
		s.n.to.Emit(e)
	}
}

func (n *numbering) translate(role request.Role, e *request.Event) bool {
	switch {
	case e.Kind == request.EventPlan:
		n.total[role] = e.Total
		e.Total = n.expected()
		return true
	case e.Kind == request.EventStart:
		if n.last >= maxSteps {
			return false
		}
		n.last++
		n.steps[roleStep{role, e.Step}] = n.last
	case e.Step == 0:
		return true
	}
	global, ok := n.steps[roleStep{role, e.Step}]
	e.Step = global
	return ok
}

// expected is how many steps there will be: what each role says, or what it has
// begun where that is more.
func (n *numbering) expected() (all int64) {
	begun := map[request.Role]int64{}
	for s := range n.steps {
		begun[s.role]++
	}
	for _, role := range roles {
		all += max(n.total[role], begun[role])
	}
	return all
}
