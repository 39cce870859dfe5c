package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// fromRegistry resolves images by asking registries, or the OCI layouts among
// the named contexts, and writes what it learns into the store, where fromStore
// finds it.
type fromRegistry struct {
	req     *request.Build
	images  *registry.Client
	layouts layouts
	store   *store.Store
	steps   *Steps
	layers  *layerImages // nil: none are made

	mu    sync.Mutex
	found map[v1.Hash]*registry.Image
	// origin has the layouts of those images that are from one.
	origin map[v1.Hash]*registry.Layout
	// known are the materials that answers are.
	known map[*plan.Resolved]request.Material
}

func newFromRegistry(p *player, st *store.Store) *fromRegistry {
	return &fromRegistry{
		req: p.req, images: p.tools.Images, layouts: p.in.Layouts, store: st, steps: p.steps,
		found: map[v1.Hash]*registry.Image{}, origin: map[v1.Hash]*registry.Layout{},
		known: map[*plan.Resolved]request.Material{},
	}
}

// Resolve implements plan.Resolver.
func (r *fromRegistry) Resolve(ctx context.Context, ref string, p v1.Platform) (*plan.Resolved, error) {
	var img *registry.Image
	in, local := r.layouts[ref]
	what := "resolve " + ref
	if p.String() != here().String() {
		what += " for " + p.String()
	}
	err := r.steps.do(what, func(*announced) error {
		var err error
		if local {
			if img, err = in.Resolve(in.ref, p); err == nil {
				img.Ref = ref // its tag alone means nothing to those who read it
			}
		} else {
			img, err = r.images.Resolve(ctx, ref, p)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := r.keep(ref, p, img); err != nil {
		return nil, fmt.Errorf("resolve %s: %w", ref, err)
	}
	resolved := &plan.Resolved{Ref: ref, Digest: img.Digest, Config: img.Config, Manifest: img.Manifest}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found[img.Digest] = img
	if local {
		r.origin[img.Digest] = in.Layout
	}
	r.known[resolved] = request.Material{
		Kind: request.MaterialImage, URI: ref, Platform: p.String(), Digest: img.Root.String(),
	}
	return resolved, nil
}

func (r *fromRegistry) keep(ref string, p v1.Platform, img *registry.Image) error {
	if _, err := r.store.Put(img.Config); err != nil {
		return err
	}
	h, err := r.store.Put(img.Manifest)
	if err != nil {
		return err
	}
	desc := v1.Descriptor{Digest: h, Size: int64(len(img.Manifest)), MediaType: manifestType(img.Manifest)}
	return r.store.Tag(tagOf(ref, p), desc)
}

// elsewhere says where an image's layers can be had by whoever wants them when
// the build has ended, and whether those that no step needs may stay there. Those
// of an OCI layout cannot be had. Where push has a sandbox of its own it has no
// credential for other registries than the destinations', and build has none.
func (r *fromRegistry) elsewhere(img *registry.Image) (source string, stays bool) {
	switch {
	case r.origin[img.Digest] != nil:
		return "", false
	case r.req.Role == "":
		return img.Repository, true
	case r.req.Tar, r.req.Layout:
		return img.Repository, false
	case r.req.NoPush:
		return img.Repository, true
	}
	for _, dest := range r.req.Destinations {
		if !r.images.Beside(img, dest) {
			return img.Repository, false
		}
	}
	return img.From, true
}

// fromStore resolves images from what fromRegistry left in the store.
type fromStore struct{ store *store.Store }

// Resolve implements plan.Resolver.
func (r fromStore) Resolve(_ context.Context, ref string, p v1.Platform) (*plan.Resolved, error) {
	desc, err := r.store.Tagged(tagOf(ref, p))
	if err != nil {
		return nil, fmt.Errorf("image %s was not fetched: %w", ref, err)
	}
	manifest, err := r.store.Read(desc.Digest)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	var m v1.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, fmt.Errorf("image %s: manifest: %w", ref, err)
	}
	config, err := r.store.Read(m.Config.Digest)
	if err != nil {
		return nil, fmt.Errorf("image %s: config: %w", ref, err)
	}
	return &plan.Resolved{Ref: ref, Digest: desc.Digest, Config: config, Manifest: manifest}, nil
}

// tagOf is the name under which a resolved image stands in the store.
func tagOf(ref string, p v1.Platform) string { return "base " + ref + " " + p.String() }
