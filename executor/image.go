package executor

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/layer"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
)

// format is the family of media types of an image.
type format string

const (
	formatDocker format = "docker"
	formatOCI    format = "oci"
)

// format is what the image will be: as asked for, else OCI for zstd, else as
// the base, else OCI.
func (b *build) format() format {
	switch {
	case b.req.Format != "":
		return format(b.req.Format)
	case b.req.Compression.Algorithm == "zstd":
		return formatOCI
	}
	if base := b.baseImage(); base != nil {
		if strings.HasPrefix(string(manifestType(base.Manifest)), "application/vnd.docker.") {
			return formatDocker
		}
	}
	return formatOCI
}

// baseImage is the image under the target, or nil for scratch.
func (b *build) baseImage() *plan.Resolved {
	s := b.plan.Target
	for s.Base.Stage != nil {
		s = s.Base.Stage
	}
	return s.Base.Image
}

// assemble writes config and manifest of the target and names the result.
func (b *build) assemble() (v1.Descriptor, error) {
	desc, err := b.manifest()
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("assemble image: %w", err)
	}
	return desc, b.store.Tag(finalTag, desc)
}

func (b *build) manifest() (v1.Descriptor, error) {
	layers, diffs, err := b.layers()
	if err != nil {
		return v1.Descriptor{}, err
	}
	config, err := b.config(diffs)
	if err != nil {
		return v1.Descriptor{}, err
	}
	f := b.format()
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	configType := types.OCIConfigJSON
	if f == formatDocker {
		m.MediaType, configType = types.DockerManifestSchema2, types.DockerConfigJSON
	}
	for _, l := range layers {
		l.MediaType = layerType(l.MediaType, f)
		m.Layers = append(m.Layers, l)
	}
	h, err := b.store.Put(config)
	if err != nil {
		return v1.Descriptor{}, err
	}
	m.Config = v1.Descriptor{MediaType: configType, Digest: h, Size: int64(len(config))}
	raw, err := json.Marshal(m)
	if err != nil {
		return v1.Descriptor{}, err
	}
	h, err = b.store.Put(raw)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: m.MediaType, Digest: h, Size: int64(len(raw))}, nil
}

// layers lists the layers of the target from the bottom: those of the base,
// then those of the stages. A layer whose content is already there is named by
// the blob that is there.
func (b *build) layers() (layers []v1.Descriptor, diffs []v1.Hash, err error) {
	if base := b.baseImage(); base != nil {
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
	for i, d := range diffs {
		known[d] = layers[i]
	}
	for _, blob := range b.chain(b.plan.Target) {
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
func (b *build) chain(s *plan.Stage) []layer.Blob {
	var below []layer.Blob
	if s.Base.Stage != nil {
		below = b.chain(s.Base.Stage)
	}
	return append(below, b.stages[s.ID].layers...)
}

func (b *build) config(diffs []v1.Hash) ([]byte, error) {
	img := *b.plan.Target.Image
	now := time.Now().UTC()
	if b.plan.Created != nil {
		now = *b.plan.Created
	}
	img.Created = &now
	img.History = slices.Clone(img.History)
	for i := range img.History {
		if img.History[i].Created == nil {
			img.History[i].Created = &now
		}
	}
	img.RootFS = plan.RootFS{Type: "layers", DiffIDs: diffs}
	if diffs == nil {
		img.RootFS.DiffIDs = []v1.Hash{}
	}
	return json.Marshal(img)
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
