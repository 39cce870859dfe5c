package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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
	if err := checkSources(plans, p.in.Context, p.steps); err != nil {
		return err
	}
	p.result.Materials = append(from.materials(plans), p.in.materials...)
	if p.req.Role == request.RoleFetch {
		from.layers = newLayerImages(ctx, p)
	}
	if p.result.Steps, err = p.lookUp(ctx, plans); err != nil {
		return err
	}
	wanted, mounted, err := from.wanted(plans, p.result.Steps)
	if err != nil {
		return err
	}
	if p.req.Role != "" { // else make tells of all there is to do
		p.steps.expect(len(wanted))
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(pulls)
	for _, w := range wanted {
		g.Go(func() error { return from.pull(ctx, w) })
	}
	err = g.Wait()
	p.result.Layers = append(from.layers.of(mounted), cachedLayers(plans, p.result.Steps)...)
	return err
}

// cachedLayers are the images of cached steps that somebody reads.
func cachedLayers(plans []*plan.Plan, steps []request.KnownStep) (list []string) {
	known := byStage(plans, steps)
	for _, p := range plans {
		needs := survey(p, known)
		for _, s := range p.Stages {
			for _, k := range known[s] {
				if n := needs[s]; n.files && usable(k.Cached, n.shipped) && k.Cached.Image && !slices.Contains(list, k.Cached.LayerKey()) {
					list = append(list, k.Cached.LayerKey())
				}
			}
		}
	}
	return list
}

// wantedLayer is a layer that has to be pulled.
type wantedLayer struct {
	image *registry.Image
	layer v1.Descriptor
	// files is what an image is made of for build; nil: nothing.
	files *layerID
}

// wanted lists the layers to pull, each once, remembers where all are from, and
// lists those whose files build wants.
func (r *fromRegistry) wanted(plans []*plan.Plan, steps []request.KnownStep) (list []wantedLayer, mounted []layerID, err error) {
	at := map[v1.Hash]int{}
	known := byStage(plans, steps)
	needs := map[*plan.Stage]need{}
	for _, p := range plans {
		maps.Copy(needs, survey(p, known))
	}
	for _, s := range onImages(plans) {
		files := needs[s].files
		img := r.found[s.Base.Image.Digest]
		source, stays := r.elsewhere(img)
		diffs, err := diffIDs(s.Base.Image)
		if err != nil {
			return nil, nil, err
		}
		for i, l := range img.Layers {
			if source != "" {
				if err := r.store.Remember(l.Digest, source); err != nil {
					return nil, nil, err
				}
			}
			var id *layerID
			if files && i < len(diffs) && r.layers != nil {
				id = &layerID{diffs[i], l.Digest}
				mounted = append(mounted, *id)
			}
			there := id != nil && r.layers.has(*id)
			if stays && (there || !files) {
				continue
			}
			n, begun := at[l.Digest]
			if !begun {
				n, at[l.Digest] = len(list), len(list)
				list = append(list, wantedLayer{image: img, layer: l})
			}
			if !there && id != nil {
				list[n].files = id
			}
		}
	}
	return list, mounted, nil
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

func (r *fromRegistry) pull(ctx context.Context, w wantedLayer) error {
	st := r.store
	if w.files != nil {
		st = st.Beside(r.layers.besides(*w.files))
	}
	return r.steps.do(fmt.Sprintf("pull %s %s", w.image.Ref, w.layer.Digest), func(a *announced) error {
		progress := func(done int64) { a.progress(done, w.layer.Size) }
		if in, ok := r.origin[w.image.Digest]; ok {
			return in.Pull(ctx, w.layer, st, progress)
		}
		return r.images.Pull(ctx, w.image, w.layer, st, progress)
	})
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
