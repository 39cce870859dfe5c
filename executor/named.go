package executor

import (
	"context"
	"fmt"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// named makes the files of a named context the first layer of a stage.
func (b *build) named(ctx context.Context, s *stage) error {
	w := b.ledger.find(s.keys[0])
	if w == nil {
		w = &work{step: &plan.Step{
			Name: fmt.Sprintf("[context %s] load", s.Base.Named),
			Op:   &plan.Copy{From: plan.From{Kind: plan.FromNamed, Name: s.Base.Named}},
		}}
		err := b.steps.do(w.step.Name, func(*announced) (err error) {
			env := step.Env{Space: b.space, Nodes: b.tools.Nodes}
			w.upper, err = step.Materialize(ctx, b.in.Named[s.Base.Named], "/", env)
			return err
		})
		if err != nil {
			return &StepError{Step: w.step, Err: fmt.Errorf("context %s: %w", s.Base.Named, err)}
		}
		w.tree, w.ended = b.space.Tree(w.upper), time.Now().UTC()
		b.ledger.enter(s.keys[0], w)
	}
	s.tree, s.base = w.tree.Fork(), w.tree.Lowers()
	s.work = append(s.work, w)
	if s.shipped {
		w.packing.Do(func() { b.pack(ctx, w, s) })
	}
	return nil
}
