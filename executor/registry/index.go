package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// IsAbsent says whether an error is the answer that there is nothing of that name.
func IsAbsent(err error) bool {
	var status *transport.Error
	return errors.As(err, &status) && status.StatusCode == http.StatusNotFound || errors.Is(err, fs.ErrNotExist)
}

// RepositoryOf is the registry/repository of a reference, in full form.
func RepositoryOf(ref string) (string, error) {
	r, err := name.ParseReference(ref, name.WeakValidation)
	if err != nil {
		return "", fmt.Errorf("%s is no image reference: %s", clean(ref), clean(err.Error()))
	}
	return r.Context().Name(), nil
}

// Index gets the image index that ref means, as it came.
func (c *Client) Index(ctx context.Context, ref string) ([]byte, error) {
	r, err := name.ParseReference(ref, name.WeakValidation)
	if err != nil {
		return nil, &Error{Class: request.ClassResolve, Msg: fmt.Sprintf("%s is no image reference: %s", clean(ref), clean(err.Error())), Err: err}
	}
	what := "resolve " + clean(r.String())
	s, err := c.session(r.Context(), request.Pull, "")
	if err != nil {
		return nil, err
	}
	var img Image
	if err := s.manifest(ctx, r.Identifier(), v1.Descriptor{Size: -1}, &img); err != nil {
		return nil, s.explain(what, err)
	}
	if !img.MediaType.IsIndex() {
		return nil, s.explain(what, &formError{"it is an image, and no index"})
	}
	return img.Manifest, nil
}

// Index is the index.json of the layout, as it is.
func (l *Layout) Index() ([]byte, error) { return l.read("index.json") }

// Tagged asks for the digest of what a tag, to which somebody wants to push, names;
// zero: there is none, or the registry does not say.
func (c *Client) Tagged(ctx context.Context, dest string) (h v1.Hash, err error) {
	tag, err := destination(dest)
	if err != nil {
		return h, err
	}
	s, err := c.session(tag.Repository, request.Push, "")
	if err != nil {
		return h, err
	}
	what := "push " + clean(tag.Name())
	err = s.retry(ctx, what, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, s.url("manifests/"+tag.TagStr()), nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", strings.Join(accepted(), ", "))
		resp, _, err := s.small(req, 0, http.StatusOK)
		if err != nil && refused(err) {
			return nil
		}
		if err == nil {
			h, _ = v1.NewHash(resp.Header.Get("Docker-Content-Digest"))
		}
		return err
	})
	return h, s.explain(what, err)
}
