package executor

import (
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// ahead is about how many pieces of work are announced from the first step on:
// layers that are unpacked, steps, what is handed out, pushes if there is no role
// of their own for them.
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
	n += len(allSteps(plans))
	for _, wanted := range []bool{req.Layout, req.Tar} {
		if wanted {
			n++
		}
	}
	if !req.NoPush && req.Role == "" {
		n += len(req.Destinations)
	}
	for _, to := range req.CacheTo {
		if to.Layout != "" || req.Role == "" {
			n++
		}
	}
	return n
}

// allSteps are the keys of the steps of all plans: what platforms share is there
// once.
func allSteps(plans []*plan.Plan) map[key]bool {
	all := map[key]bool{}
	for _, p := range plans {
		chains, err := keys(p)
		if err != nil {
			continue // Build reports it
		}
		for _, chain := range chains {
			for _, k := range chain[1:] {
				all[k] = true
			}
		}
	}
	return all
}

// expect tells how many pieces of work there will be: those announced so far
// and n more.
func (s *Steps) expect(n int) {
	s.mu.Lock()
	total := s.last + n
	s.mu.Unlock()
	s.emit(request.Event{Kind: request.EventPlan, Total: int64(total)})
}
