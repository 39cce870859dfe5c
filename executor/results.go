package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/cache"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// stepResult is what a step has made, in this build or in an earlier one.
type stepResult struct {
	op      plan.Op
	shipped bool
	plain   string // see work
	cache.Result
}

// exportResults writes the results of steps into the store, as the places that get them have
// them, and an index for each place. Layers that stay in a registry are but named.
func (b *build) exportResults(plans []*plan.Plan) (list []request.Descriptor, err error) {
	if b.cache == nil || len(b.req.CacheTo) == 0 {
		return nil, nil
	}
	results := b.stepResults(plans)
	written := map[string]v1.Descriptor{}
	for _, to := range b.req.CacheTo {
		var entries []cache.Entry
		for _, r := range results {
			if !takes(to, r.op, r.shipped) || hasKey(entries, r.Key) {
				continue
			}
			d, ok := written[r.Key]
			if !ok {
				if d, err = b.writeResult(r.Result); err != nil {
					return nil, fmt.Errorf("export results of steps: %w", err)
				}
				written[r.Key] = d
			}
			entries = append(entries, cache.Entry{Key: r.Key, Manifest: d})
		}
		raw, err := cache.Index(entries)
		if err != nil {
			return nil, fmt.Errorf("export results of steps: %w", err)
		}
		h, err := b.store.Put(raw)
		if err != nil {
			return nil, fmt.Errorf("export results of steps: %w", err)
		}
		list = append(list, descriptor(v1.Descriptor{MediaType: types.OCIImageIndex, Digest: h, Size: int64(len(raw))}))
	}
	return list, nil
}

func hasKey(entries []cache.Entry, key string) bool {
	for _, e := range entries {
		if e.Key == key {
			return true
		}
	}
	return false
}

// stepResults are those of all steps that have a key and a blob. A copy from a stage has
// two: that without content is what the next build finds without reading the stage.
func (b *build) stepResults(plans []*plan.Plan) (list []stepResult) {
	for _, img := range b.images {
		shipped := map[*plan.Stage]bool{}
		for s := img.plan.Target; s != nil; s = s.Base.Stage {
			shipped[s] = true
		}
		for _, ps := range img.plan.Stages {
			s := img.stages[ps.ID]
			for i, st := range s.Steps {
				r := stepResult{op: st.Op, shipped: shipped[ps]}
				pulled := false
				if n := i + len(s.work) - len(s.Steps); n >= 0 && n < len(s.work) {
					pulled = s.work[n].cached != nil && s.work[n].cached.Pulled
					r.plain, r.Key, r.Step = string(s.work[n].plain), string(s.work[n].key), s.work[n].result()
				} else if i < len(s.known) {
					r.plain, r.Key, r.Step = s.known[i].Plain, s.known[i].Key, s.known[i].Cached
					pulled = r.Step.Pulled
				}
				if r.Key == "" || r.Step.Digest == "" {
					continue
				}
				r.Step.Key = ""
				if !lent(r.plain, pulled, st.Op) {
					list = append(list, r)
				}
				if r.plain != "" && copiesStage(st.Op) {
					r.Key, r.Step.Key = r.plain, r.Key
					list = append(list, r)
				}
			}
		}
	}
	return list
}

// result is the work as layer caches have it, with a blob or not at all.
func (w *work) result() request.CachedStep {
	if w.layer.Digest == (v1.Hash{}) {
		return request.CachedStep{}
	}
	return request.CachedStep{
		DiffID: w.layer.DiffID.String(), Digest: w.layer.Digest.String(), Size: w.layer.Size, Media: string(w.layer.MediaType), Created: w.ended,
	}
}

// writeResult writes the image of a result.
func (b *build) writeResult(r cache.Result) (v1.Descriptor, error) {
	conf, manifest, err := r.Image()
	if err != nil {
		return v1.Descriptor{}, err
	}
	if _, err := b.store.Put(conf); err != nil {
		return v1.Descriptor{}, err
	}
	h, err := b.store.Put(manifest)
	return v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: h, Size: int64(len(manifest))}, err
}

// layOutResults hands out results of steps for those places that are OCI layouts.
func (p *player) layOutResults(ctx context.Context, e exporter) error {
	for i, d := range p.result.Exported {
		to := p.req.CacheTo[i]
		if to.Layout == "" || to.None() {
			continue
		}
		index, err := described(d)
		if err != nil {
			return err
		}
		e.desc, e.name = index, strconv.Itoa(i)
		err = p.keepIn(ctx, to, "export cache "+to.Name(), func(*announced) error { return e.results(ctx) })
		if err != nil {
			return fmt.Errorf("export cache %s: %w", to.Name(), err)
		}
	}
	return nil
}

// keepIn keeps results in a place. What goes wrong with it costs the next build time, and
// not this one its success, unless the place is to be strict.
func (p *player) keepIn(ctx context.Context, to request.CacheTarget, name string, work func(*announced) error) (err error) {
	_ = p.steps.do(name, func(a *announced) error {
		err = work(a)
		if to.Strict {
			return err
		}
		return nil // a warning tells it
	})
	switch {
	case err == nil || to.Strict:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	p.steps.Warn(fmt.Sprintf("cache %s is not complete: %v", to.Name(), err), 0)
	return nil
}

// results hands out an index of results, with all that it names.
func (e exporter) results(ctx context.Context) error {
	var index v1.IndexManifest
	if err := e.read(ctx, e.desc, &index); err != nil {
		return err
	}
	if len(index.Manifests) == 0 {
		return nil // what is there is more
	}
	if err := e.images(ctx, index.Manifests, index.Manifests); err != nil {
		return err
	}
	raw, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return e.index(raw)
}

// pushResults pushes results of steps to those places that are in registries.
func (p *player) pushResults(ctx context.Context, st *store.Store, indexes []request.Descriptor) error {
	for i, d := range indexes {
		if i >= len(p.req.CacheTo) || p.req.CacheTo[i].Layout != "" || p.req.CacheTo[i].None() {
			continue
		}
		to := p.req.CacheTo[i]
		index, err := described(d)
		if err != nil {
			return err
		}
		entries, err := readEntries(st, index)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			continue // what is there is more
		}
		err = p.keepIn(ctx, to, "push cache "+to.Name(), func(a *announced) error {
			if to.Repository != "" {
				return p.pushEach(ctx, st, entries, to.Repository)
			}
			return p.tools.Images.Push(ctx, st, index, to.Reference, a.progress)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func readEntries(st *store.Store, index v1.Descriptor) ([]cache.Entry, error) {
	raw, err := st.Read(index.Digest)
	if err != nil {
		return nil, err
	}
	return cache.ReadIndex(raw)
}

// pushEach pushes each result under a tag of its own, where the repository does not have
// it.
func (p *player) pushEach(ctx context.Context, st *store.Store, entries []cache.Entry, repository string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(pulls)
	for _, e := range entries {
		g.Go(func() error {
			dest := repository + ":" + cache.Tag(e.Key)
			if there, err := p.tools.Images.Tagged(ctx, dest); err != nil || there == e.Manifest.Digest {
				return err
			}
			err := p.tools.Images.Push(ctx, st, e.Manifest, dest, nil)
			if registry.IsImmutable(err) {
				return nil // there is another result of the same step, for good
			}
			return err
		})
	}
	return g.Wait()
}
