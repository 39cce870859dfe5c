package registry_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

func writeTar(t *testing.T, c *registry.Client, st *store.Store, d v1.Descriptor, refs ...string) (string, []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := registry.WriteTar(context.Background(), c.Opener(st), d, refs, &b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path, b.Bytes()
}

// TestTar has other tools read the tar: as what docker save writes, and as an
// OCI image layout.
func TestTar(t *testing.T) {
	c := newClient(t, registry.Config{})
	img := randomImage(t, 50_000, 2)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if img, err = mutate.AppendLayers(img, layers[0]); err != nil { // one of them twice
		t.Fatal(err)
	}
	docker := mutate.ConfigMediaType(mutate.MediaType(img, types.DockerManifestSchema2), types.DockerConfigJSON)
	for name, img := range map[string]v1.Image{"oci": img, "docker": docker} {
		t.Run(name, func(t *testing.T) {
			st := newStore(t)
			d := keep(t, st, img, true)
			path, first := writeTar(t, c, st, d, "team/app:1", "localhost:5000/x")
			if _, second := writeTar(t, c, st, d, "team/app:1", "localhost:5000/x"); !bytes.Equal(first, second) {
				t.Error("the tar is not the same the second time")
			}
			judgeTar(t, path, img)
		})
	}
}

func judgeTar(t *testing.T, path string, img v1.Image) {
	want, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"team/app:1", "localhost:5000/x:latest"} {
		ref, err := name.NewTag(tag)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tarball.ImageFromPath(path, &ref)
		if err != nil {
			t.Fatalf("%s: %v", tag, err)
		}
		if err := validate.Image(got); err != nil {
			t.Errorf("%s: %v", tag, err)
		}
		if h, err := got.ConfigName(); err != nil || h != want {
			t.Errorf("%s: config %s, want %s (%v)", tag, h, want, err)
		}
		out := run(t, "skopeo", "inspect", "--raw", "docker-archive:"+path+":"+tag)
		if !strings.Contains(out, want.String()) {
			t.Errorf("skopeo sees %s", out)
		}
	}
	dir := t.TempDir()
	run(t, "skopeo", "copy", "-q", "docker-archive:"+path+":team/app:1", "dir:"+filepath.Join(dir, "copy"))
	run(t, "tar", "-xf", path, "-C", dir)
	ix, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(ix); err != nil {
		t.Errorf("as a layout: %v", err)
	}
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}

// TestTarOfMissingLayers streams layers that were never pulled.
func TestTarOfMissingLayers(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	img := randomImage(t, 2<<20, 2)
	seed(t, r.Addr+"/base:1", img)
	front := registrytest.StartProxy(t, r.URL, nil, fault{Path: blobs, Truncate: 1 << 20, Times: 1}, fault{Path: blobs, Status: 500, Times: 1})
	c, st := newClient(t, registry.Config{}), newStore(t)
	d := keep(t, st, img, false)
	for _, l := range layersOf(t, img) {
		st.Remember(l.Digest, front.Addr+"/base")
	}
	path, _ := writeTar(t, c, st, d)
	got, err := tarball.ImageFromPath(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	run(t, "skopeo", "inspect", "docker-archive:"+path)

	for name, f := range map[string]fault{
		"digest mismatch": {Path: blobs, Corrupt: true},
		"not found":       {Path: blobs, Status: 404},
	} {
		front.Heal()
		front.Fail(f)
		err := registry.WriteTar(context.Background(), c.Opener(st), d, nil, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, _, err = c.Blob(context.Background(), newStore(t), d.Digest)
	if err == nil {
		t.Error("a blob from nowhere")
	}
}
