package registry

import (
	"bytes"
	"context"
	"encoding/json"
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

// Push pushes the image, or the index of images, that is in st to dest: first
// the blobs that the registry lacks, then the images' manifests, and the index
// last, byte by byte as they are. Only the last gets the tag. A blob that is
// not in st is mounted from the repository that it came from if the registry is
// the same, else streamed from there. progress is told the bytes done of all
// blobs; what the registry has already counts as done. It may be nil.
func (c *Client) Push(ctx context.Context, st *store.Store, top v1.Descriptor, dest string, progress func(done, total int64)) error {
	tag, err := destination(dest)
	if err != nil {
		return err
	}
	s, err := c.session(tag.Repository, request.Push, "")
	if err != nil {
		return err
	}
	p := &push{s: s, st: st, what: "push " + clean(tag.Name())}
	images, err := p.images(top)
	if err != nil {
		return fmt.Errorf("%s: %w", p.what, err)
	}
	blobs, err := p.blobs(images)
	if err != nil {
		return fmt.Errorf("%s: %w", p.what, err)
	}
	p.meter = newMeter(blobs, progress)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(transfers)
	for _, d := range blobs {
		g.Go(func() error { return p.blob(gctx, d) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if top.MediaType.IsIndex() {
		for _, d := range images {
			if err := p.manifest(ctx, d, d.Digest.String()); err != nil {
				return err
			}
		}
	}
	return p.manifest(ctx, top, tag.TagStr())
}

// images are the manifests of the images: those in an index, without
// repetition, or the one.
func (p *push) images(top v1.Descriptor) ([]v1.Descriptor, error) {
	if !top.MediaType.IsIndex() {
		return []v1.Descriptor{top}, nil
	}
	raw, err := p.st.Read(top.Digest)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	return distinct(index.Manifests), nil
}

// blobs are configs and layers of images.
func (p *push) blobs(images []v1.Descriptor) ([]v1.Descriptor, error) {
	var all []v1.Descriptor
	for _, d := range images {
		raw, err := p.st.Read(d.Digest)
		if err != nil {
			return nil, fmt.Errorf("manifest: %w", err)
		}
		m, err := parseManifest(raw)
		if err != nil {
			return nil, err
		}
		all = append(append(all, m.Config), m.Layers...)
	}
	return distinct(all), nil
}

// manifest pushes a manifest or an index under a tag or its digest.
func (p *push) manifest(ctx context.Context, d v1.Descriptor, name string) error {
	raw, err := p.st.Read(d.Digest)
	if err != nil {
		return fmt.Errorf("%s: manifest: %w", p.what, err)
	}
	return p.s.explain(p.what, p.s.retry(ctx, p.what, func(ctx context.Context) error {
		return p.s.putManifest(ctx, raw, d, name)
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

func (s *session) putManifest(ctx context.Context, raw []byte, d v1.Descriptor, name string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, s.url("manifests/"+name), nil)
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

// push is an image, or an index of images, on its way to one destination.
type push struct {
	s     *session
	st    *store.Store
	what  string
	meter *meter
}

// PushBlob pushes a blob of st to a repository, before there is an image that has it. A
// Push meanwhile waits for it.
func (c *Client) PushBlob(ctx context.Context, st *store.Store, d v1.Descriptor, repository string) error {
	tag, err := destination(repository)
	if err != nil {
		return err
	}
	s, err := c.session(tag.Repository, request.Push, "")
	if err != nil {
		return err
	}
	p := &push{s: s, st: st, what: "push to " + clean(tag.Repository.Name()), meter: newMeter(nil, nil)}
	return p.blob(ctx, d)
}

// blob sees to it that the registry has a blob.
func (p *push) blob(ctx context.Context, d v1.Descriptor) error {
	what := p.what + ": " + d.Digest.String()
	one := p.s.c.one(p.s.repo.Name() + "@" + d.Digest.String())
	one.Lock()
	defer one.Unlock()
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
