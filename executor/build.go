package executor

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// Bench is where Build works: the workspace, and the ways out for what steps
// need.
type Bench struct {
	Space *rootfs.Space
	Tools
}

// Build runs the plan's steps and puts the image into st. Stages without an
// edge between them run at once; layers are packed while later steps run.
func Build(ctx context.Context, req *request.Build, in *Inputs, st *store.Store, bench Bench, steps *Steps) (v1.Descriptor, error) {
	p, err := makePlan(ctx, req, in, fromStore{st})
	if err != nil {
		return v1.Descriptor{}, err
	}
	g, ctx := errgroup.WithContext(ctx)
	b := &build{
		req: req, in: in, plan: p, store: st, bench: bench, steps: steps, packers: g,
		packing: semaphore.NewWeighted(int64(runtime.NumCPU())),
		stages:  map[plan.StageID]*stage{},
	}
	for _, s := range p.Stages {
		b.stages[s.ID] = &stage{Stage: s, done: make(chan struct{})}
	}
	for s := p.Target; s != nil; s = s.Base.Stage {
		b.stages[s.ID].shipped = true
	}
	var running sync.WaitGroup
	for _, s := range p.Stages {
		running.Add(1)
		g.Go(func() error {
			defer running.Done()
			return b.run(ctx, b.stages[s.ID])
		})
	}
	running.Wait()
	if err := b.finish(ctx, g); err != nil {
		return v1.Descriptor{}, err
	}
	return b.assemble()
}

// finish waits for the packers that outlast the steps, as work of its own: a
// large layer takes long to compress.
func (b *build) finish(ctx context.Context, g *errgroup.Group) error {
	if b.unpacked.Load() == 0 || ctx.Err() != nil {
		return g.Wait()
	}
	return b.steps.do("pack layers", func(*announced) error { return g.Wait() })
}

// build is one call of Build.
type build struct {
	req     *request.Build
	in      *Inputs
	plan    *plan.Plan
	store   *store.Store
	bench   Bench
	steps   *Steps
	packers *errgroup.Group
	packing *semaphore.Weighted
	// unpacked is how many layers are still to be packed.
	unpacked atomic.Int32
	stages   map[plan.StageID]*stage
	bases    bases
}

// makePlan plans the Dockerfile.
func makePlan(ctx context.Context, req *request.Build, in *Inputs, images plan.Resolver) (*plan.Plan, error) {
	file, err := dockerfile.Parse(req.DockerfileName, in.Dockerfile)
	if err != nil {
		return nil, err
	}
	opt, err := options(req)
	if err != nil {
		return nil, err
	}
	return plan.Make(ctx, file, opt, images)
}

func options(req *request.Build) (plan.Options, error) {
	opt := plan.Options{
		Target: req.Target, Args: req.Args, Labels: req.Labels, Created: req.Created, Allow: req.Allow,
		BuildPlatform: v1.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH},
	}
	if len(req.Platforms) > 1 {
		return opt, dockerfile.Errorf(request.ClassUnsupported, nil, "several platforms: not supported yet")
	}
	for _, name := range req.Platforms {
		p, err := v1.ParsePlatform(name)
		if err != nil {
			return opt, dockerfile.Errorf(request.ClassResolve, nil, "platform %q: %v", name, err)
		}
		opt.Platform = *p
	}
	return opt, nil
}
