package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// export hands out an image in the forms that the request asks for, and tells of
// it in the result. open finds its blobs.
func (p *player) export(ctx context.Context, image v1.Descriptor, open registry.Opener) error {
	p.result.Digest, p.result.Size, p.result.Media = image.Digest.String(), image.Size, string(image.MediaType)
	e := exporter{open: open, out: p.tools.Outlet, desc: image, stored: p.req.Role == request.RoleBuild}
	if !image.MediaType.IsIndex() {
		var m v1.Manifest
		if err := e.read(ctx, image, &m); err != nil {
			return err
		}
		p.result.Config = m.Config.Digest.String()
	}
	for _, form := range []struct {
		wanted bool
		name   string
		export func() error
	}{
		{p.req.Layout, "export OCI layout", func() error { return e.layout(ctx, p.req) }},
		{p.req.Tar, "export tar", func() error { return e.tar(ctx, p.req.Destinations) }},
	} {
		if !form.wanted {
			continue
		}
		if err := p.steps.do(form.name, func(*announced) error { return form.export() }); err != nil {
			return fmt.Errorf("%s: %w", form.name, err)
		}
	}
	return p.layOutResults(ctx, e)
}

// exporter hands out one image, or one index of images.
type exporter struct {
	open registry.Opener
	out  request.Outlet
	desc v1.Descriptor
	name string // of the layout, see request.OutputKeep
	// stored: all blobs went to the launcher's store.
	stored bool
}

// tagged names the one entry of a layout as its first destination is tagged,
// else latest, so that tools which want a tag find it.
func tagged(desc v1.Descriptor, destinations []string, annotations map[string]string) v1.Descriptor {
	tag := "latest"
	if len(destinations) > 0 {
		if ref, err := name.NewTag(destinations[0]); err == nil {
			tag = ref.TagStr()
		}
	}
	desc.Platform = nil
	desc.Annotations = map[string]string{}
	maps.Copy(desc.Annotations, annotations)
	desc.Annotations["org.opencontainers.image.ref.name"] = tag
	return desc
}

// layout hands out the image, or the index with all its images, and what names
// it.
func (e exporter) layout(ctx context.Context, req *request.Build) error {
	images := []v1.Descriptor{e.desc}
	blobs := []v1.Descriptor{e.desc}
	if e.desc.MediaType.IsIndex() {
		var index v1.IndexManifest
		if err := e.read(ctx, e.desc, &index); err != nil {
			return err
		}
		images = index.Manifests
		blobs = append(blobs, images...)
	}
	if err := e.images(ctx, images, blobs); err != nil {
		return err
	}
	top := tagged(e.desc, req.Destinations, topAnnotations(req))
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{top},
	})
	if err != nil {
		return err
	}
	return e.index(index)
}

// images hands out all blobs of images, and further ones.
func (e exporter) images(ctx context.Context, images, blobs []v1.Descriptor) error {
	for _, d := range images {
		var m v1.Manifest
		if err := e.read(ctx, d, &m); err != nil {
			return err
		}
		blobs = append(append(blobs, m.Config), m.Layers...)
	}
	seen := map[v1.Hash]bool{}
	for _, d := range blobs {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		if err := e.blob(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// index hands out index.json.
func (e exporter) index(raw []byte) error {
	return send(e.out, request.Output{Kind: request.OutputIndex, Name: e.name, Size: int64(len(raw))}, bytes.NewReader(raw))
}

// read reads a manifest or an index.
func (e exporter) read(ctx context.Context, d v1.Descriptor, v any) error {
	r, size, err := e.open(ctx, d.Digest)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	defer r.Close()
	if size > store.MaxMetadata {
		return fmt.Errorf("manifest %s: it has %d bytes", d.Digest, size)
	}
	if err := json.NewDecoder(r).Decode(v); err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	return nil
}

func (e exporter) blob(ctx context.Context, d v1.Descriptor) error {
	if e.stored {
		return e.out.Keep(request.Output{Kind: request.OutputKeep, Digest: d.Digest.String(), Name: e.name})
	}
	r, size, err := e.open(ctx, d.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	return send(e.out, request.Output{Kind: request.OutputBlob, Name: e.name, Digest: d.Digest.String(), Size: size}, r)
}

func (e exporter) tar(ctx context.Context, names []string) error {
	w, err := e.out.Open(request.Output{Kind: request.OutputTar})
	if err != nil {
		return err
	}
	defer w.Close()
	if err := registry.WriteTar(ctx, e.open, e.desc, names, w); err != nil {
		return err
	}
	return w.Commit("")
}

// send hands out all that r has.
func send(out request.Outlet, what request.Output, r io.Reader) error {
	w, err := out.Open(what)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	return w.Commit("")
}
