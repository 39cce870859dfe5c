package executor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// materials are the images that plans stand on or copy from, each once, in the
// order of the stages. As in BuildKit's provenance the digest is that of what the
// reference names, an index's where it is one.
func (r *fromRegistry) materials(plans []*plan.Plan) []request.Material {
	var list []request.Material
	for _, s := range onImages(plans) {
		if m := r.known[s.Base.Image]; !slices.Contains(list, m) {
			list = append(list, m)
		}
	}
	return list
}

// gitMaterial is a commit of a repository.
func gitMaterial(r buildcontext.Repository, commit string) request.Material {
	uri := uriOf(r.URL)
	if r.Ref != "" {
		uri += "#" + r.Ref
	}
	algorithm := "sha1:"
	if len(commit) == hex.EncodedLen(sha256.Size) {
		algorithm = "sha256:"
	}
	return request.Material{Kind: request.MaterialGit, URI: uri, Digest: algorithm + commit}
}

// httpMaterial is what came from a URL.
func httpMaterial(rawURL string, digest string) request.Material {
	return request.Material{Kind: request.MaterialHTTP, URI: uriOf(rawURL), Digest: digest}
}

// uriOf is an address without what may be a credential.
func uriOf(text string) string {
	if !strings.Contains(text, "://") {
		return text // user@host:path has no place for one
	}
	shown := buildcontext.ShownText(text)
	u, err := url.Parse(shown)
	if err != nil {
		return shown
	}
	if _, hidden := u.User.Password(); hidden {
		u.User = nil
	}
	return u.String()
}

// taken collects what steps take from outside. It is safe for concurrent use.
type taken struct {
	mu   sync.Mutex
	list []request.Material
}

func (t *taken) add(m request.Material) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(t.list, m) {
		t.list = append(t.list, m)
	}
}

// sorted lists it in an order that does not depend on which step was first.
func (t *taken) sorted() []request.Material {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.SortFunc(t.list, func(a, b request.Material) int {
		return strings.Compare(a.URI+" "+a.Digest, b.URI+" "+b.Digest)
	})
	return t.list
}

// noting is a Downloader that notes what came.
type noting struct {
	step.Downloader
	taken *taken
}

// Download implements step.Downloader.
func (n noting) Download(ctx context.Context, rawURL string, w io.Writer) (time.Time, error) {
	sum := sha256.New()
	modified, err := n.Downloader.Download(ctx, rawURL, io.MultiWriter(w, sum))
	if err == nil {
		n.taken.add(httpMaterial(rawURL, "sha256:"+hex.EncodeToString(sum.Sum(nil))))
	}
	return modified, err
}
