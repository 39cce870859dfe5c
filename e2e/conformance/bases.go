package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// pushBases makes the base images, as OCI layouts below r.bases and in the
// registry: language/base and language/multi for the cases of this repository,
// conformance/... for those of the suite.
func (r *runner) pushBases(ctx context.Context) error {
	base, err := rig.Busybox(ctx)
	if err != nil {
		return err
	}
	multi, err := manyPlatforms(base)
	if err != nil {
		return err
	}
	alone := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: base})
	for repo, idx := range map[string]v1.ImageIndex{"language/base": alone, "language/multi": multi} {
		if err := os.MkdirAll(filepath.Join(r.bases, filepath.Dir(repo)), 0o755); err != nil {
			return err
		}
		if _, err := layout.Write(filepath.Join(r.bases, repo), idx); err != nil {
			return fmt.Errorf("write %s: %w", repo, err)
		}
	}
	ref, err := name.ParseReference(r.registry.Host+"/language/multi:1", name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.WriteIndex(ref, multi, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push language/multi: %w", err)
	}
	if err := r.registry.Push(ctx, base, "language/base:1"); err != nil || r.suite == "" {
		return err
	}
	cmd := exec.CommandContext(ctx, "python3", filepath.Join(r.suite, "bases.py"),
		"--busybox", "/bin/busybox", "--out", filepath.Join(r.bases, "conformance"), "--push", r.registry.Host)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("bases.py: %w: %s", err, out)
	}
	return nil
}

// manyPlatforms is an index of the base for linux/amd64 and of images for other
// platforms that hold one file: /arch names the platform in all of them.
func manyPlatforms(base v1.Image) (v1.ImageIndex, error) {
	idx := v1.ImageIndex(empty.Index)
	for _, p := range []v1.Platform{
		{OS: "linux", Architecture: "amd64"},
		{OS: "linux", Architecture: "arm64", Variant: "v8"},
		{OS: "linux", Architecture: "arm", Variant: "v7"},
	} {
		img := v1.Image(empty.Image)
		if p.Architecture == "amd64" {
			img = base
		}
		img, err := withFile(img, "arch", p.Architecture+"\n")
		if err != nil {
			return nil, err
		}
		file, err := img.ConfigFile()
		if err != nil {
			return nil, err
		}
		file = file.DeepCopy()
		file.OS, file.Architecture, file.Variant = p.OS, p.Architecture, p.Variant
		if img, err = mutate.ConfigFile(img, file); err != nil {
			return nil, err
		}
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	return idx, nil
}

// withFile is an image with one more layer that holds one file.
func withFile(img v1.Image, path, text string) (v1.Image, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o644, Size: int64(len(text))})
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(img, layer)
}
