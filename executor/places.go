package executor

import (
	"context"
	"slices"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/cache"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Beside the launcher's own layer cache there are places: repositories of registries, and
// OCI layouts. Fetch finds what they have, and pulls it as it pulls bases; build makes
// what they get, and push pushes it. So keys that are known in build only, those on top of
// a COPY from a stage that is done again, are asked for at the launcher's cache alone; but
// in a pod, where one process plays all roles, also in the places.

// nowhere is a layer cache that has nothing: results go elsewhere.
type nowhere struct{}

func (nowhere) Find(context.Context, string) (request.CachedStep, error) {
	return request.CachedStep{}, nil
}

// aged is a layer cache without what is too old.
type aged struct {
	LayerCache
	limit time.Duration
}

// Find implements LayerCache.
func (a aged) Find(ctx context.Context, key string) (request.CachedStep, error) {
	c, err := a.LayerCache.Find(ctx, key)
	if c.Found() && a.limit > 0 && time.Since(c.Created) > a.limit {
		c = request.CachedStep{}
	}
	return c, err
}

// beside is what places have, as a layer cache.
type beside struct{ *cache.Finder }

// Find implements LayerCache.
func (b beside) Find(ctx context.Context, key string) (request.CachedStep, error) {
	found, err := b.Finder.Find(ctx, key)
	return found.Step, err
}

// openPlaces makes ready what finds results in the places of the request.
func (p *player) openPlaces() {
	if len(p.req.CacheFrom) > 0 {
		p.places = cache.NewFinder(p.req.CacheFrom, p.tools.Images, func(text string) { p.steps.Warn(text, 0) })
	}
}

// chooseCache says which layer cache there is, if any. It leaves it out where its results
// cannot be used yet: steps that several platforms share may be part of one image and not
// of another, and a cache mount that starts as a stage is known by what the stage's steps
// have changed.
func (p *player) chooseCache(plans []*plan.Plan) {
	if p.cache = p.tools.Steps; p.cache == nil && len(p.req.CacheFrom)+len(p.req.CacheTo) > 0 {
		p.cache = nowhere{}
	}
	if p.cache == nil {
		return
	}
	p.cache = aged{p.cache, p.req.CacheTTL}
	if why := uncached(plans); why != "" {
		p.cache = nil
		if p.req.Role != request.RoleBuild && len(p.req.CacheFrom)+len(p.req.CacheTo) > 0 {
			p.steps.Warn("results of steps are not taken from a cache, nor kept: "+why, 0)
		}
	}
}

// mostCached is how many steps of a build may be cached: fetch tells of them in one
// frame.
const mostCached = 1000

// uncached says why results of plans cannot be cached yet; empty: they can.
func uncached(plans []*plan.Plan) string {
	n := 0
	for _, pl := range plans {
		for _, s := range pl.Stages {
			n += len(s.Steps)
			for _, st := range s.Steps {
				if r, ok := st.Op.(*plan.Run); ok && slices.ContainsFunc(r.Mounts, startsAsStage) {
					return "a cache mount starts as a stage, which is not supported there yet"
				}
			}
		}
	}
	switch {
	case len(plans) > 1:
		return "there are several platforms, which are not supported there yet"
	case n > mostCached:
		return "there are too many steps"
	}
	return ""
}

func startsAsStage(m plan.Mount) bool { return m.Type == "cache" && m.From.Kind == plan.FromStage }

// takes says whether a place gets the result of a step. shipped: it is part of the image.
// What is copied from a stage counts as both: it is little, and all that is needed of
// the stage.
func takes(to request.CacheTarget, op plan.Op, shipped bool) bool {
	_, copies := op.(*plan.Copy)
	wanted := copies && to.Copies || !copies && to.Others || copiesStage(op) && to.Others
	return wanted && (shipped || to.All)
}

// packs says whether the layer of a step is wanted as a blob: for the image, or for a
// place that gets it.
func (p *player) packs(op plan.Op, shipped bool) bool {
	return shipped || p.cache != nil && slices.ContainsFunc(p.req.CacheTo, func(to request.CacheTarget) bool { return takes(to, op, shipped) })
}

// findLate finds what a key names that nobody knew before the steps below were done.
func (b *build) findLate(ctx context.Context, key string) (request.CachedStep, error) {
	c, err := b.cache.Find(ctx, key)
	if err != nil || c.Found() || b.late == nil || b.places == nil {
		return c, err
	}
	if c, err = (aged{beside{b.places}, b.req.CacheTTL}).Find(ctx, key); err != nil || !c.Found() {
		return request.CachedStep{}, err
	}
	found := b.places.Of(c)
	if err = b.late.have(ctx, found); b.lost(err) {
		return request.CachedStep{}, nil
	}
	return c, err
}
