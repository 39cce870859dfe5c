package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// secret is step.Env.Secret: only the ids that the user offered are asked for.
func (b *build) secret(ctx context.Context, id string) ([]byte, bool, error) {
	if b.tools.Secret == nil || !slices.Contains(b.req.Secrets, id) {
		return nil, false, nil
	}
	data, err := b.tools.Secret(ctx, id)
	if err != nil {
		return nil, false, fmt.Errorf("secret %s: %w", id, err)
	}
	return data, true, nil
}

// agent is step.Env.Agent.
func (b *build) agent(id string) func(ctx context.Context, message []byte) ([]byte, error) {
	if b.tools.Agent == nil || !slices.Contains(b.req.Agents, id) {
		return nil
	}
	return func(ctx context.Context, message []byte) ([]byte, error) { return b.tools.Agent(ctx, id, message) }
}

// checkout is step.Env.Checkout.
func (b *build) checkout(ctx context.Context, r plan.Repository, dir string) (time.Time, error) {
	if b.tools.Git == nil {
		return time.Time{}, errors.New("no git in this build")
	}
	c, err := b.tools.Git.Checkout(ctx, buildcontext.Repository(r), dir)
	if err == nil {
		b.taken.add(gitMaterial(buildcontext.Repository(r), c.Commit))
	}
	return c.Time, err
}

// download is step.Env.Download.
func (b *build) download() step.Downloader {
	if b.tools.Download == nil {
		return nil
	}
	return noting{b.tools.Download, &b.taken}
}
