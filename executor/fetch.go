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

// Fetch makes the plans and pulls what they need into from's store: manifests
// and configs of all base images, layers of those whose files are used. Of the
// other layers the store remembers where they can be had.
func Fetch(ctx context.Context, req *request.Build, in *Inputs, from *fromRegistry) error {
	plans, err := makePlans(ctx, req, in, from)
	tellRemarks(plans, from.steps)
	if err != nil {
		return err
	}
	tellUnused(req, plans, from.steps)
	if err := checkSources(plans, in.Context, from.steps); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(pulls)
	begun := map[v1.Hash]bool{}
	for _, s := range onImages(plans) {
		img := from.found[s.Base.Image.Digest]
		for _, l := range img.Layers {
			if from.isElsewhere(img) {
				if err := from.store.Remember(l.Digest, img.Repository); err != nil {
					return err
				}
				if !s.NeedsFiles {
					continue
				}
			}
			if begun[l.Digest] {
				continue
			}
			begun[l.Digest] = true
			g.Go(func() error { return from.pull(ctx, img, l) })
		}
	}
	return g.Wait()
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

func (r *fromRegistry) pull(ctx context.Context, img *registry.Image, l v1.Descriptor) error {
	if r.store.Has(l.Digest) {
		return nil
	}
	return r.steps.do(fmt.Sprintf("pull %s %s", img.Ref, l.Digest), func(a *announced) error {
		progress := func(done int64) { a.progress(done, l.Size) }
		if in, ok := r.origin[img.Digest]; ok {
			return in.Pull(ctx, l, r.store, progress)
		}
		return r.images.Pull(ctx, img, l, r.store, progress)
	})
}

// Check asks each destination's registry whether a push would be allowed,
// before any work is done for it.
func Check(ctx context.Context, req *request.Build, images *registry.Client, steps *Steps) error {
	if req.NoPush || req.SkipPushCheck || len(req.Destinations) == 0 {
		return nil
	}
	return steps.do("check push permission", func(*announced) error {
		for _, dest := range req.Destinations {
			if err := images.CheckPush(ctx, dest); err != nil {
				return err
			}
		}
		return nil
	})
}

// Push pushes what was built to every destination, in their order, and
// returns their full names.
func Push(ctx context.Context, req *request.Build, st *store.Store, images *registry.Client, steps *Steps) ([]string, error) {
	desc, err := st.Tagged(finalTag)
	if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	var pushed []string
	for _, dest := range req.Destinations {
		full, err := registry.FullName(dest)
		if err != nil {
			return pushed, err
		}
		kept := false
		err = steps.do("push "+full, func(a *announced) error {
			err := images.Push(ctx, st, desc, dest, a.progress)
			if kept = req.SkipImmutable && registry.IsImmutable(err); kept {
				return nil
			}
			return err
		})
		if err != nil {
			return pushed, err
		}
		if kept {
			steps.Warn(full+" is there already and its registry keeps it from being changed: it stays as it is", 0)
			continue
		}
		pushed = append(pushed, full)
	}
	return pushed, nil
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
