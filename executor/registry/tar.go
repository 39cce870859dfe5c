package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// loadEntry is an image in manifest.json, as docker load reads it.
type loadEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Opener opens a blob, wherever it can be had; its size is in bytes.
type Opener func(ctx context.Context, h v1.Hash) (io.ReadCloser, int64, error)

// Opener opens blobs as Blob does.
func (c *Client) Opener(st *store.Store) Opener {
	return func(ctx context.Context, h v1.Hash) (io.ReadCloser, int64, error) { return c.Blob(ctx, st, h) }
}

// WriteTar writes the image with that manifest as a tar that docker load takes:
// manifest.json, and the blobs as they are, in the places of an OCI image
// layout, which the tar is too, as docker save and BuildKit write it. refs are
// the names that it is loaded under; they may be none. The bytes depend on the
// image and the names only.
func WriteTar(ctx context.Context, open Opener, manifest v1.Descriptor, refs []string, w io.Writer) error {
	raw, err := readAll(ctx, open, manifest.Digest)
	if err != nil {
		return fmt.Errorf("write tar: manifest: %w", err)
	}
	m, err := parseImage(raw)
	if err != nil {
		return fmt.Errorf("write tar: %w", err)
	}
	names, err := normal(refs)
	if err != nil {
		return fmt.Errorf("write tar: %w", err)
	}
	t := &tarWriter{w: tar.NewWriter(w), open: open}
	load := loadEntry{Config: blobPath(m.Config.Digest), RepoTags: []string{}, Layers: []string{}}
	for _, n := range names {
		load.RepoTags = append(load.RepoTags, reference.FamiliarString(n))
	}
	for _, l := range m.Layers {
		load.Layers = append(load.Layers, blobPath(l.Digest))
	}
	t.json("oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"})
	t.json("index.json", layoutIndex(manifest, names))
	t.json("manifest.json", []loadEntry{load})
	t.file(blobPath(manifest.Digest), int64(len(raw)), bytes.NewReader(raw))
	for _, d := range distinct(append([]v1.Descriptor{m.Config}, m.Layers...)) {
		t.blob(ctx, d)
	}
	if t.err == nil {
		t.err = t.w.Close()
	}
	if t.err != nil {
		return fmt.Errorf("write tar: %w", t.err)
	}
	return nil
}

// readAll reads a manifest.
func readAll(ctx context.Context, open Opener, h v1.Hash) ([]byte, error) {
	r, n, err := open(ctx, h)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if n > store.MaxMetadata {
		return nil, fmt.Errorf("%s: %d bytes are too many for a manifest", h, n)
	}
	return io.ReadAll(r)
}

func blobPath(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// normal reads names as Docker does.
func normal(refs []string) ([]reference.NamedTagged, error) {
	var out []reference.NamedTagged
	for _, ref := range refs {
		tag, err := destination(ref)
		if err != nil {
			return nil, err
		}
		n, err := reference.ParseNormalizedNamed(tag.Name())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", clean(ref), err)
		}
		nt, ok := n.(reference.NamedTagged)
		if !ok {
			return nil, fmt.Errorf("%s has no tag", clean(ref))
		}
		out = append(out, nt)
	}
	return out, nil
}

// layoutIndex has one entry for each name, as BuildKit's.
func layoutIndex(d v1.Descriptor, names []reference.NamedTagged) v1.IndexManifest {
	d.Annotations = nil
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, n := range names {
		named := d
		named.Annotations = map[string]string{
			"io.containerd.image.name":          n.String(),
			"org.opencontainers.image.ref.name": n.Tag(),
		}
		index.Manifests = append(index.Manifests, named)
	}
	if len(names) == 0 {
		index.Manifests = []v1.Descriptor{d}
	}
	return index
}

// tarWriter writes files until the first error, which it keeps.
type tarWriter struct {
	w    *tar.Writer
	open Opener
	dirs map[string]bool
	err  error
}

func (t *tarWriter) json(path string, v any) {
	b, err := json.Marshal(v)
	if err != nil && t.err == nil {
		t.err = err
	}
	t.file(path, int64(len(b)), bytes.NewReader(b))
}

func (t *tarWriter) blob(ctx context.Context, d v1.Descriptor) {
	if t.err != nil {
		return
	}
	r, size, err := t.open(ctx, d.Digest)
	if err != nil {
		t.err = err
		return
	}
	defer r.Close()
	if size != d.Size {
		t.err = fmt.Errorf("blob %s has %d bytes, the manifest says %d", d.Digest, size, d.Size)
		return
	}
	t.file(blobPath(d.Digest), size, r)
}

func (t *tarWriter) file(path string, size int64, r io.Reader) {
	for i := range path {
		if path[i] == '/' {
			t.dir(path[:i+1])
		}
	}
	t.header(&tar.Header{Typeflag: tar.TypeReg, Name: path, Size: size, Mode: 0o444})
	if t.err == nil {
		_, t.err = io.CopyBuffer(onlyWriter{t.w}, r, make([]byte, copySize))
	}
}

func (t *tarWriter) dir(path string) {
	if t.dirs[path] {
		return
	}
	if t.dirs == nil {
		t.dirs = map[string]bool{}
	}
	t.dirs[path] = true
	t.header(&tar.Header{Typeflag: tar.TypeDir, Name: path, Mode: 0o755})
}

func (t *tarWriter) header(h *tar.Header) {
	if t.err != nil {
		return
	}
	h.ModTime = time.Unix(0, 0)
	if strings.HasSuffix(h.Name, ".json") {
		h.Mode = 0o644
	}
	t.err = t.w.WriteHeader(h)
}

// onlyWriter hides ReadFrom, so that the copy uses large buffers.
type onlyWriter struct{ io.Writer }
