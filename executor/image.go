package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// format is the family of media types of an image.
type format string

const (
	formatDocker format = "docker"
	formatOCI    format = "oci"
)

// image is the image of one platform on its way.
type image struct {
	*build
	plan *plan.Plan
	// platform is what it is built for.
	platform v1.Platform
	stages   map[plan.StageID]*stage
	// identities are those of stages, a *plan.Stage each, as far as asked for.
	identities sync.Map
}

// image prepares the i-th image.
func (b *build) image(p *plan.Plan, i int) (*image, error) {
	img := &image{build: b, plan: p, platform: platformOf(b.req, i), stages: map[plan.StageID]*stage{}}
	names, err := keys(p)
	if err != nil {
		return nil, err
	}
	needs := survey(p, b.known)
	for _, s := range p.Stages {
		img.stages[s.ID] = &stage{Stage: s, image: img, keys: names[s], known: b.known[s], need: needs[s], done: make(chan struct{})}
	}
	return img, nil
}

// run runs the stages and says whether all came to their end; what went wrong is
// told by the packers' group.
func (i *image) run(ctx context.Context) bool {
	var running sync.WaitGroup
	var failed atomic.Bool
	for _, s := range i.plan.Stages {
		running.Add(1)
		i.packers.Go(func() error {
			defer running.Done()
			err := i.build.run(ctx, i.stages[s.ID])
			if err != nil {
				failed.Store(true)
			}
			return err
		})
	}
	running.Wait()
	return !failed.Load()
}

// clamp is the latest time that a file of a new layer may have, or nil.
func (i *image) clamp() *time.Time {
	if !i.req.RewriteTimestamp {
		return nil
	}
	return i.plan.Created
}

// baseImage is the image under a plan's target, or nil for scratch.
func baseImage(p *plan.Plan) *plan.Resolved {
	s := p.Target
	for s.Base.Stage != nil {
		s = s.Base.Stage
	}
	return s.Base.Image
}

// manifest writes config and manifest of the target.
func (i *image) manifest() (v1.Descriptor, error) {
	layers, diffs, err := i.layers()
	if err != nil {
		return v1.Descriptor{}, err
	}
	config, err := i.config(diffs)
	if err != nil {
		return v1.Descriptor{}, err
	}
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{},
		Annotations: annotated(i.req, request.OnManifest, i.platform),
	}
	configType := types.OCIConfigJSON
	if i.format == formatDocker {
		m.MediaType, configType = types.DockerManifestSchema2, types.DockerConfigJSON
	}
	for _, l := range layers {
		l.MediaType = layerType(l.MediaType, i.format)
		m.Layers = append(m.Layers, l)
	}
	h, err := i.store.Put(config)
	if err != nil {
		return v1.Descriptor{}, err
	}
	m.Config = v1.Descriptor{MediaType: configType, Digest: h, Size: int64(len(config))}
	return i.put(m, m.MediaType)
}

// described is the image as the result has it.
func (i *image) described(d v1.Descriptor) request.Image {
	p := i.platform
	if target := i.plan.Target.Image; len(i.req.Platforms) == 0 && target.OS != "" && target.Architecture != "" {
		p = v1.Platform{OS: target.OS, Architecture: target.Architecture, Variant: target.Variant}
	}
	return request.Image{Descriptor: descriptor(d), Platform: p.String()}
}

// layers lists the layers of the target from the bottom: those of the base,
// then those of the stages. A layer whose content is already there is named by
// the blob that is there.
func (i *image) layers() (layers []v1.Descriptor, diffs []v1.Hash, err error) {
	if base := baseImage(i.plan); base != nil {
		m, err := manifestOf(base)
		if err != nil {
			return nil, nil, err
		}
		if diffs, err = diffIDs(base); err != nil {
			return nil, nil, err
		}
		if len(diffs) != len(m.Layers) {
			return nil, nil, fmt.Errorf("image %s: manifest has %d layers, config %d", base.Ref, len(m.Layers), len(diffs))
		}
		layers = m.Layers
	}
	known := map[v1.Hash]v1.Descriptor{}
	for n, d := range diffs {
		known[d] = layers[n]
	}
	for _, w := range i.chain(i.plan.Target) {
		blob := w.layer
		desc, ok := known[blob.DiffID]
		if !ok {
			desc = v1.Descriptor{MediaType: blob.MediaType, Digest: blob.Digest, Size: blob.Size}
			known[blob.DiffID] = desc
		}
		layers = append(layers, desc)
		diffs = append(diffs, blob.DiffID)
	}
	return layers, diffs, nil
}

