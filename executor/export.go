package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

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
		{req.Layout, "export OCI layout", func() error { return e.layout(ctx, req.Destinations) }},
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

// exporter hands out one image.
type exporter struct {
	store  *store.Store
	images *registry.Client
	out    Outlet
	desc   v1.Descriptor
}

// tagged names the one image of a layout as its first destination is tagged,
// else latest, so that tools which want a tag find it.
func tagged(desc v1.Descriptor, destinations []string) v1.Descriptor {
	tag := "latest"
	if len(destinations) > 0 {
		if ref, err := name.NewTag(destinations[0]); err == nil {
			tag = ref.TagStr()
		}
	}
	desc.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag}
	return desc
}

func (e exporter) layout(ctx context.Context, destinations []string) error {
	desc := tagged(e.desc, destinations)
	raw, err := e.store.Read(desc.Digest)
	if err != nil {
		return err
	}
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	seen := map[v1.Hash]bool{}
	for _, d := range append(append([]v1.Descriptor{m.Config}, m.Layers...), desc) {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		r, size, err := e.images.Blob(ctx, e.store, d.Digest)
		if err != nil {
			return err
		}
		err = send(e.out, request.Output{Kind: request.OutputBlob, Digest: d.Digest.String(), Size: size}, r)
		r.Close()
		if err != nil {
			return err
		}
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{desc},
	})
	if err != nil {
		return err
	}
	return send(e.out, request.Output{Kind: request.OutputIndex, Size: int64(len(index))}, bytes.NewReader(index))
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
