package registry_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

var arm64 = v1.Platform{OS: "linux", Architecture: "arm64"}

// twoPlatforms is an index of images that have their layers in common.
func twoPlatforms(t *testing.T, st *store.Store) (v1.ImageIndex, v1.Descriptor) {
	t.Helper()
	image := randomImage(t, 100_000, 2)
	idx := mutate.IndexMediaType(v1.ImageIndex(empty.Index), types.OCIImageIndex)
	for _, p := range []v1.Platform{amd64, arm64} {
		img := platformed(t, image, p)
		keep(t, st, img, true)
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	raw, err := idx.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	h, err := st.Put(raw)
	if err != nil {
		t.Fatal(err)
	}
	return idx, v1.Descriptor{MediaType: types.OCIImageIndex, Digest: h, Size: int64(len(raw))}
}

// TestPushIndex pushes an index through faults: every blob once, then the
// images by their digests, then the index by its tag.
func TestPushIndex(t *testing.T) {
	for _, test := range []struct {
		name   string
		faults []fault
		want   []string // nil: it succeeds
	}{
		{"healthy", nil, nil},
		{"an image's manifest again", []fault{{Method: "PUT", Path: manifests + "sha256:", Status: 500, Times: 2}}, nil},
		{"the index again", []fault{{Method: "PUT", Path: manifests + "2", Reset: true, Times: 1}}, nil},
		{"the second image is refused", []fault{{Method: "PUT", Path: manifests + "sha256:", Skip: 1, Status: 400}}, []string{"push", "400"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := context.Background()
			back := registrytest.Start(t, registrytest.Options{})
			front := registrytest.StartProxy(t, back.URL, nil, test.faults...)
			st := newStore(t)
			_, desc := twoPlatforms(t, st)
			var done, total int64
			err := newClient(t, registry.Config{}).Push(ctx, st, desc, front.Addr+"/out/image:2", func(d, n int64) { done, total = d, n })
			ref, parseErr := name.NewTag(back.Addr + "/out/image:2")
			if parseErr != nil {
				t.Fatal(parseErr)
			}
			if test.want != nil {
				wantError(t, err, request.ClassPush, test.want...)
				if _, err := remote.Head(ref); err == nil {
					t.Error("the tag is there although an image is missing")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if done != total || total == 0 {
				t.Errorf("progress ended at %d of %d", done, total)
			}
			got, err := remote.Index(ref)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Index(got); err != nil {
				t.Error(err)
			}
			if h, _ := got.Digest(); h != desc.Digest {
				t.Errorf("digest %s, want %s", h, desc.Digest)
			}
			// Two configs and the layers that both images have.
			if n := len(front.Seen("PUT", uploads)); n != 4 {
				t.Errorf("%d blobs uploaded, want 4", n)
			}
			puts := front.Seen("PUT", manifests)
			last := slices.IndexFunc(puts, func(r registrytest.Seen) bool { return strings.HasSuffix(r.Path, manifests+"2") })
			if last < 2 {
				t.Errorf("the index came before its images: %v", puts)
			}
		})
	}
}

// TestIndexHasNoTar holds that an index is not taken for an image.
func TestIndexHasNoTar(t *testing.T) {
	st := newStore(t)
	_, desc := twoPlatforms(t, st)
	if err := registry.WriteTar(context.Background(), newClient(t, registry.Config{}).Opener(st), desc, nil, &strings.Builder{}); err == nil {
		t.Error("an index became a docker-save tar")
	}
}
