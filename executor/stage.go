package executor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/layer"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// stage is a plan.Stage at work.
type stage struct {
	*plan.Stage
	image *image
	keys  stageKeys
	known []request.KnownStep // of the steps; nil: there is no layer cache
	need
	// done is closed when tree is complete.
	done chan struct{}
	tree *rootfs.Tree
	base []string // what tree began with
	// cached are layers on top of tree that nobody has needed yet.
	cached []*work
	work   []*work // one for each step, after one for the files of a named context
	// again: a step of it was done, or of a stage that it stands on, and the result may
	// be another one than before. strayed: it is another one than was expected. borrowed:
	// end is made of a key that a place of the request has given for a copy, whose content
	// nobody has read; it may be any key.
	again, strayed, borrowed bool
	// end is the key that steps on top of this stage stand on; valid after done.
	end stepKey
}

// run brings one stage to its end.
func (b *build) run(ctx context.Context, s *stage) error {
	if s.shipped || s.files { // else what others need of it is known
		if err := b.runSteps(ctx, s); err != nil {
			return err
		}
	}
	close(s.done)
	return nil
}

func (b *build) runSteps(ctx context.Context, s *stage) error {
	if s.Base.Stage != nil {
		if err := s.await(ctx, s.Base.Stage); err != nil {
			return err
		}
	}
	if err := b.begin(ctx, s); err != nil {
		return err
	}
	for i, st := range s.Steps {
		if err := s.await(ctx, plan.Sources(st.Op)...); err != nil {
			return err
		}
		w := b.ledger.find(s.keys[i+1])
		if w == nil {
			var err error
			if w, err = b.obtain(ctx, s, i); err != nil {
				return err
			}
			b.ledger.enter(s.keys[i+1], w)
		}
		s.add(w)
		if w.cached == nil && (b.packs(w.step.Op, s.shipped) || b.keeper != nil && w.key != "") {
			w.packing.Do(func() { b.pack(ctx, w, s) })
		}
	}
	if s.read {
		return b.grow(ctx, s)
	}
	return nil
}

