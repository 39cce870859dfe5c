package executor

import (
	"context"
	"fmt"
	"maps"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/cache"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// wantedLayer is a layer that has to be pulled.
type wantedLayer struct {
	image *registry.Image
	layer v1.Descriptor
	// from is the place that has it, if it is the result of a step, which can be done
	// instead; else empty.
	from string
	// files is what an image is made of for build; nil: nothing.
	files *layerID
	// is the layer that a result of a step says that it is.
	is layerID
}

// wanting collects the layers to pull, each once.
type wanting struct {
	*fromRegistry
	list []wantedLayer
	at   map[v1.Hash]int
	// mounted are those of bases whose files build wants.
	mounted []layerID
}

// use is what is wanted of a layer.
type use struct {
	// source is where it can be had, or empty; stays: it may stay there.
	source string
	stays  bool
	// files is what an image is made of for build; nil: nothing.
	files *layerID
}

// wanted lists the layers to pull, remembers where all are from, and lists those of bases
// whose files build wants.
func (r *fromRegistry) wanted(plans []*plan.Plan, p *player) ([]wantedLayer, []layerID, error) {
	w := &wanting{fromRegistry: r, at: map[v1.Hash]int{}}
	known := byStage(plans, p.result.Steps)
	needs := map[*plan.Stage]need{}
	for _, pl := range plans {
		maps.Copy(needs, survey(pl, known))
	}
	for _, s := range onImages(plans) {
		if err := w.base(s, needs[s].files || r.req.Call == request.CallWarm); err != nil {
			return nil, nil, err
		}
	}
	for _, pl := range plans {
		for _, s := range pl.Stages {
			for i, k := range known[s] {
				n := needs[s]
				blob := p.packs(s.Steps[i].Op, n.shipped)
				if !p.places.Has(k.Cached) || !blob && !n.files {
					continue
				}
				if err := w.result(p.places.Of(k.Cached), k.Cached, n.files); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	return w.list, w.mounted, nil
}

// base adds the layers of the image that a stage stands on.
func (w *wanting) base(s *plan.Stage, files bool) error {
	img := w.found[s.Base.Image.Digest]
	source, stays := w.elsewhere(img)
	diffs, err := diffIDs(s.Base.Image)
	if err != nil {
		return err
	}
	for i, l := range img.Layers {
		u := use{source: source, stays: stays}
		if files && i < len(diffs) && w.layers != nil {
			u.files = &layerID{diffs[i], l.Digest}
			w.mounted = append(w.mounted, *u.files)
		}
		u.stays = u.stays && (u.files != nil || !files)
		if err := w.add(wantedLayer{image: img, layer: l}, u); err != nil {
			return err
		}
	}
	return nil
}

// result adds the layer of a step that a place of the request has.
func (w *wanting) result(found cache.Found, c request.CachedStep, files bool) error {
	id, err := idOf(c)
	if err != nil {
		return fmt.Errorf("layer cache: %w", err)
	}
	var u use
	if found.Layout != nil {
		w.origin[found.Image.Digest] = found.Layout
	}
	u.source, u.stays = w.elsewhere(found.Image)
	for _, to := range w.req.CacheTo {
		u.stays = u.stays && to.Layout == "" && w.images.Beside(found.Image, to.Name())
	}
	if files && w.layers != nil {
		u.files = &id
	}
	u.stays = u.stays && (u.files != nil || !files)
	return w.add(resultLayer(found, id), u)
}

// resultLayer is the layer of a result.
func resultLayer(found cache.Found, id layerID) wantedLayer {
	return wantedLayer{image: found.Image, layer: found.Image.Layers[0], from: found.Place, is: id}
}

// idOf names the layer of a result that is pulled.
func idOf(c request.CachedStep) (id layerID, err error) {
	if id.diffID, err = v1.NewHash(c.DiffID); err == nil {
		id.digest, err = v1.NewHash(c.Digest)
	}
	return id, err
}

// add adds a layer, unless what is wanted of it is there.
func (w *wanting) add(l wantedLayer, u use) error {
	if u.source != "" {
		if err := w.store.Remember(l.layer.Digest, u.source); err != nil {
			return err
		}
	}
	there := u.files != nil && w.layers.has(*u.files)
	if u.stays && (there || u.files == nil) {
		return nil
	}
	n, begun := w.at[l.layer.Digest]
	if !begun {
		n, w.at[l.layer.Digest] = len(w.list), len(w.list)
		w.list = append(w.list, l)
	}
	if !there && u.files != nil {
		w.list[n].files = u.files
	}
	return nil
}

// have pulls the layer of a result, unless it is there.
func (r *fromRegistry) have(ctx context.Context, found cache.Found) error {
	if r.store.Has(found.Image.Layers[0].Digest) {
		return nil
	}
	r.mu.Lock()
	if found.Layout != nil {
		r.origin[found.Image.Digest] = found.Layout
	}
	r.mu.Unlock()
	id, err := idOf(found.Step)
	if err != nil {
		return fmt.Errorf("layer cache: %w", err)
	}
	return r.pull(ctx, resultLayer(found, id))
}

func (r *fromRegistry) pull(ctx context.Context, w wantedLayer) error {
	st := r.store
	switch {
	case r.layers == nil:
	case w.from != "":
		st = st.Beside(r.layers.checked(w.is, w.files != nil))
	case w.files != nil:
		st = st.Beside(r.layers.besides(*w.files))
	}
	what := w.image.Ref
	if w.from != "" {
		what = "cache " + w.from
	}
	r.mu.Lock()
	in := r.origin[w.image.Digest]
	r.mu.Unlock()
	err := r.steps.do(fmt.Sprintf("pull %s %s", what, w.layer.Digest), func(a *announced) error {
		progress := func(done int64) { a.progress(done, w.layer.Size) }
		if in != nil {
			return in.Pull(ctx, w.layer, st, progress)
		}
		return r.images.Pull(ctx, w.image, w.layer, st, progress)
	})
	if err != nil && w.from != "" && ctx.Err() == nil {
		return &lostError{w.image, err}
	}
	return err
}
