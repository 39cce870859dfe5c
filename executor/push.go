package executor

import (
	"context"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// check asks each destination's registry whether a push would be allowed,
// before any work is done for it.
func (p *player) check(ctx context.Context) error {
	if p.req.NoPush || p.req.SkipPushCheck || len(p.req.Destinations) == 0 {
		return nil
	}
	return p.steps.do("check push permission", func(*announced) error {
		for _, dest := range p.req.Destinations {
			if err := p.tools.Images.CheckPush(ctx, dest); err != nil {
				return err
			}
		}
		return nil
	})
}

// push pushes an image of st to every destination, in their order.
func (p *player) push(ctx context.Context, st *store.Store, image v1.Descriptor) error {
	for i, dest := range p.req.Destinations {
		full := p.result.Names[i]
		kept, err := p.pushAs(ctx, st, image, dest, full)
		if err != nil {
			return err
		}
		if !kept {
			p.result.Pushed = append(p.result.Pushed, full)
		}
	}
	return nil
}

// pushAs pushes a manifest to one destination. kept says that a tag which cannot be
// changed was there, and that the request wants nothing else then.
func (p *player) pushAs(ctx context.Context, st *store.Store, desc v1.Descriptor, dest, full string) (kept bool, err error) {
	err = p.steps.do("push "+full, func(a *announced) error {
		err := p.tools.Images.Push(ctx, st, desc, dest, a.progress)
		if kept = p.req.SkipImmutable && registry.IsImmutable(err); kept {
			return nil
		}
		return err
	})
	if kept {
		p.steps.Warn(full+" is there already and its registry keeps it from being changed: it stays as it is", 0)
	}
	return kept, err
}

// attach pushes what each repository of the destinations gets beside the image.
func (p *player) attach(ctx context.Context, st *store.Store, list []request.Attached) error {
	repositories, err := p.repositories()
	if err != nil {
		return err
	}
	p.steps.expect(len(repositories)*len(list) + len(p.req.Destinations))
	for _, repo := range repositories {
		for _, a := range list {
			desc, err := described(a.Descriptor)
			if err != nil {
				return err
			}
			to := repo + ":" + a.Tag
			if _, err := p.pushAs(ctx, st, desc, to, to); err != nil {
				return err
			}
		}
	}
	return nil
}

// repositories are those of the destinations, each once.
func (p *player) repositories() (list []string, err error) {
	for _, full := range p.result.Names {
		tag, err := name.NewTag(full, name.WeakValidation)
		if err != nil {
			return nil, err
		}
		if repo := tag.Context().Name(); !slices.Contains(list, repo) {
			list = append(list, repo)
		}
	}
	return list, nil
}

// described is a descriptor in the form of the registry's library.
func described(d request.Descriptor) (v1.Descriptor, error) {
	h, err := v1.NewHash(d.Digest)
	return v1.Descriptor{MediaType: types.MediaType(d.MediaType), Size: d.Size, Digest: h}, err
}

// descriptor is one in the form that crosses the wall.
func descriptor(d v1.Descriptor) request.Descriptor {
	return request.Descriptor{MediaType: string(d.MediaType), Digest: d.Digest.String(), Size: d.Size}
}
