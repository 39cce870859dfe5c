package executor

import (
	"context"
	"encoding/hex"
	"slices"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// LayerCache keeps what steps have made, by their keys.
type LayerCache interface {
	// Find returns what is known under a key. What it names stays until the build
	// has ended.
	Find(ctx context.Context, key string) (request.CachedStep, error)
}

// lookup finds what the layer cache has of the steps of plans, before any is done.
type lookup struct {
	cache LayerCache
	skips func(*plan.Stage) bool
	// content is the digest of what a copy takes, if its source is there already.
	content func(ctx context.Context, op *plan.Copy) (string, error)
	ends    map[*plan.Stage]stepKey
	shipped map[*plan.Stage]bool
	again   map[*plan.Stage]bool // steps of it are done
	steps   []request.KnownStep
}

// lookUp returns what is known of the steps of all plans, in their order.
func (p *player) lookUp(ctx context.Context, plans []*plan.Plan) ([]request.KnownStep, error) {
	if p.chooseCache(plans); p.tools.Steps == nil {
		return nil, nil
	}
	l := &lookup{cache: p.tools.Steps, skips: p.skipsCache, content: p.contentOf, ends: map[*plan.Stage]stepKey{}, shipped: map[*plan.Stage]bool{}, again: map[*plan.Stage]bool{}}
	for _, pl := range plans {
		for s := pl.Target; s != nil; s = s.Base.Stage {
			l.shipped[s] = true
		}
		k := newKeyer(p.req, pl)
		for _, s := range pl.Stages {
			if err := l.stage(ctx, k, s); err != nil {
				return nil, err
			}
		}
	}
	return l.steps, nil
}

// contentOf is the digest of what a copy takes from a context.
func (p *player) contentOf(ctx context.Context, op *plan.Copy) (string, error) {
	sum, err := step.Digest(ctx, op, step.Env{Space: p.space, Context: p.in.Context, Named: p.in.Named})
	return hex.EncodeToString(sum[:]), err
}

func (l *lookup) stage(ctx context.Context, k keyer, s *plan.Stage) error {
	below, err := k.base(s, l.ends[s.Base.Stage])
	if err != nil {
		return err
	}
	// What stands on a step that is done again was made on another result of it.
	again := l.skips(s) || s.Base.Stage != nil && l.again[s.Base.Stage]
	for _, st := range s.Steps {
		known, end, err := l.step(ctx, k, below, st.Op)
		if err != nil {
			return err
		}
		if again = again || !usable(known.Cached, l.shipped[s]); again {
			known.Cached = request.CachedStep{}
		}
		l.steps = append(l.steps, known)
		below = end
	}
	l.ends[s], l.again[s] = below, again
	return nil
}

// step finds one step and returns the key that those on top stand on.
func (l *lookup) step(ctx context.Context, k keyer, below stepKey, op plan.Op) (known request.KnownStep, end stepKey, err error) {
	facts, sources, ok := k.plain(below, op)
	if !ok {
		return known, "", nil
	}
	var reads []stepKey
	for _, s := range sources {
		if l.again[s] {
			return known, "", nil // what it makes now may be something else
		}
		reads = append(reads, l.ends[s])
	}
	key, err := k.key(facts, reads, "")
	if err != nil || key == "" {
		return known, "", err
	}
	known.Key = string(key)
	if known.Cached, err = l.cache.Find(ctx, known.Key); err != nil {
		return known, "", err
	}
	if c, ok := op.(*plan.Copy); ok && len(c.Paths) > 0 {
		if err := l.copied(ctx, k, facts, c, &known); err != nil {
			return known, "", err
		}
	}
	end, err = k.on(below, facts, stepKey(known.Key))
	return known, end, err
}

// copied goes from the key without content to that with it: where the cache has
// nothing for any content, nothing is read.
func (l *lookup) copied(ctx context.Context, k keyer, facts stepFacts, op *plan.Copy, known *request.KnownStep) error {
	known.Plain, known.Key = known.Key, known.Cached.Key
	if op.From.Kind == plan.FromStage || !known.Cached.Hint {
		return nil
	}
	content, err := l.content(ctx, op)
	if err != nil {
		return err
	}
	key, err := k.key(facts, nil, content)
	if err != nil {
		return err
	}
	known.Key = string(key)
	known.Cached, err = l.cache.Find(ctx, known.Key)
	return err
}

// mostCached is how many steps of a build may be cached: fetch tells of them in one
// frame.
const mostCached = 1000

// chooseCache leaves out the layer cache where its results cannot be used yet: steps
// that several platforms share may be part of one image and not of another, and a cache
// mount that starts as a stage is known by what the stage's steps have changed.
func (p *player) chooseCache(plans []*plan.Plan) {
	n := 0
	for _, pl := range plans {
		for _, s := range pl.Stages {
			n += len(s.Steps)
			for _, st := range s.Steps {
				if r, ok := st.Op.(*plan.Run); ok && slices.ContainsFunc(r.Mounts, startsAsStage) {
					p.tools.Steps = nil
				}
			}
		}
	}
	if len(plans) > 1 || n > mostCached {
		p.tools.Steps = nil
	}
}

func startsAsStage(m plan.Mount) bool { return m.Type == "cache" && m.From.Kind == plan.FromStage }
