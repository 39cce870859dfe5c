package cache

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Finder finds results of steps in places. It is safe for concurrent use: one is looked
// for at a time.
type Finder struct {
	images *registry.Client
	warn   func(text string)

	mu     sync.Mutex
	places []*place
	found  map[string]Found // by key; also what is not there
}

// Found is a result, and the image that it is.
type Found struct {
	Step   request.CachedStep // zero: there is none
	Place  string             // what people call it
	Image  *registry.Image
	Layout *registry.Layout // where the image lies; nil: in a registry
}

// place is one place.
type place struct {
	request.CachePlace
	layout *registry.Layout
	index  map[string]v1.Descriptor // nil: not read yet
	closed bool                     // it is not asked again
}

// NewFinder asks places in their order. warn is told why one is not asked any more.
func NewFinder(places []request.CachePlace, images *registry.Client, warn func(text string)) *Finder {
	f := &Finder{images: images, warn: warn, found: map[string]Found{}}
	for _, p := range places {
		f.places = append(f.places, &place{CachePlace: p})
	}
	return f
}

// Find returns the first result that a place has under a key. The answer is the same for
// the life of the finder.
func (f *Finder) Find(ctx context.Context, key string) (Found, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known, ok := f.found[key]; ok {
		return known, nil
	}
	for _, p := range f.places {
		if p.closed {
			continue
		}
		img, err := f.ask(ctx, p, key)
		var step request.CachedStep
		if err == nil && img != nil {
			step, err = Read(key, img)
		}
		switch {
		case ctx.Err() != nil:
			return Found{}, context.Cause(ctx)
		case err != nil:
			p.closed = true
			f.warn(fmt.Sprintf("cache %s is not used: %v", p.Name(), err))
		case img != nil:
			f.found[key] = Found{step, p.Name(), img, p.layout}
			return f.found[key], nil
		}
	}
	f.found[key] = Found{}
	return Found{}, nil
}

// Has says whether a step is one that Find has found. It may be called of nil.
func (f *Finder) Has(step request.CachedStep) bool {
	return f != nil && step.Found() && step.Pulled && f.Of(step).Image != nil
}

// Of returns what Find has found as a step.
func (f *Finder) Of(step request.CachedStep) Found {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, known := range f.found {
		if known.Step.Digest == step.Digest && known.Step.DiffID == step.DiffID {
			return known
		}
	}
	return Found{}
}

// Drop forgets a result that is not there after all.
func (f *Finder) Drop(img *registry.Image) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, known := range f.found {
		if known.Image == img {
			f.found[key] = Found{}
		}
	}
}

// platform is what results are for: the steps run here.
var platform = v1.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}

// patience is how long a place may take to answer. It is there to save time.
const patience = 30 * time.Second

// ask asks one place for the image of a key; nil: it has none.
func (f *Finder) ask(ctx context.Context, p *place, key string) (*registry.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if p.Repository != "" {
		return present(f.images.Resolve(ctx, p.Repository+":"+Tag(key), platform))
	}
	if p.index == nil {
		if err := f.read(ctx, p); err != nil {
			return nil, err
		}
	}
	d, ok := p.index[key]
	switch {
	case !ok:
		return nil, nil
	case p.layout != nil:
		return p.layout.Resolve(d.Digest.String(), platform)
	}
	repo, err := registry.RepositoryOf(p.Reference)
	if err != nil {
		return nil, err
	}
	return f.images.Resolve(ctx, repo+"@"+d.Digest.String(), platform)
}

// present takes the answer of a registry; one that says that there is no such image
// has said all that there is to know.
func present[T any](answer T, err error) (none T, _ error) {
	if registry.IsAbsent(err) {
		return none, nil
	}
	return answer, err
}

// read reads the index of a place. One that is not there is empty.
func (f *Finder) read(ctx context.Context, p *place) (err error) {
	var raw []byte
	if p.Layout != "" {
		if p.layout, err = registry.OpenLayout(string(p.Layout)); err == nil {
			raw, err = p.layout.Index()
		}
	} else {
		raw, err = f.images.Index(ctx, p.Reference)
	}
	p.index = map[string]v1.Descriptor{}
	if raw, err = present(raw, err); raw == nil || err != nil {
		return err
	}
	list, err := ReadIndex(raw)
	for _, e := range list {
		p.index[e.Key] = e.Manifest
	}
	return err
}
