package executor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/layer"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// obtain has one step from the layer cache, or does it.
func (b *build) obtain(ctx context.Context, s *stage, i int) (*work, error) {
	st := s.Steps[i]
	var known request.KnownStep
	if i < len(s.known) {
		known = s.known[i]
	}
	if usable(known.Cached, s.shipped) {
		return b.reuse(s, st, known)
	}
	if b.cache == nil {
		return b.step(ctx, s, st)
	}
	expected := known.Key
	known, err := b.complete(ctx, s, st, known)
	if err != nil {
		return nil, err
	}
	// Nobody has mounted what only turns up now.
	if usable(known.Cached, s.shipped) && known.Cached.Digest != "" {
		if err := b.keeper.again(known, st.Op); err != nil {
			return nil, err
		}
		return b.reuse(s, st, known)
	}
	w, err := b.step(ctx, s, st)
	if err != nil {
		return nil, err
	}
	w.key, w.plain, w.lent = stepKey(known.Key), stepKey(known.Plain), b.borrows(s, st.Op)
	if w.plain != "" && w.took != "" { // and not what fetch saw: a context may change
		if w.key, err = b.keyOfCopy(s, st.Op, w.took); err != nil {
			return nil, err
		}
	}
	if expected != "" && !s.strayed && copiesContext(st.Op) && w.key != stepKey(expected) {
		// Results that fetch has found for what stands on it are of the old content: what
		// is made with them has no name.
		b.steps.Warn("the context changed while it was read: "+st.Name, 0)
		s.strayed = true
	}
	w.end, err = b.endOf(s, st.Op, w.key)
	return w, err
}

// lent says that the key of a copy from a stage is what a place has said that it is.
func lent(plain string, pulled bool, op plan.Op) bool {
	return copiesStage(op) && plain != "" && pulled
}

// borrows says that the key of a step is made of one that a place has given: what the
// step makes may go back to places, but the launcher's cache, which is for all builds,
// does not take it.
func (b *build) borrows(s *stage, op plan.Op) bool {
	return s.borrowed || slices.ContainsFunc(plan.Sources(op), func(src *plan.Stage) bool { return s.image.stages[src.ID].borrowed })
}

// keyOfCopy is the key of a copy with the digest of what it took.
func (b *build) keyOfCopy(s *stage, op plan.Op, took string) (stepKey, error) {
	k := newKeyer(b.req, s.image.plan)
	facts, _, _ := k.plain(s.end, op)
	return k.key(facts, nil, took)
}

// reuse takes a layer that the cache has.
func (b *build) reuse(s *stage, st *plan.Step, known request.KnownStep) (*work, error) {
	blob, err := cachedBlob(known.Cached)
	if err != nil {
		return nil, err
	}
	w := &work{
		step: st, layer: blob, cached: &known.Cached, ended: known.Cached.Created,
		key: stepKey(known.Key), plain: stepKey(known.Plain),
	}
	borrows := b.borrows(s, st.Op)
	w.lent = borrows || lent(known.Plain, known.Cached.Pulled, st.Op)
	if !borrows {
		if err := b.keeper.pulled(known, st.Op); err != nil {
			return nil, err
		}
	}
	if w.end, err = b.endOf(s, st.Op, w.key); err != nil {
		return nil, err
	}
	b.steps.cached(st.Name)
	b.reused.Add(1)
	return w, nil
}

// cachedBlob is the layer of a cached step.
func cachedBlob(c request.CachedStep) (blob layer.Blob, err error) {
	blob = layer.Blob{Size: c.Size, TarSize: c.TarSize, MediaType: types.MediaType(c.Media)}
	if blob.DiffID, err = v1.NewHash(c.DiffID); err == nil && c.Digest != "" {
		blob.Digest, err = v1.NewHash(c.Digest)
	}
	if err != nil {
		return blob, fmt.Errorf("layer cache: %w", err)
	}
	return blob, nil
}

// endOf is what the steps on top of a step stand on.
func (b *build) endOf(s *stage, op plan.Op, key stepKey) (stepKey, error) {
	k := newKeyer(b.req, s.image.plan)
	facts, _, _ := k.plain(s.end, op)
	return k.on(s.end, facts, key)
}

// beginKey is the key of what a stage stands on.
func (b *build) beginKey(s *stage) (stepKey, error) {
	var below stepKey
	if s.Base.Stage != nil {
		below = s.image.stages[s.Base.Stage.ID].end
	}
	return newKeyer(b.req, s.image.plan).base(s.Stage, below)
}

