package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// CheckPush asks whether an image may be pushed to dest, by beginning an upload
// and canceling it: nothing short of that tells (Docker Hub hands out tokens
// for pushes that it then refuses). A repository is asked once.
func (c *Client) CheckPush(ctx context.Context, dest string) error {
	tag, err := destination(dest)
	if err != nil {
		return err
	}
	repo := tag.Repository
	c.mu.Lock()
	done := c.checked[repo.Name()]
	c.mu.Unlock()
	if done {
		return nil
	}
	s, err := c.session(repo, request.Push, "")
	if err != nil {
		return err
	}
	what := "push to " + clean(repo.Name())
	err = s.retry(ctx, what, func(ctx context.Context) error {
		at, err := s.begin(ctx, nil)
		if err == nil && at != nil {
			s.cancel(ctx, at)
		}
		return err
	})
	if err != nil {
		return s.explain(what, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checked[repo.Name()] = true
	return nil
}

// Push pushes the image whose manifest is in st to dest: first the blobs that
// the registry lacks, then the manifest, byte by byte as it is. A blob that is
// not in st is mounted from the repository that it came from if the registry is
// the same, else streamed from there. progress is told the bytes done of all
// blobs; what the registry has already counts as done. It may be nil.
func (c *Client) Push(ctx context.Context, st *store.Store, manifest v1.Descriptor, dest string, progress func(done, total int64)) error {
	tag, err := destination(dest)
	if err != nil {
		return err
	}
	s, err := c.session(tag.Repository, request.Push, "")
	if err != nil {
		return err
	}
	what := "push " + clean(tag.Name())
	raw, err := st.Read(manifest.Digest)
	if err != nil {
		return fmt.Errorf("%s: manifest: %w", what, err)
	}
	m, err := parseImage(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	blobs := distinct(append([]v1.Descriptor{m.Config}, m.Layers...))
	p := &push{s: s, st: st, what: what, meter: newMeter(blobs, progress)}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(transfers)
	for _, d := range blobs {
		g.Go(func() error { return p.blob(gctx, d) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return s.explain(what, s.retry(ctx, what, func(ctx context.Context) error {
		return s.putManifest(ctx, raw, manifest, tag.TagStr())
	}))
}

// distinct drops repeated digests: a layer may occur twice.
func distinct(all []v1.Descriptor) []v1.Descriptor {
	seen := map[v1.Hash]bool{}
	var out []v1.Descriptor
	for _, d := range all {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			out = append(out, d)
		}
	}
	return out
}

func (s *session) putManifest(ctx context.Context, raw []byte, d v1.Descriptor, tag string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, s.url("manifests/"+tag), nil)
	if err != nil {
		return err
	}
	setBody(req, int64(len(raw)), func() io.ReadCloser { return io.NopCloser(bytes.NewReader(raw)) })
	req.Header.Set("Content-Type", string(d.MediaType))
	resp, _, err := s.small(req, store.MaxMetadata, http.StatusCreated, http.StatusOK, http.StatusAccepted)
	if err != nil {
		return err
	}
	got, err := v1.NewHash(resp.Header.Get("Docker-Content-Digest"))
	if err == nil && got.Algorithm == d.Digest.Algorithm && got != d.Digest {
		return &formError{fmt.Sprintf("the registry stored another manifest: pushed %s, stored %s", d.Digest, got)}
	}
	return nil
}

// push is one image on its way to one destination.
type push struct {
	s     *session
	st    *store.Store
	what  string
	meter *meter
}

// blob sees to it that the registry has a blob.
func (p *push) blob(ctx context.Context, d v1.Descriptor) error {
	what := p.what + ": " + d.Digest.String()
	return p.s.explain(what, p.s.retry(ctx, what, func(ctx context.Context) error {
		if err := p.try(ctx, d); err != nil {
			p.meter.set(d.Digest, 0)
			return err
		}
		p.meter.set(d.Digest, d.Size)
		return nil
	}))
}

func (p *push) try(ctx context.Context, d v1.Descriptor) error {
	there, err := p.s.has(ctx, d.Digest)
	if there || err != nil {
		return err
	}
	at, done, err := p.mount(ctx, d.Digest)
	if done || err != nil {
		return err
	}
	if at == nil {
		if at, err = p.s.begin(ctx, nil); err != nil {
			return err
		}
	}
	return p.upload(ctx, d, at)
}

// has says whether the registry has the blob. A registry that will not tell is
// asked by beginning an upload.
func (s *session) has(ctx context.Context, h v1.Hash) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, s.url("blobs/"+h.String()), nil)
	if err != nil {
		return false, err
	}
	_, _, err = s.small(req, 0, http.StatusOK)
	if err == nil {
		return true, nil
	}
	if refused(err) {
		return false, nil
	}
	return false, err
}
