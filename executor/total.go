package executor

import (
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// ahead is about how many pieces of work Build, Export and Push announce: layers
// that are unpacked, steps, what is handed out. Of steps that platforms share
// each is counted.
func ahead(req *request.Build, plans []*plan.Plan) int {
	n := 0
	unpacked := map[string]bool{}
	for _, s := range onImages(plans) {
		m, err := manifestOf(s.Base.Image)
		if err != nil || !s.NeedsFiles {
			continue // whoever needs the manifest reports the error
		}
		chain := ""
		for _, l := range m.Layers {
			if chain += l.Digest.Hex; !unpacked[chain] {
				unpacked[chain] = true
				n++
			}
		}
	}
	for _, p := range plans {
		for _, s := range p.Stages {
			n += len(s.Steps)
		}
	}
	for _, wanted := range []bool{req.Layout, req.Tar} {
		if wanted {
			n++
		}
	}
	if !req.NoPush {
		n += len(req.Destinations)
	}
	return n
}

// expect tells how many pieces of work there will be: those announced so far
// and n more.
func (s *Steps) expect(n int) {
	s.mu.Lock()
	total := s.last + n
	s.mu.Unlock()
	s.emit(request.Event{Kind: request.EventPlan, Total: int64(total)})
}
