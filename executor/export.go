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
func Export(ctx context.Context, req *request.Build, st *store.Store, images *registry.Client, out Outlet, steps *Steps) error {
	desc, err := st.Tagged(finalTag)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if req.Layout {
		err := steps.do("export OCI layout", func(*announced) error {
			return exportLayout(ctx, tagged(desc, req.Destinations), st, images, out)
		})
		if err != nil {
			return fmt.Errorf("export OCI layout: %w", err)
		}
	}
	if req.Tar {
		err := steps.do("export tar", func(*announced) error {
			return exportTar(ctx, req, desc, st, images, out)
		})
		if err != nil {
			return fmt.Errorf("export tar: %w", err)
		}
	}
	return nil
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

func exportLayout(ctx context.Context, desc v1.Descriptor, st *store.Store, images *registry.Client, out Outlet) error {
	raw, err := st.Read(desc.Digest)
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
		r, size, err := images.Blob(ctx, st, d.Digest)
		if err != nil {
			return err
		}
		err = send(out, request.Output{Kind: request.OutputBlob, Digest: d.Digest.String(), Size: size}, r)
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
	return send(out, request.Output{Kind: request.OutputIndex, Size: int64(len(index))}, bytes.NewReader(index))
}

func exportTar(ctx context.Context, req *request.Build, desc v1.Descriptor, st *store.Store, images *registry.Client, out Outlet) error {
	w, err := out.Open(request.Output{Kind: request.OutputTar})
	if err != nil {
		return err
	}
	if err := images.WriteTar(ctx, st, desc, req.Destinations, w); err != nil {
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
