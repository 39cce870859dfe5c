package executor

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// TestBuildTellsAhead: build tells of each layer of the image, and of no other, as soon
// as it is in the store, if the image will be pushed.
func TestBuildTellsAhead(t *testing.T) {
	dir := t.TempDir()
	text := "FROM scratch AS x\nCOPY a /x\nFROM scratch\nCOPY --from=x /x /y\nCOPY b /\n"
	for name, content := range map[string]string{"Dockerfile": text, "a": "1", "b": "2"} {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	for _, tt := range []struct {
		to     []string
		noPush bool
		want   int
	}{{[]string{"registry.example.com/a:1"}, false, 2}, {[]string{"registry.example.com/a:1"}, true, 0}, {nil, false, 0}} {
		h := newHost(t, Tools{})
		req := request.Build{
			Context: request.GuestPath(dir), Dockerfile: request.GuestPath(dir + "/Dockerfile"), Destinations: tt.to, NoPush: tt.noPush, SkipPushCheck: true,
		}
		built := succeed(t, "build", h.build(req, succeed(t, "fetch", h.fetch(req))))
		if len(h.ahead) != tt.want {
			t.Errorf("%+v: told of %q", tt, h.ahead)
		}
		var m v1.Manifest
		raw, err := os.ReadFile(filepath.Join(h.store, "blobs/sha256", strings.TrimPrefix(built.Digest, "sha256:")))
		check(t, err)
		check(t, json.Unmarshal(raw, &m))
		for _, l := range m.Layers {
			if tt.want > 0 && !slices.Contains(h.ahead, l.Digest.String()) {
				t.Errorf("told of %q and not of %s", h.ahead, l.Digest)
			}
		}
	}
}

// TestPushAhead: layers get to each repository once while push waits for the image; one
// that cannot be pushed then is pushed with the image.
func TestPushAhead(t *testing.T) {
	reg := startRegistry(t)
	h := newHost(t, Tools{})
	st, err := store.Open(h.store)
	check(t, err)
	put := func(media types.MediaType, data string) v1.Descriptor {
		d, err := st.Put([]byte(data))
		check(t, err)
		return v1.Descriptor{MediaType: media, Digest: d, Size: int64(len(data))}
	}
	early, later := put(types.OCILayer, "early"), put(types.OCILayer, "later")
	layers := make(chan request.Descriptor, 2)
	h.tools.Ahead = layers
	next := func(ctx context.Context) (request.Pushing, error) {
		layers <- descriptor(early)
		layers <- request.Descriptor{Digest: "sha256:" + strings.Repeat("0", 64), Size: 1} // which is not there
		for _, repo := range []string{"/v2/a", "/v2/b"} {
			for !reg.stored(repo, early.Digest.String()) {
				if ctx.Err() != nil {
					t.Fatal("not pushed ahead")
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
		raw, err := json.Marshal(v1.Manifest{
			SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: put(types.OCIConfigJSON, "{}"), Layers: []v1.Descriptor{early, later},
		})
		check(t, err)
		return request.Pushing{Descriptor: descriptor(put(types.OCIManifestSchema1, string(raw)))}, nil
	}
	req := request.Build{Destinations: []string{reg.addr + "/a:1", reg.addr + "/a:2", reg.addr + "/b:1"}}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	succeed(t, "push", Push(ctx, h.request(req, request.RolePush), next, h.tools))
	if n := reg.count("PUT /v2/a/blobs/uploads/"); n != 3 {
		t.Errorf("%d blobs were put, not the two layers and the config", n)
	}
	if spans := h.told(request.EventSpan); !slices.Contains(spans, "upload "+early.Digest.String()) {
		t.Errorf("spans %q", spans)
	}
}

// TestAllPushesAhead: one process pushes layers while later steps run.
func TestAllPushesAhead(t *testing.T) {
	reg := startRegistry(t)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			for reg.count("PUT /v2/a/blobs/uploads/") == 0 && r.Context().Err() == nil {
				time.Sleep(5 * time.Millisecond)
			}
		}
		http.Error(w, "the last step fails", http.StatusForbidden)
	}))
	t.Cleanup(web.Close)
	o := newOpening(t, nil)
	req := request.Build{
		Context: request.GuestPath(filepath.Dir(string(o.file("c/a", []byte("1"))))), Dockerfile: o.file("Dockerfile", []byte("FROM scratch\nCOPY a /\nADD "+web.URL+"/late /\n")),
		Destinations: []string{reg.addr + "/a:1"},
	}
	h := newHost(t, o.tools)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r := All(ctx, h.request(req, ""), h.tools)
	if r.Failure == nil || !strings.Contains(r.Failure.Message, "403") {
		t.Errorf("%+v", r.Failure)
	}
	if n := reg.count("/manifests/"); n != 0 {
		t.Errorf("%d manifests of an image that there is not", n)
	}
}
