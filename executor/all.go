package executor

import (
	"context"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// Tools is what a role needs from outside. What it has no use for may be nil.
type Tools struct {
	Images   *registry.Client
	Download step.Downloader
	// Git checks out repositories; nil: none can be had.
	Git Git
	// Secret returns one of Build.Secrets, Agent the reply of one of
	// Build.Agents to a message of the SSH agent protocol, both without length.
	Secret func(ctx context.Context, id string) ([]byte, error)
	Agent  func(ctx context.Context, id string, message []byte) ([]byte, error)
	// Steps is the layer cache; nil: there is none.
	Steps LayerCache
	// Contents is the digest of what a copy takes of a local context, from whoever has
	// that at hand; nil, or no answer: nobody does.
	Contents func(ctx context.Context, root request.GuestPath, of request.Contents) ([]byte, error)

	// Ahead are blobs in the store of push that its image will have; nil: none is known
	// before the image is.
	Ahead <-chan request.Descriptor

	Sink   request.Sink
	Outlet request.Outlet
	// Nodes makes device nodes where this process may not; nil: mknod.
	Nodes func(dirfd int, name string, mode uint32, dev uint64) error
	// Posture is what was measured of the walls; Walls fails if one that RUN
	// steps need is not in force.
	Posture request.Posture
	Walls   func(request.Posture) error
}

// Git checks out git repositories.
type Git interface {
	// Checkout puts the files of a commit into dir, which exists and is empty,
	// as root's with the modes that git knows, 0644 and 0755.
	Checkout(ctx context.Context, r buildcontext.Repository, dir string) (buildcontext.Checkout, error)
}

// All plays fetch, build and push in this process, over one store that lies in
// the workspace, and tells how it went.
func All(ctx context.Context, req *request.Build, tools Tools) request.Result {
	ctx, stop := within(ctx, req.Limits)
	defer stop()
	return play(ctx, req, tools, (*player).all)
}

func (p *player) all(ctx context.Context) (err error) {
	defer p.steps.summary()
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave(&err)
	st, err := store.Open(p.storeDir())
	if err != nil {
		return err
	}
	if err := p.check(ctx); err != nil {
		return err
	}
	if err := p.read(ctx, fetcher{}); err != nil {
		return err
	}
	if p.req.Call != "" {
		return p.call(ctx, st)
	}
	if err := p.pull(ctx, st); err != nil {
		return err
	}
	p.known, p.result.Steps = p.result.Steps, nil
	p.layersReady = make(chan request.Descriptor, request.MaxLayers)
	uploads, err := p.uploadAhead(ctx, func() (*store.Store, error) { return st, nil }, p.layersReady)
	if err != nil {
		return err
	}
	defer uploads.stop()
	desc, err := p.make(ctx, st)
	if err != nil {
		return err
	}
	uploads.enough()
	if err := p.export(ctx, desc, p.tools.Images.Opener(st)); err != nil {
		return err
	}
	if !p.req.NoPush {
		if err := p.push(ctx, st, desc); err != nil {
			return err
		}
	}
	return p.pushResults(ctx, st, p.result.Exported)
}
