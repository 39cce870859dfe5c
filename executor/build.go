package executor

import (
	"context"
	"runtime"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// make runs the steps and puts the image, or the index of images, into st. Its
// plans are made anew from there.
func (p *player) make(ctx context.Context, st *store.Store) (desc v1.Descriptor, err error) {
	planned := p.steps.span("plan")
	plans, err := makePlans(ctx, p.req, &p.in, fromStore{st})
	planned()
	if err != nil {
		return desc, err
	}
	if p.req.Role == request.RoleBuild {
		p.steps.count(plans) // Fetch has told them
		p.chooseCache(plans) // All has done it
	}
	p.steps.expect(ahead(p.req, plans))
	b := &build{
		player: p, store: st, format: chooseFormat(p.req, plans),
		packing: semaphore.NewWeighted(int64(min(runtime.NumCPU(), mostPackers))),
		jobs:    semaphore.NewWeighted(p.req.Limits.JobsOf()),
	}
	b.known = byStage(plans, p.known)
	if p.cache != nil && p.tools.Steps != nil {
		b.keeper = newKeeper(ctx, p, st)
	}
	if b.caches, err = newCaches(p.req, p.space, p.tools, p.steps); err != nil {
		return desc, err
	}
	if b.tasks, err = p.limitTasks(plans); err != nil {
		return desc, err
	}
	desc, err = b.all(ctx, plans)
	b.caches.keep(ctx, err)
	if err == nil {
		p.result.Exported, err = b.exportResults(plans)
	}
	p.result.Cached = int(b.reused.Load())
	p.result.Materials = append(p.result.Materials, b.taken.sorted()...)
	return desc, err
}

// mostPackers is how many layers are packed at once: each needs up to two outputs, and
// others need some.
const mostPackers = request.MaxStreams/2 - 1

// build makes the images of one request.
type build struct {
	*player
	store   *store.Store
	caches  *caches
	format  format
	packers *errgroup.Group
	packing *semaphore.Weighted
	jobs    *semaphore.Weighted // the steps that may run at once
	// unpacked is how many layers are still to be packed.
	unpacked atomic.Int32
	images   []*image
	bases    bases
	ledger   ledger
	taken    taken
	known    map[*plan.Stage][]request.KnownStep
	keeper   *keeper       // nil: the launcher keeps no layer
	reused   atomic.Int32  // steps that the layer cache had
	tasks    *rootfs.Tasks // bounds the processes of RUN steps, if there are any
}

// all makes the images of the plans. Of one plan, steps without an edge between
// them run at once, as far as jobs allow; plans come one after the other, so that several platforms
// need no more memory than one. Layers are packed while later steps run.
func (b *build) all(ctx context.Context, plans []*plan.Plan) (v1.Descriptor, error) {
	g, ctx := errgroup.WithContext(ctx)
	b.packers = g
	for i, p := range plans {
		img, err := b.image(p, i)
		if err != nil {
			return v1.Descriptor{}, err
		}
		b.images = append(b.images, img)
		if !img.run(ctx) {
			break
		}
	}
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