// complete finds the keys of a step that has to be done, as far as it has some, and
// what the cache knows under them: fetch could not read other stages.
func (b *build) complete(ctx context.Context, s *stage, st *plan.Step, known request.KnownStep) (request.KnownStep, error) {
	k := newKeyer(b.req, s.image.plan)
	facts, sources, ok := k.plain(s.end, st.Op)
	if !ok {
		return request.KnownStep{}, nil
	}
	var reads []stepKey
	// What stands on, or reads, what was done again was made on another result of it.
	again := s.again
	for _, src := range sources {
		from := s.image.stages[src.ID]
		reads = append(reads, from.end)
		again = again || from.again && !copiesStage(st.Op)
	}
	plain, err := k.key(facts, reads, "")
	if err != nil {
		return known, err
	}
	asked := known.Key != "" // by fetch, who found nothing
	if op, copies := st.Op.(*plan.Copy); copies && len(op.Paths) > 0 {
		known.Plain = string(plain)
		if asked {
			return known, nil
		}
		if seen, err := b.seen(ctx, s, op, plain); !seen || err != nil {
			return known, err
		}
		content, err := b.contentIn(ctx, op, b.env(s))
		if err != nil {
			return known, err
		}
		key, err := k.key(facts, nil, content)
		if err != nil {
			return known, err
		}
		known.Key = string(key)
	} else {
		known.Key = string(plain)
	}
	if asked || known.Key == "" || b.skipsCache(s.Stage) || again {
		return known, nil
	}
	known.Cached, err = b.findLate(ctx, known.Key)
	return known, err
}

// copiesStage says that a step is known by the content that it takes of a stage.
func copiesStage(op plan.Op) bool {
	return copiesFiles(op) && op.(*plan.Copy).From.Kind == plan.FromStage
}

// seen says whether there may be a result for what a copy takes. If not, what that is
// need not be known before the copy: it is found on the way.
func (b *build) seen(ctx context.Context, s *stage, op *plan.Copy, plain stepKey) (bool, error) {
	switch {
	case op.From.Kind == plan.FromStage:
		return true, nil // whatever was built anew may be the same
	case plain == "" || b.skipsCache(s.Stage):
		return false, nil
	}
	c, err := b.cache.Find(ctx, string(plain))
	return c.Hint, err
}

// grow adds the layers that the cache had to the tree of a stage.
func (b *build) grow(ctx context.Context, s *stage) error {
	for _, w := range s.cached {
		dirs, err := b.cachedDirs(ctx, s, w)
		if err != nil {
			return &StepError{Step: w.step, Err: fmt.Errorf("layer cache: %w", err)}
		}
		s.tree = b.space.Tree(append(s.tree.Lowers(), dirs...)...)
	}
	s.cached = nil
	return nil
}

// cachedDirs are the lower directories of a cached layer.
func (b *build) cachedDirs(ctx context.Context, s *stage, w *work) ([]string, error) {
	below := s.tree.Lowers()
	if n := slices.Index(b.layers, w.cached.LayerKey()); n >= 0 && w.cached.Image {
		return layer.Lowers(ctx, string(request.LayerPath(n)), below, b.space.Mkdir, b.tools.Nodes)
	}
	if w.cached.Digest == "" {
		return nil, fmt.Errorf("layer %s is not mounted", w.cached.DiffID)
	}
	dir, err := b.space.Mkdir()
	if err != nil {
		return nil, err
	}
	r, _, err := b.store.Open(w.layer.Digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	diffID, err := layer.Unpack(ctx, r, dir, layer.UnpackOptions{Lowers: below, Nodes: b.tools.Nodes})
	if err == nil && diffID != w.layer.DiffID {
		err = fmt.Errorf("layer %s unpacks to %s, and not to what the cache says: %w", w.layer.Digest, diffID, errMismatch)
	}
	return []string{dir}, err
}

// skipsCache says that a stage must not come from the layer cache, nor what stands on
// it.
func (p *player) skipsCache(s *plan.Stage) bool {
	named := func(name string) bool { return strings.EqualFold(name, s.Name) }
	return p.req.NoCache || slices.ContainsFunc(p.req.NoCacheFilter, named) || s.Base.Stage != nil && p.skipsCache(s.Base.Stage)
}
