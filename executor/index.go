package executor

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// chooseFormat is what the images will be: as asked for, else OCI for zstd and
// for what only OCI has, else as their bases are if all are of one kind, else
// OCI.
func chooseFormat(req *request.Build, plans []*plan.Plan) format {
	docker := func(p *plan.Plan) bool {
		base := baseImage(p)
		return base != nil && strings.HasPrefix(string(manifestType(base.Manifest)), "application/vnd.docker.")
	}
	switch {
	case req.Format != "":
		return format(req.Format)
	case req.Compression.Algorithm == "zstd", len(req.Annotations) > 0:
		return formatOCI
	case !slices.ContainsFunc(plans, func(p *plan.Plan) bool { return !docker(p) }):
		return formatDocker
	}
	return formatOCI
}

// assemble writes the images' manifests, and the index if one is wanted, and
// names the result.
func (b *build) assemble() (v1.Descriptor, error) {
	index := v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex,
		Annotations: annotated(b.req, request.OnIndex, v1.Platform{}),
	}
	if b.format == formatDocker {
		index.MediaType = types.DockerManifestList
	}
	for _, img := range b.images {
		desc, err := img.manifest()
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("assemble image: %w", err)
		}
		b.result.Images = append(b.result.Images, img.described(desc))
		if !b.req.Index {
			return desc, nil
		}
		desc.Platform = &img.platform
		desc.Annotations = annotated(b.req, request.OnManifestDescriptor, img.platform)
		index.Manifests = append(index.Manifests, desc)
	}
	desc, err := b.put(index, index.MediaType)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("assemble image index: %w", err)
	}
	return desc, nil
}

// put stores a manifest or an index.
func (b *build) put(manifest any, media types.MediaType) (v1.Descriptor, error) {
	raw, err := json.Marshal(manifest)
	if err != nil {
		return v1.Descriptor{}, err
	}
	h, err := b.store.Put(raw)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: media, Digest: h, Size: int64(len(raw))}, nil
}

// annotated are the annotations that the request has for a level; nil: none. A
// platform bounds those of a manifest and of its descriptor.
func annotated(req *request.Build, level request.AnnotationLevel, p v1.Platform) map[string]string {
	var all map[string]string
	// One for a platform wins over one for all.
	for _, bounded := range []bool{false, true} {
		for _, a := range req.Annotations {
			if a.Level != level || (a.Platform != "") != bounded || bounded && a.Platform != p.String() {
				continue
			}
			if all == nil {
				all = map[string]string{}
			}
			all[a.Key] = a.Value
		}
	}
	return all
}

// topAnnotations are those of the descriptor that names the result.
func topAnnotations(req *request.Build) map[string]string {
	if req.Index {
		return annotated(req, request.OnIndexDescriptor, v1.Platform{})
	}
	return annotated(req, request.OnManifestDescriptor, platformOf(req, 0))
}