// chain lists the layers that the stages under s and s itself made.
func (i *image) chain(s *plan.Stage) (below []*work) {
	if s.Base.Stage != nil {
		below = i.chain(s.Base.Stage)
	}
	return append(below, i.stages[s.ID].work...)
}

func (i *image) config(diffs []v1.Hash) ([]byte, error) {
	img := *i.plan.Target.Image
	img.History = slices.Clone(img.History)
	img.Created = i.dated(img.History)
	img.RootFS = plan.RootFS{Type: "layers", DiffIDs: diffs}
	if diffs == nil {
		img.RootFS.DiffIDs = []v1.Hash{}
	}
	return json.Marshal(img)
}

// dated gives the entries of a history their times, and returns that of the image:
// the time of its last layer. Entries that have no layer get that of the layer before
// them, those before the first new one its. So what comes from the layer cache has
// the same digest again (BuildKit's exporter/containerimage, normalizeLayersAndHistory).
func (i *image) dated(history []plan.History) *time.Time {
	created := i.plan.Created
	if created == nil {
		i.dateLayers(history)
		created = firstNew(history)
	}
	if created == nil {
		now := time.Now().UTC()
		created = &now
	}
	open := false
	for n := range history {
		if history[n].Created == nil {
			history[n].Created, open = created, true
		} else if open && i.plan.Created == nil {
			created = history[n].Created
		}
	}
	if n := len(history); n > 0 && i.plan.Created == nil {
		return history[n-1].Created
	}
	return created
}

// dateLayers gives the entries of the layers that were made here their times.
func (i *image) dateLayers(history []plan.History) {
	made := i.chain(i.plan.Target)
	for n := len(history) - 1; n >= 0 && len(made) > 0; n-- {
		if history[n].EmptyLayer {
			continue
		}
		w := made[len(made)-1]
		if made = made[:len(made)-1]; history[n].Created == nil && !w.ended.IsZero() {
			history[n].Created = &w.ended
		}
	}
}

// firstNew is the time of the first layer after an entry that has none, else of the
// last that has one.
func firstNew(history []plan.History) (created *time.Time) {
	open := false
	for _, h := range history {
		if h.Created == nil {
			open = true
			continue
		}
		if created = h.Created; open {
			break
		}
	}
	return created
}

// diffIDs are the uncompressed layers that an image's config names.
func diffIDs(img *plan.Resolved) ([]v1.Hash, error) {
	var c struct {
		RootFS plan.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(img.Config, &c); err != nil {
		return nil, fmt.Errorf("image %s: config: %w", img.Ref, err)
	}
	return c.RootFS.DiffIDs, nil
}

func manifestType(manifest []byte) types.MediaType {
	var m struct {
		MediaType types.MediaType `json:"mediaType"`
	}
	if json.Unmarshal(manifest, &m) != nil || m.MediaType == "" {
		return types.OCIManifestSchema1
	}
	return m.MediaType
}

// layerType is the media type of a layer in a family; one that has no
// counterpart stays.
func layerType(t types.MediaType, f format) types.MediaType {
	if f == formatDocker {
		switch t {
		case types.OCILayer:
			return types.DockerLayer
		case types.OCIUncompressedLayer:
			return types.DockerUncompressedLayer
		}
		return t
	}
	switch t {
	case types.DockerLayer:
		return types.OCILayer
	case types.DockerUncompressedLayer:
		return types.OCIUncompressedLayer
	}
	return t
}
