package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// fromRegistry resolves images by asking registries, or the OCI layouts among
// the named contexts, and writes what it learns into the store, where fromStore
// finds it.
type fromRegistry struct {
	images  *registry.Client
	layouts layouts
	store   *store.Store
	steps   *Steps

	mu    sync.Mutex
	found map[v1.Hash]*registry.Image
	// origin has the layouts of those images that are from one.
	origin map[v1.Hash]*registry.Layout
}

func newFromRegistry(in *Inputs, images *registry.Client, st *store.Store, steps *Steps) *fromRegistry {
	return &fromRegistry{
		images: images, layouts: in.Layouts, store: st, steps: steps,
		found: map[v1.Hash]*registry.Image{}, origin: map[v1.Hash]*registry.Layout{},
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
	r.mu.Lock()
	r.found[img.Digest] = img
	if local {
		r.origin[img.Digest] = in.Layout
	}
	r.mu.Unlock()
	return &plan.Resolved{Ref: ref, Digest: img.Digest, Config: img.Config, Manifest: img.Manifest}, nil
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

// isElsewhere says whether an image's layers can still be had when the build
// has ended, by whoever wants them: from a registry. Those of a layout cannot.
func (r *fromRegistry) isElsewhere(img *registry.Image) bool { return r.origin[img.Digest] == nil }

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

// finalTag is the name of the image that was built.
const finalTag = "image"
