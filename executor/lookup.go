package executor

import (
	"context"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// LayerCache keeps what steps have made, by their keys.
type LayerCache interface {
	// Find returns what is known under a key. What it names stays until the build
	// has ended.
	Find(ctx context.Context, key string) (request.CachedStep, error)
}

// lookup finds what layer caches have of the steps of plans, before any is done.
type lookup struct {
	caches []LayerCache // that of the launcher, then the places
	skips  func(*plan.Stage) bool
	// content is the digest of what a copy takes, if its source is there already.
	content func(ctx context.Context, op *plan.Copy) (string, error)
	ends    map[*plan.Stage]stepKey
	shipped map[*plan.Stage]bool
	again   map[*plan.Stage]bool // steps of it are done
	steps   []request.KnownStep
}

// lookUp returns what is known of the steps of all plans, in their order.
func (p *player) lookUp(ctx context.Context, plans []*plan.Plan) ([]request.KnownStep, error) {
	if p.cache == nil {
		return nil, nil
	}
	l := &lookup{
		caches: []LayerCache{p.cache}, skips: p.skipsCache, content: p.contentOf,
		ends: map[*plan.Stage]stepKey{}, shipped: map[*plan.Stage]bool{}, again: map[*plan.Stage]bool{},
	}
	if p.places != nil {
		l.caches = append(l.caches, aged{beside{p.places}, p.req.CacheTTL})
	}
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

func (l *lookup) stage(ctx context.Context, k keyer, s *plan.Stage) error {
	below, err := k.base(s, l.ends[s.Base.Stage])
	if err != nil {
		return err
	}
	// What stands on a step that is done again was made on another result of it.
	again := l.skips(s) || s.Base.Stage != nil && l.again[s.Base.Stage]
	for _, st := range s.Steps {
		known, end, err := l.find(ctx, k, below, wantedStep{st.Op, l.shipped[s], again})
		if err != nil {
			return err
		}
		if again || !usable(known.Cached, l.shipped[s]) {
			known.Cached = request.CachedStep{}
			again = again || known.Key == "" || !copiesContext(st.Op)
		}
		l.steps = append(l.steps, known)
		below = end
	}
	l.ends[s], l.again[s] = below, again
	return nil
}

// copiesFiles says that a step is known by the content that it takes: whenever it is
// done, with one key, the result is the same.
func copiesFiles(op plan.Op) bool {
	c, ok := op.(*plan.Copy)
	return ok && len(c.Paths) > 0
}

// copiesContext says that what it takes is a context's: fetch can tell the content before
// the step is done.
func copiesContext(op plan.Op) bool {
	return copiesFiles(op) && op.(*plan.Copy).From.Kind != plan.FromStage
}

// wantedStep is a step that is looked for.
type wantedStep struct {
	op      plan.Op
	shipped bool // its layer is part of the image
	again   bool // it is done, whatever there is
}

// find asks the caches for one step until one has it, and returns the key that those on
// top stand on.
func (l *lookup) find(ctx context.Context, k keyer, below stepKey, want wantedStep) (known request.KnownStep, end stepKey, err error) {
	for i, c := range l.caches {
		if i > 0 && want.again {
			break // only the keys are of use
		}
		found, on, err := inquiry{l, k, c, i > 0}.step(ctx, below, want.op)
		if err != nil {
			return known, "", err
		}
		hit := usable(found.Cached, want.shipped)
		if hit || known.Key == "" {
			known, end = found, on
		}
		if hit {
			break
		}
	}
	return known, end, nil
}

// inquiry asks one cache.
type inquiry struct {
	*lookup
	keyer
	cache LayerCache
	// reads: what the cache has for some content of a context nobody knows before that
	// is read.
	reads bool
}

func (q inquiry) step(ctx context.Context, below stepKey, op plan.Op) (known request.KnownStep, end stepKey, err error) {
	facts, sources, ok := q.plain(below, op)
	if !ok {
		return known, "", nil
	}
	var reads []stepKey
	for _, s := range sources {
		if q.again[s] {
			return known, "", nil // what it makes now may be something else
		}
		reads = append(reads, q.ends[s])
	}
	key, err := q.key(facts, reads, "")
	if err != nil || key == "" {
		return known, "", err
	}
	known.Key = string(key)
	if q.reads && copiesContext(op) {
		known.Cached.Hint = true
	} else if known.Cached, err = q.cache.Find(ctx, known.Key); err != nil {
		return known, "", err
	}
	if c, ok := op.(*plan.Copy); ok && len(c.Paths) > 0 {
		if err := q.copied(ctx, facts, c, &known); err != nil {
			return known, "", err
		}
	}
	end, err = q.on(below, facts, stepKey(known.Key))
	return known, end, err
}

// copied goes from the key without content to that with it: where the cache has
// nothing for any content, nothing is read.
func (q inquiry) copied(ctx context.Context, facts stepFacts, op *plan.Copy, known *request.KnownStep) error {
	known.Plain, known.Key = known.Key, known.Cached.Key
	if op.From.Kind == plan.FromStage || !known.Cached.Hint {
		return nil
	}
	content, err := q.content(ctx, op)
	if err != nil {
		return err
	}
	key, err := q.key(facts, nil, content)
	if err != nil {
		return err
	}
	known.Key = string(key)
	known.Cached, err = q.cache.Find(ctx, known.Key)
	return err
}
