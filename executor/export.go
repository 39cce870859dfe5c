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

// Outlet takes what the executor hands out. One output is open at a time; the
// output is complete when Close returns nil.
type Outlet interface {
	Open(request.Output) (io.WriteCloser, error)
}

// Export hands out the built image in the forms that the request asks for.
func Export(ctx context.Context, req *request.Build, st *store.Store, tools Tools, steps *Steps) error {
	desc, err := st.Tagged(finalTag)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	e := exporter{store: st, images: tools.Images, out: tools.Outlet, desc: desc}
	for _, form := range []struct {
		wanted bool
		name   string
		export func() error
	}{
		{req.Layout, "export OCI layout", func() error { return e.layout(ctx, req) }},
		{req.Tar, "export tar", func() error { return e.tar(ctx, req.Destinations) }},
	} {
		if !form.wanted {
			continue
		}
		if err := steps.do(form.name, func(*announced) error { return form.export() }); err != nil {
			return fmt.Errorf("%s: %w", form.name, err)
		}
	}
	return nil
}

// exporter hands out one image, or one index of images.
type exporter struct {
	store  *store.Store
	images *registry.Client
	out    Outlet
	desc   v1.Descriptor
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
		if err := e.read(e.desc, &index); err != nil {
			return err
		}
		images = index.Manifests
		blobs = append(blobs, images...)
	}
	for _, d := range images {
		var m v1.Manifest
		if err := e.read(d, &m); err != nil {
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
	top := tagged(e.desc, req.Destinations, topAnnotations(req))
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{top},
	})
	if err != nil {
		return err
	}
	return send(e.out, request.Output{Kind: request.OutputIndex, Size: int64(len(index))}, bytes.NewReader(index))
}

// read reads a manifest or an index.
func (e exporter) read(d v1.Descriptor, v any) error {
	raw, err := e.store.Read(d.Digest)
	if err == nil {
		err = json.Unmarshal(raw, v)
	}
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	return nil
}

func (e exporter) blob(ctx context.Context, d v1.Descriptor) error {
	r, size, err := e.images.Blob(ctx, e.store, d.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	return send(e.out, request.Output{Kind: request.OutputBlob, Digest: d.Digest.String(), Size: size}, r)
}

func (e exporter) tar(ctx context.Context, names []string) error {
	w, err := e.out.Open(request.Output{Kind: request.OutputTar})
	if err != nil {
		return err
	}
	if err := e.images.WriteTar(ctx, e.store, e.desc, names, w); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}

func send(out Outlet, what request.Output, r io.Reader) error {
	w, err := out.Open(what)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}
