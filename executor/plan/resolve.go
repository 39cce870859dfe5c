package plan

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// maxResolving is how many images are asked for at once.
const maxResolving = 8

// imageKey names an image of one platform.
type imageKey struct{ ref, platform string }

// answer is what the resolver said.
type answer struct {
	image *Resolved
	err   error
}

// resolve finds the base images of the stages that are needed. The references
// of the others are only looked at: a wrong one is an error all the same.
func (m *maker) resolve(ctx context.Context, needed map[*draft]bool) error {
	m.placeImages(needed)
	keys := map[*draft]imageKey{}
	var group errgroup.Group
	group.SetLimit(maxResolving)
	for _, d := range m.stages {
		if d.base != nil || d.Image != nil {
			continue
		}
		if d.isScratch() {
			d.platform, d.Image = m.target, scratchImage(m.target)
			continue
		}
		key, err := m.imageKey(d)
		if err != nil {
			return dockerfile.Errorf(request.ClassResolve, d.at, "failed to parse stage name %q: %w", d.baseName, err)
		}
		if !needed[d] {
			continue
		}
		key, more := m.standIn(d, key)
		if !more {
			continue
		}
		keys[d] = key
		if m.resolved[key] == nil {
			a := &answer{}
			m.resolved[key] = a
			p := fromOCI(d.platform)
			group.Go(func() error {
				a.image, a.err = m.images.Resolve(ctx, key.ref, p)
				return nil
			})
		}
	}
	// Every answer is waited for, so that of several errors always the same
	// one, the first in the Dockerfile, is reported.
	_ = group.Wait()
	for _, d := range m.stages {
		if key, ok := keys[d]; ok {
			if err := m.settle(d, m.resolved[key]); err != nil {
				return err
			}
		}
	}
	return nil
}

// placeImages sets where an image that --from names is named first: by a stage
// that is needed, if there is one.
func (m *maker) placeImages(needed map[*draft]bool) {
	placed := map[*draft]bool{}
	for _, d := range m.stages {
		if !needed[d] {
			continue
		}
		for src, c := range d.reads {
			if src.isImage && !placed[src] {
				placed[src], src.at = true, c.Location()
			}
		}
	}
}

// imageKey normalizes a stage's base and sets the stage's platform.
func (m *maker) imageKey(d *draft) (imageKey, error) {
	ref, err := reference.ParseNormalizedNamed(d.baseName)
	if err != nil {
		return imageKey{}, err
	}
	d.platform = m.target
	if d.flag != nil {
		d.platform = *d.flag
	}
	return imageKey{reference.TagNameOnly(ref).String(), platforms.FormatAll(d.platform)}, nil
}

// settle gives a stage the image that was found for it.
func (m *maker) settle(d *draft, a *answer) error {
	if a.err == nil && a.image == nil {
		a.err = errors.New("the resolver found nothing and no error")
	}
	if a.err != nil {
		return m.resolveError(d, a.err)
	}
	img, err := decodeImage(a.image)
	if err != nil {
		return dockerfile.Errorf(request.ClassResolve, d.at, "%s: %w", d.baseName, err)
	}
	d.Base.Image, d.Image = a.image, img
	is := ocispec.Platform{OS: img.OS, Architecture: img.Architecture, Variant: img.Variant, OSVersion: img.OSVersion}
	switch {
	case d.named == nil:
		m.checks.basePlatform(d, is)
	case d.replaced && is.OS != "" && is.Architecture != "":
		d.platform = is
	}
	return nil
}

// resolveError puts the image's name and place to an error of the resolver.
func (m *maker) resolveError(d *draft, err error) error {
	var known *dockerfile.Error
	if errors.As(err, &known) {
		return dockerfile.At(err, request.ClassResolve, d.at)
	}
	if d.named != nil {
		return dockerfile.Errorf(request.ClassResolve, d.at, "context %s: %w", d.named.Name, err)
	}
	e := dockerfile.Errorf(request.ClassResolve, d.at, "%s: %w", d.baseName, err)
	if hit := similar(d.baseName, append(m.names(), commonImages[:]...)); hit != "" {
		e.Msg += fmt.Sprintf(" (did you mean %s?)", hit)
	}
	return e
}

// commonImages are names that a misspelt one is likely to mean.
var commonImages = [...]string{"alpine", "busybox", "centos", "debian", "fedora", "golang", "node", "python", "ubuntu"}
