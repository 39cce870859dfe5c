package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// pulls is how many layers are pulled at once; dockerd and containerd use 3.
const pulls = 3

// call answers Build.Call.
func (p *player) call(ctx context.Context, st *store.Store) (err error) {
	p.result.Called, err = call(ctx, p.req, &p.in, newFromRegistry(p, st), p.steps)
	return err
}

// pull makes the plans and pulls what they need into st: manifests and configs of
// all base images, and the layers that somebody will ask for. Of the others the
// store remembers where they can be had.
func (p *player) pull(ctx context.Context, st *store.Store) error {
	from := newFromRegistry(p, st)
	planned := p.steps.span("plan")
	plans, err := makePlans(ctx, p.req, &p.in, from)
	planned()
	tellRemarks(plans, p.steps)
	if err != nil {
		return err
	}
	tellUnused(p.req, plans, p.steps)
	if p.req.Call != request.CallWarm { // which may have no context
		if err := checkSources(ctx, plans, p.in.Context, p.steps); err != nil {
			return err
		}
	}
	p.result.Materials = append(from.materials(plans), p.in.materials...)
	if p.req.Role == request.RoleFetch {
		from.layers = newLayerImages(ctx, p)
	}
	p.openPlaces()
	p.chooseCache(plans)
	if p.result.Steps, err = p.lookUp(ctx, plans); err != nil {
		return err
	}
	mounted, err := p.pullWanted(ctx, from, plans)
	for p.lost(err) {
		if p.result.Steps, err = p.lookUp(ctx, plans); err == nil {
			mounted, err = p.pullWanted(ctx, from, plans)
		}
	}
	if p.req.Role == "" {
		p.late = from
	}
	p.result.Layers = append(from.layers.of(mounted), p.cachedLayers(plans, p.result.Steps)...)
	return err
}

// pullWanted pulls what is wanted, notes of which results of steps there are images now,
// and lists the layers of bases whose files build wants.
func (p *player) pullWanted(ctx context.Context, from *fromRegistry, plans []*plan.Plan) ([]layerID, error) {
	wanted, mounted, err := from.wanted(plans, p)
	if err != nil {
		return nil, err
	}
	if p.req.Role != "" { // else make tells of all there is to do
		p.steps.expect(len(wanted))
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(pulls)
	for _, w := range wanted {
		g.Go(func() error { return from.pull(ctx, w) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i := range p.result.Steps {
		if c := &p.result.Steps[i].Cached; p.places.Has(*c) {
			id, err := idOf(*c)
			if err != nil {
				return nil, err
			}
			c.Image = from.layers.has(id)
		}
	}
	return mounted, nil
}

// lost says whether an error is that of a result of a step, which is not used then.
func (p *player) lost(err error) bool {
	var bad *lostError
	if !errors.As(err, &bad) {
		return false
	}
	p.steps.Warn("a result of a step is not used: "+bad.Error(), 0)
	p.places.Drop(bad.image)
	return true
}

// lostError is a result of a step that was found, and cannot be had.
type lostError struct {
	image *registry.Image
	err   error
}

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// cachedLayers are the images of cached steps that somebody reads.
func (p *player) cachedLayers(plans []*plan.Plan, steps []request.KnownStep) (list []string) {
	known := byStage(plans, steps)
	for _, pl := range plans {
		needs := survey(pl, known)
		for _, s := range pl.Stages {
			for _, k := range known[s] {
				if needs[s].files && k.Cached.Found() && k.Cached.Image && !slices.Contains(list, k.Cached.LayerKey()) {
					list = append(list, k.Cached.LayerKey())
				}
			}
		}
	}
	return list
}

// onImages are the stages of all plans that stand on an image.
func onImages(plans []*plan.Plan) []*plan.Stage {
	var list []*plan.Stage
	for _, p := range plans {
		for _, s := range p.Stages {
			if s.Base.Image != nil {
				list = append(list, s)
			}
		}
	}
	return list
}

// tellRemarks tells the remarks of the plans, those that they have in common once.
func tellRemarks(plans []*plan.Plan, steps *Steps) {
	told := map[plan.Warning]bool{}
	for _, p := range plans {
		steps.remarks(slices.DeleteFunc(slices.Clone(p.Warnings), func(w plan.Warning) bool { return told[w] }))
		for _, w := range p.Warnings {
			told[w] = true
		}
	}
}

// tellUnused tells what of the request changes nothing.
func tellUnused(req *request.Build, plans []*plan.Plan, steps *Steps) {
	ignored := map[string]int{}
	for _, p := range plans {
		for _, name := range p.Ignored {
			if ignored[name]++; ignored[name] == len(plans) {
				steps.Warn(fmt.Sprintf("build argument %s was not consumed", name), 0)
			}
		}
	}
	if req.RewriteTimestamp && slices.ContainsFunc(plans, func(p *plan.Plan) bool { return p.Created == nil }) {
		steps.Warn("--rewrite-timestamp: there is no SOURCE_DATE_EPOCH, so the times of files stay as they are", 0)
	}
}

// manifestOf reads the manifest of a resolved image.
func manifestOf(r *plan.Resolved) (*v1.Manifest, error) {
	var m v1.Manifest
	if err := json.Unmarshal(r.Manifest, &m); err != nil {
		return nil, fmt.Errorf("image %s: manifest: %w", r.Ref, err)
	}
	if len(m.Layers) > maxLayers {
		return nil, errors.New("image " + r.Ref + ": too many layers")
	}
	return &m, nil
}

// maxLayers bounds the layers of an image; BuildKit and Docker stop at 127.
const maxLayers = 1000
