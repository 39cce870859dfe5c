package executor

import (
	"context"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// checkSources fails for the first COPY or ADD whose source the build context
// does not have: nothing has to be pulled, and no step run, for a build that
// cannot end well. Only steps that will run are looked at.
func checkSources(ctx context.Context, plans []*plan.Plan, files step.Source, steps *Steps) error {
	for _, p := range plans {
		for _, s := range p.Stages {
			for _, st := range s.Steps {
				op, ok := st.Op.(*plan.Copy)
				if !ok || op.From.Kind != plan.FromContext {
					continue
				}
				if err := step.CheckSources(ctx, op, files); err != nil {
					return &StepError{Step: st, Err: steps.do(st.Name, func(*announced) error { return err })}
				}
			}
		}
	}
	return nil
}
