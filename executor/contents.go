package executor

import (
	"context"
	"encoding/hex"
	"slices"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// contentOf is the digest of what a copy takes from a context, which is read once.
func (p *player) contentOf(ctx context.Context, op *plan.Copy) (string, error) {
	if known, ok := p.contents[op]; ok {
		return known, nil
	}
	content, err := p.contentIn(ctx, op, step.Env{Space: p.space, Context: p.in.Context, Named: p.in.Named})
	if err != nil {
		return "", err
	}
	if p.contents == nil {
		p.contents = map[*plan.Copy]string{}
	}
	p.contents[op] = content
	return content, nil
}

// contentIn is the digest of what a copy takes from its source. Of a local context the
// launcher may know it, who need not read every file through gVisor.
func (p *player) contentIn(ctx context.Context, op *plan.Copy, env step.Env) (string, error) {
	sum, err := p.contentAtHand(ctx, op)
	if err != nil {
		return "", err
	}
	if sum == nil {
		own, err := step.Digest(ctx, op, env)
		return hex.EncodeToString(own[:]), err
	}
	return hex.EncodeToString(sum), nil
}

// contentAtHand asks the launcher; nil: it does not know.
func (p *player) contentAtHand(ctx context.Context, op *plan.Copy) ([]byte, error) {
	return p.askContents(ctx, op, false)
}

// learnContents tells the launcher which files the next build will ask for: of a copy
// that was just done it has not read any.
func (p *player) learnContents(ctx context.Context, op plan.Op) error {
	if !copiesContext(op) {
		return nil
	}
	_, err := p.askContents(ctx, op.(*plan.Copy), true)
	return err
}

func (p *player) askContents(ctx context.Context, op *plan.Copy, learn bool) ([]byte, error) {
	if p.tools.Contents == nil || len(op.Paths) == 0 {
		return nil, nil
	}
	var src step.Source
	switch op.From.Kind {
	case plan.FromContext:
		src = p.in.Context
	case plan.FromNamed:
		src = p.in.Named[op.From.Name]
	}
	root := request.GuestPath(src.Root)
	if root == "" || root != p.req.Context && !slices.ContainsFunc(p.req.Contexts, func(n request.NamedContext) bool { return n.Dir == root }) {
		return nil, nil // it was fetched, or is a stage
	}
	of := step.Contents(op, src)
	of.Learn = learn
	return p.tools.Contents(ctx, root, of)
}
