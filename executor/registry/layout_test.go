package registry_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
)

// newLayout is a layout with images by tag: one, multi (of two platforms), and
// one without a tag if bare is set.
func newLayout(t *testing.T, images map[string]v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for tag, img := range images {
		var opts []layout.Option
		if tag != "" {
			opts = append(opts, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag}))
		}
		if err := p.AppendImage(img, opts...); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLayoutResolve(t *testing.T) {
	amd, arm := randomImage(t, 1000, 2), platformed(t, randomImage(t, 1000, 1), arm64)
	digest := func(img v1.Image) string {
		t.Helper()
		h, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return h.String()
	}
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: amd, Descriptor: v1.Descriptor{Platform: &amd64}},
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &arm64}})
	multi := newLayout(t, nil)
	p, err := layout.FromPath(multi)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendIndex(index); err != nil {
		t.Fatal(err)
	}
	two := newLayout(t, map[string]v1.Image{"v1": amd, "latest": arm})
	for _, tt := range []struct {
		name, dir, ref string
		platform       v1.Platform
		want           string // digest, or part of the error
	}{
		{"tag", two, "v1", amd64, digest(amd)},
		{"latest", two, "", amd64, digest(arm)},
		{"digest", two, digest(amd), amd64, digest(amd)},
		{"no such tag", two, "v2", amd64, "no image is tagged v2; there are 2, with the tags: latest, v1"},
		{"the only one", newLayout(t, map[string]v1.Image{"": amd}), "", amd64, digest(amd)},
		{"the only one has another name", newLayout(t, map[string]v1.Image{"x": amd}), "", amd64, digest(amd)},
		{"but not for a tag", newLayout(t, map[string]v1.Image{"x": amd}), "y", amd64, "no image is tagged y"},
		{"empty", newLayout(t, nil), "", amd64, "no image is tagged latest; there are 0"},
		{"index, one platform", multi, "", amd64, digest(amd)},
		{"index, another platform", multi, "", arm64, digest(arm)},
		{"digest within an index", multi, digest(arm), amd64, digest(arm)},
		{"index without the platform", multi, "", v1.Platform{OS: "linux", Architecture: "s390x"}, "no match for platform linux/s390x"},
		{"no such digest", two, "sha256:" + strings.Repeat("0", 64), amd64, "no such file"},
		{"no digest", two, "sha256:../../x", amd64, "malformed digest"},
		{"another algorithm", two, "sha512:" + strings.Repeat("0", 128), amd64, "not supported"},
	} {
		l, err := registry.OpenLayout(tt.dir)
		if err != nil {
			t.Fatal(tt.name, err)
		}
		img, err := l.Resolve(tt.ref, tt.platform)
		switch {
		case err != nil && !strings.Contains(err.Error(), tt.want), err == nil && img.Digest.String() != tt.want:
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		case err != nil && strings.HasPrefix(tt.want, "sha256"):
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestLayoutPull(t *testing.T) {
	img := randomImage(t, 100_000, 2)
	dir := newLayout(t, map[string]v1.Image{"": img})
	l, err := registry.OpenLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	found, err := l.Resolve("", amd64)
	if err != nil {
		t.Fatal(err)
	}
	st := newStore(t)
	var seen int64
	for range 2 { // the second time it is there
		for _, d := range found.Layers {
			if err := l.Pull(t.Context(), d, st, func(done int64) { seen = done }); err != nil {
				t.Fatal(err)
			}
			if !st.Has(d.Digest) || seen != d.Size {
				t.Errorf("%s: %d bytes of %d", d.Digest, seen, d.Size)
			}
		}
	}
}

// What is not what it says it is, and what is not in the layout, is not used.
func TestLayoutHostile(t *testing.T) {
	blob := func(dir string, h v1.Hash) string { return filepath.Join(dir, "blobs", "sha256", h.Hex) }
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string, manifest v1.Hash, m *v1.Manifest) error
		want   string
	}{
		{"layer changed", func(_ *testing.T, dir string, _ v1.Hash, m *v1.Manifest) error {
			return flip(blob(dir, m.Layers[0].Digest))
		}, "digest mismatch"},
		{"layer longer", func(_ *testing.T, dir string, _ v1.Hash, m *v1.Manifest) error {
			return os.Truncate(blob(dir, m.Layers[0].Digest), m.Layers[0].Size+1)
		}, "wrong size"},
		{"layer gone", func(_ *testing.T, dir string, _ v1.Hash, m *v1.Manifest) error {
			return os.Remove(blob(dir, m.Layers[0].Digest))
		}, "no such file"},
		{"layer is a link", func(_ *testing.T, dir string, _ v1.Hash, m *v1.Manifest) error {
			p := blob(dir, m.Layers[0].Digest)
			if err := os.Rename(p, dir+"/x"); err != nil {
				return err
			}
			return os.Symlink(dir+"/x", p)
		}, "too many levels"},
		{"layer is a pipe", func(_ *testing.T, dir string, _ v1.Hash, m *v1.Manifest) error {
			p := blob(dir, m.Layers[0].Digest)
			if err := os.Remove(p); err != nil {
				return err
			}
			return unix.Mkfifo(p, 0o644)
		}, "not a regular file"},
		{"blobs is a link", func(_ *testing.T, dir string, _ v1.Hash, _ *v1.Manifest) error {
			if err := os.Rename(dir+"/blobs", dir+"/x"); err != nil {
				return err
			}
			return os.Symlink("x", dir+"/blobs")
		}, "too many levels"},
		{"config changed", func(_ *testing.T, dir string, _ v1.Hash, m *v1.Manifest) error {
			return flip(blob(dir, m.Config.Digest))
		}, "digest mismatch"},
		{"manifest changed", func(_ *testing.T, dir string, h v1.Hash, _ *v1.Manifest) error {
			return flip(blob(dir, h))
		}, "digest mismatch"},
		{"manifest is huge", func(_ *testing.T, dir string, h v1.Hash, _ *v1.Manifest) error {
			return os.Truncate(blob(dir, h), 1<<30)
		}, "more than"},
		{"index is huge", func(_ *testing.T, dir string, _ v1.Hash, _ *v1.Manifest) error {
			return os.Truncate(dir+"/index.json", 1<<30)
		}, "more than"},
		{"index is a link", func(_ *testing.T, dir string, _ v1.Hash, _ *v1.Manifest) error {
			if err := os.Rename(dir+"/index.json", dir+"/x"); err != nil {
				return err
			}
			return os.Symlink("x", dir+"/index.json")
		}, "too many levels"},
		{"index is no JSON", func(_ *testing.T, dir string, _ v1.Hash, _ *v1.Manifest) error {
			return os.WriteFile(dir+"/index.json", []byte("["), 0o644)
		}, "malformed index.json"},
		{"digest leads out", func(_ *testing.T, dir string, _ v1.Hash, _ *v1.Manifest) error {
			return os.WriteFile(dir+"/index.json", []byte(`{"manifests":[{"digest":"sha256:../../../etc/passwd","size":1}]}`), 0o644)
		}, "malformed index.json"},
		{"size below zero", func(t *testing.T, dir string, h v1.Hash, _ *v1.Manifest) error {
			b, err := json.Marshal(v1.IndexManifest{Manifests: []v1.Descriptor{{Digest: h, Size: -1}}})
			if err != nil {
				t.Fatal(err)
			}
			return os.WriteFile(dir+"/index.json", b, 0o644)
		}, "a size of -1 bytes"},
		{"version", func(_ *testing.T, dir string, _ v1.Hash, _ *v1.Manifest) error {
			return os.WriteFile(dir+"/oci-layout", []byte(`{"imageLayoutVersion":"2.0.0"}`), 0o644)
		}, "version 2.0.0"},
	} {
		img := randomImage(t, 5000, 1)
		dir := newLayout(t, map[string]v1.Image{"": img})
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		h, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if err := tt.change(t, dir, h, m); err != nil {
			t.Fatal(tt.name, err)
		}
		if err := drain(t, dir); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func drain(t *testing.T, dir string) error {
	t.Helper()
	l, err := registry.OpenLayout(dir)
	if err != nil {
		return err
	}
	img, err := l.Resolve("", amd64)
	if err != nil {
		return err
	}
	st := newStore(t)
	for _, d := range img.Layers {
		if err := l.Pull(t.Context(), d, st, func(int64) {}); err != nil {
			if st.Has(d.Digest) {
				t.Error("a layer that is not what it should be is in the store")
			}
			return err
		}
	}
	return nil
}

// flip changes the last byte of a file.
func flip(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[len(b)-1] ^= 1
	return os.WriteFile(path, b, 0o644)
}
