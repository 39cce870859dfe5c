package executor

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	memory "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// memoryRegistry is a registry that counts what is asked of it. As in others, a
// blob of one repository is not in the next.
type memoryRegistry struct {
	addr string
	mu   sync.Mutex
	seen []string        // METHOD path
	has  map[string]bool // repository and digest
}

func startRegistry(t *testing.T) *memoryRegistry {
	t.Helper()
	r := &memoryRegistry{has: map[string]bool{}}
	inner := memory.New(memory.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.take(req) {
			http.NotFound(w, req)
			return
		}
		// It would read on under its lock, and the body may come from itself.
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		inner.ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	r.addr = strings.TrimPrefix(server.URL, "http://")
	return r
}

// take notes a request, and says whether its blob can be there.
func (r *memoryRegistry) take(req *http.Request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, req.Method+" "+req.URL.Path)
	repo, blob, ok := strings.Cut(req.URL.Path, "/blobs/")
	switch {
	case !ok:
		return true
	case strings.HasPrefix(blob, "uploads"):
		r.has[repo+req.URL.Query().Get("digest")] = true
		return true
	}
	return r.has[repo+blob]
}

// stored says whether a repository, /v2/name, has got a blob.
func (r *memoryRegistry) stored(repo, digest string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.has[repo+digest]
}

// lose makes a blob of a repository, /v2/name, go.
func (r *memoryRegistry) lose(repo, digest string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.has, repo+digest)
}

// count is how many requests contained a text.
func (r *memoryRegistry) count(text string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.seen {
		if strings.Contains(s, text) {
			n++
		}
	}
	return n
}

// layered is an image of one layer for each file.
func layered(t *testing.T, platform v1.Platform, files ...entry) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, f := range files {
		data := tarOf(t, f)
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
			tarball.WithMediaType(types.OCILayer))
		check(t, err)
		img, err = mutate.AppendLayers(img, l)
		check(t, err)
	}
	cfg, err := img.ConfigFile()
	check(t, err)
	cfg.OS, cfg.Architecture = platform.OS, platform.Architecture
	img, err = mutate.ConfigFile(img, cfg)
	check(t, err)
	return img
}

// seed pushes an image and returns its reference.
func (r *memoryRegistry) seed(t *testing.T, path string, img remote.Taggable) string {
	t.Helper()
	ref, err := name.ParseReference(r.addr + "/" + path)
	check(t, err)
	switch img := img.(type) {
	case v1.Image:
		err = remote.Write(ref, img)
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, img)
	}
	check(t, err)
	return ref.String()
}

// digestOf is the digest that a registry has for a reference.
func digestOf(t *testing.T, ref string) string {
	t.Helper()
	r, err := name.ParseReference(ref)
	check(t, err)
	d, err := remote.Head(r)
	check(t, err)
	return d.Digest.String()
}
