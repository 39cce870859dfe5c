package executor

import (
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// need is what a build wants of a stage.
type need struct {
	// shipped: its layers are part of the image.
	shipped bool
	// files: a step has to be done on them, or somebody reads them.
	files bool
	// read: it is others who do.
	read bool
}

// survey finds what is needed of the stages of a plan, when known is what the layer
// caches have of their steps. A stage that is not in the answer is not needed.
func survey(p *plan.Plan, known map[*plan.Stage][]request.KnownStep) map[*plan.Stage]need {
	all := map[*plan.Stage]need{}
	for s := p.Target; s != nil; s = s.Base.Stage {
		all[s] = need{shipped: true}
	}
	read := func(s *plan.Stage) {
		n := all[s]
		n.files, n.read = true, true
		all[s] = n
	}
	for i := len(p.Stages) - 1; i >= 0; i-- {
		s := p.Stages[i]
		n, ok := all[s]
		if !ok {
			continue
		}
		for j, st := range s.Steps {
			if j < len(known[s]) && usable(known[s][j].Cached, n.shipped) {
				continue
			}
			n.files = true
			for _, src := range plan.Sources(st.Op) {
				read(src)
			}
		}
		all[s] = n
		if n.files && s.Base.Stage != nil {
			read(s.Base.Stage)
		}
	}
	return all
}

// usable says whether a step need not be done: its layer is there in the form in
// which it is wanted. No step is done for the sake of a place that gets results.
func usable(c request.CachedStep, shipped bool) bool {
	if shipped {
		return c.Found() && c.Digest != ""
	}
	return c.Found() && (c.Image || c.Digest != "")
}

// byStage gives each stage of the plans its part of what is known of all.
func byStage(plans []*plan.Plan, steps []request.KnownStep) map[*plan.Stage][]request.KnownStep {
	all := map[*plan.Stage][]request.KnownStep{}
	for _, p := range plans {
		for _, s := range p.Stages {
			n := min(len(s.Steps), len(steps))
			all[s], steps = steps[:n], steps[n:]
		}
	}
	return all
}
