package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

func open(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPutAndRead(t *testing.T) {
	s := open(t, t.TempDir())
	data := []byte("hello")
	h, err := s.Put(data)
	if err != nil {
		t.Fatal(err)
	}
	want, _, _ := v1.SHA256(bytes.NewReader(data))
	if h != want || !s.Has(h) {
		t.Errorf("digest %s, want %s", h, want)
	}
	got, err := s.Read(h)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %q, %v", got, err)
	}
	missing, _ := v1.NewHash("sha256:" + string(bytes.Repeat([]byte("0"), 64)))
	if _, _, err := s.Open(missing); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("missing blob: %v", err)
	}
}

func TestReadIsBounded(t *testing.T) {
	s := open(t, t.TempDir())
	h, err := s.Put(make([]byte, store.MaxMetadata+1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(h); err == nil {
		t.Error("a large blob is read whole")
	}
}

// TestAbandonedBlob: what is not committed leaves nothing.
func TestAbandonedBlob(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	b, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	sum := b.Sum()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if s.Has(sum) {
		t.Error("the blob is there")
	}
	left, _ := filepath.Glob(filepath.Join(dir, "blobs", "new-*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestLayout has another library read the directory.
func TestLayout(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := img.RawManifest()
	config, _ := img.RawConfigFile()
	h, err := s.Put(raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(config); err != nil {
		t.Fatal(err)
	}
	layers, _ := img.Layers()
	for _, l := range layers {
		r, _ := l.Compressed()
		var b bytes.Buffer
		b.ReadFrom(r)
		if _, err := s.Put(b.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	mt, _ := img.MediaType()
	desc := v1.Descriptor{Digest: h, Size: int64(len(raw)), MediaType: mt}
	for range 2 { // the second replaces the first
		if err := s.Tag("image", desc); err != nil {
			t.Fatal(err)
		}
	}
	got, err := open(t, dir).Tagged("image")
	if err != nil || got.Digest != h {
		t.Errorf("tagged %v, %v", got, err)
	}
	if _, err := s.Tagged("other"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("another name: %v", err)
	}
	ix, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(ix); err != nil {
		t.Error(err)
	}
	if m, _ := ix.IndexManifest(); len(m.Manifests) != 1 {
		t.Errorf("%d entries", len(m.Manifests))
	}
}

// TestSourcesSurvive: a later role sees what an earlier one noted, also when
// many note at once.
func TestSourcesSurvive(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var wg sync.WaitGroup
	var hashes []v1.Hash
	for i := range 20 {
		h, _, _ := v1.SHA256(bytes.NewReader([]byte{byte(i)}))
		hashes = append(hashes, h)
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := s.Remember(h, "registry.test/base"); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	again := open(t, dir)
	for _, h := range hashes {
		if repo, ok := again.Source(h); !ok || repo != "registry.test/base" {
			t.Errorf("%s: %q", h, repo)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "sources.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(dir); err == nil {
		t.Error("a broken sources.json is taken")
	}
}