// await waits for stages that the next step stands on or reads.
func (s *stage) await(ctx context.Context, others ...*plan.Stage) error {
	for _, o := range others {
		select {
		case <-s.image.stages[o.ID].done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// begin gives a stage what it stands on.
func (b *build) begin(ctx context.Context, s *stage) (err error) {
	if s.end, err = b.beginKey(s); err != nil {
		return err
	}
	if below := s.Base.Stage; below != nil {
		on := s.image.stages[below.ID]
		s.again, s.strayed, s.borrowed = on.again, on.strayed, on.borrowed
	}
	if s.files {
		if s.tree, err = b.base(ctx, s); err != nil {
			return err
		}
		s.base = s.tree.Lowers()
	}
	if s.Base.Named != "" {
		return b.named(ctx, s)
	}
	return nil
}

// add puts the work of the next step on top of a stage.
func (s *stage) add(w *work) {
	s.work, s.end = append(s.work, w), w.end
	s.again = s.again || w.cached == nil && (w.key == "" || !copiesFiles(w.step.Op))
	if s.strayed {
		s.end = ""
	}
	s.borrowed = s.borrowed || w.lent
	switch {
	case w.tree != nil:
		s.tree, s.cached = w.tree.Fork(), nil
	case s.files:
		s.cached = append(s.cached, w)
	}
}

// step does one step on top of the stage's tree.
func (b *build) step(ctx context.Context, s *stage, st *plan.Step) (*work, error) {
	if err := b.grow(ctx, s); err != nil {
		return nil, err
	}
	if err := b.jobs.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer b.jobs.Release(1)
	var tail tail
	w := &work{step: st, lowers: s.tree.Lowers()}
	err := b.steps.do(st.Name, func(a *announced) error {
		env := b.env(s)
		if b.cache != nil {
			env.Took = func(sum [sha256.Size]byte) { w.took = hex.EncodeToString(sum[:]) }
		}
		env.Output = func(stream int, data []byte) {
			tail.add(data)
			a.output(stream, data)
		}
		var err error
		w.upper, err = step.Do(ctx, st.Op, s.tree, env)
		return err
	})
	if err != nil {
		return nil, &StepError{Step: st, Log: tail.bytes(), Err: err}
	}
	w.tree, w.ended = s.tree.Fork(), time.Now().UTC()
	return w, nil
}

// env is what the steps of a stage work with.
func (b *build) env(s *stage) step.Env {
	return step.Env{
		Space: b.space, Context: b.in.Context, Named: b.in.Named,
		Download: b.download(), Nodes: b.tools.Nodes, Secret: b.secret, Agent: b.agent, Checkout: b.checkout,
		OpenCache: b.caches.opener(s.image),
		Stage:     func(id plan.StageID) *rootfs.Tree { return s.image.stages[id].tree },
		Run:       b.req.Run,
		Timeout:   b.req.Limits.StepTimeout,
		Tasks:     b.tasks,
	}
}

// pack leaves the upper directory of a step to a packer: it becomes a layer of the
// image, or of the layer cache, or both.
func (b *build) pack(ctx context.Context, w *work, s *stage) {
	b.unpacked.Add(1)
	b.packers.Go(func() error {
		defer b.unpacked.Add(-1)
		if err := b.packing.Acquire(ctx, 1); err != nil {
			return err
		}
		defer b.packing.Release(1)
		defer b.steps.span("pack " + w.step.Name)()
		opt := layer.PackOptions{
			Compression: b.req.Compression, Media: string(b.format), Lowers: w.lowers, ClampTo: s.image.clamp(),
		}
		if err := b.packed(ctx, w, b.packs(w.step.Op, s.shipped), opt); err != nil {
			return &StepError{Step: w.step, Err: fmt.Errorf("make the layer: %w", err)}
		}
		if s.shipped {
			return b.ahead(w.layer)
		}
		return nil
	})
}

// base gives a stage the tree that it starts from.
func (b *build) base(ctx context.Context, s *stage) (*rootfs.Tree, error) {
	switch {
	case s.Base.Stage != nil:
		return s.image.stages[s.Base.Stage.ID].tree.Fork(), nil
	case s.Base.Image != nil:
		defer b.steps.span("base " + s.Base.Image.Ref)()
		lowers, err := b.bases.get(ctx, b, s.Base.Image)
		if err != nil {
			return nil, err
		}
		return b.space.Tree(lowers...), nil
	}
	return b.space.Tree(), nil
}

// bases unpacks each base image once, layer by layer; images that share their
// first layers share those directories.
type bases struct {
	mu   sync.Mutex
	done map[string][]string // chain of layer digests -> lower directories of the last
}

func (u *bases) get(ctx context.Context, b *build, img *plan.Resolved) ([]string, error) {
	m, err := manifestOf(img)
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.done == nil {
		u.done = map[string][]string{}
	}
	diffs, err := diffIDs(img)
	if err != nil {
		return nil, err
	}
	var lowers []string
	chain := ""
	for i, l := range m.Layers {
		chain += l.Digest.Hex
		dirs, ok := u.done[chain]
		if !ok {
			if dirs, err = b.mounted(ctx, diffs, i, l, lowers); err == nil && dirs == nil {
				dirs, err = b.unpackBase(ctx, img, m, i, lowers)
			}
			if err != nil {
				return nil, err
			}
			u.done[chain] = dirs
		}
		lowers = append(lowers, dirs...)
	}
	return lowers, nil
}

// mounted returns the lower directories of a base layer whose image is mounted,
// or none.
func (b *build) mounted(ctx context.Context, diffs []v1.Hash, i int, l v1.Descriptor, lowers []string) ([]string, error) {
	if i >= len(diffs) {
		return nil, nil
	}
	n := slices.Index(b.layers, layerID{diffs[i], l.Digest}.key())
	if n < 0 {
		return nil, nil
	}
	return layer.Lowers(ctx, string(request.LayerPath(n)), lowers, b.space.Mkdir, b.tools.Nodes)
}

// unpackBase unpacks the i-th layer of a base image.
func (b *build) unpackBase(ctx context.Context, img *plan.Resolved, m *v1.Manifest, i int, lowers []string) (dirs []string, err error) {
	name := fmt.Sprintf("unpack %s layer %d/%d", img.Ref, i+1, len(m.Layers))
	err = b.steps.do(name, func(*announced) error {
		dir, err := b.unpack(ctx, img, i, m.Layers[i], lowers)
		dirs = []string{dir}
		return err
	})
	return dirs, err
}

// unpack makes the lower directory of one base layer and checks what came out
// against the image's config.
func (b *build) unpack(ctx context.Context, img *plan.Resolved, i int, l v1.Descriptor, lowers []string) (string, error) {
	dir, err := b.space.Mkdir()
	if err != nil {
		return "", err
	}
	r, _, err := b.store.Open(l.Digest)
	if err != nil {
		return "", err
	}
	defer r.Close()
	diffID, err := layer.Unpack(ctx, r, dir, layer.UnpackOptions{Lowers: lowers, Nodes: b.tools.Nodes})
	if err != nil {
		return "", fmt.Errorf("image %s: layer %s: %w", img.Ref, l.Digest, err)
	}
	want, err := diffIDs(img)
	if err != nil {
		return "", err
	}
	if i >= len(want) || want[i] != diffID {
		return "", fmt.Errorf("image %s: layer %s unpacks to %s, which its config does not name: %w",
			img.Ref, l.Digest, diffID, errMismatch)
	}
	return dir, nil
}

var errMismatch = errors.New("digest mismatch")
