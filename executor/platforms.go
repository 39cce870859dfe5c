package executor

import (
	"context"
	"runtime"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// here is the platform that steps run on.
func here() v1.Platform { return v1.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH} }

// platformOf is what the i-th image is for.
func platformOf(req *request.Build, i int) v1.Platform {
	if i < len(req.Platforms) {
		if p, err := v1.ParsePlatform(req.Platforms[i]); err == nil { // seen to by options
			return *p
		}
	}
	return here()
}

// makePlans plans the Dockerfile for each platform of the request, in order. With
// an error the plans have the remarks up to there, and nothing else is in the last.
func makePlans(ctx context.Context, req *request.Build, in *Inputs, images plan.Resolver) ([]*plan.Plan, error) {
	if req.Index && req.Tar {
		return nil, dockerfile.Errorf(request.ClassUnsupported, nil, "a docker-save tar holds one image, not an image index")
	}
	images = &remembered{images: images, known: map[string]*plan.Resolved{}}
	file, err := dockerfile.Parse(req.DockerfileName, in.Dockerfile)
	if err != nil {
		return nil, err
	}
	var plans []*plan.Plan
	for n := range max(len(req.Platforms), 1) {
		one := *req
		one.Platforms = req.Platforms[min(n, len(req.Platforms)):]
		opt, err := options(&one)
		if err != nil {
			return nil, err
		}
		opt.Several = req.Index
		in.planWith(&opt)
		p, err := plan.Make(ctx, file, opt, images)
		if p != nil {
			plans = append(plans, p)
		}
		if err != nil {
			return plans, err
		}
	}
	return plans, nil
}

// options are those for the first platform of the request.
func options(req *request.Build) (plan.Options, error) {
	opt := plan.Options{
		Target: req.Target, Args: req.Args, Labels: req.Labels, Created: req.Created, Allow: req.Allow, Network: req.Run.Network, BuildPlatform: here(),
	}
	for _, name := range req.Platforms[:min(1, len(req.Platforms))] {
		p, err := v1.ParsePlatform(name)
		if err != nil {
			return opt, dockerfile.Errorf(request.ClassResolve, nil, "platform %q: %v", name, err)
		}
		opt.Platform = *p
	}
	return opt, nil
}

// remembered is a Resolver that asks for each image of a platform once, however
// many plans want it.
type remembered struct {
	images plan.Resolver
	mu     sync.Mutex
	known  map[string]*plan.Resolved
}

// Resolve implements plan.Resolver.
func (r *remembered) Resolve(ctx context.Context, ref string, p v1.Platform) (*plan.Resolved, error) {
	key := p.String() + " " + ref
	r.mu.Lock()
	img := r.known[key]
	r.mu.Unlock()
	if img != nil {
		return img, nil
	}
	img, err := r.images.Resolve(ctx, ref, p)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known[key] = img
	return img, nil
}
