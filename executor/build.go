package executor

import (
	"context"
	"runtime"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// Bench is where Build works: the workspace, the ways out for what steps need,
// and who is told of them.
type Bench struct {
	Space *rootfs.Space
	Tools
	caches *caches
	Steps  *Steps
}

// Build runs the steps of every plan and puts the image, or the index of
// images, into st. Of one plan, stages without an edge between them run at
// once; plans come one after the other, so that several platforms need no more
// memory than one. Layers are packed while later steps run.
func Build(ctx context.Context, req *request.Build, in *Inputs, st *store.Store, bench Bench) (v1.Descriptor, error) {
	plans, err := makePlans(ctx, req, in, fromStore{st})
	if err != nil {
		return v1.Descriptor{}, err
	}
	bench.Steps.expect(ahead(req, plans))
	g, ctx := errgroup.WithContext(ctx)
	b := &build{
		req: req, in: in, store: st, bench: bench, steps: bench.Steps, packers: g,
		packing: semaphore.NewWeighted(int64(runtime.NumCPU())),
		format:  chooseFormat(req, plans),
	}
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

// build is one call of Build.
type build struct {
	req     *request.Build
	in      *Inputs
	store   *store.Store
	bench   Bench
	steps   *Steps
	format  format
	packers *errgroup.Group
	packing *semaphore.Weighted
	// unpacked is how many layers are still to be packed.
	unpacked atomic.Int32
	images   []*image
	bases    bases
	ledger   ledger
}
