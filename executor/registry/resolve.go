package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// Image is what a reference means for one platform.
type Image struct {
	Ref        string          // as it was given
	Repository string          // registry/repository that it is named after, also if a mirror answered
	From       string          // registry/repository that answered; empty: a layout
	Root       v1.Hash         // digest of what the reference names: an index's, or Digest
	Digest     v1.Hash         // of Manifest
	MediaType  types.MediaType // of Manifest
	Manifest   []byte          // as it came
	Config     []byte          // as it came
	// Layers are in the manifest's order, lowest first; DiffIDs are the
	// digests of the uncompressed layers, in the same order.
	Layers  []v1.Descriptor
	DiffIDs []v1.Hash
	// Platform is what the config says that the image is for. It can differ
	// from what was asked for if the reference is of a single image: BuildKit
	// uses that all the same, with a warning (InvalidBaseImagePlatform).
	Platform v1.Platform
}

// maxNesting is how deep an index may lie in another.
const maxNesting = 2

// Resolve finds the image that ref means on platform p. Of an index it takes
// the entry that fits best, as BuildKit does. A digest in ref wins over a tag,
// and what comes must have it. The answer is the same for the life of the client:
// a tag that moves does not matter.
func (c *Client) Resolve(ctx context.Context, ref string, p v1.Platform) (*Image, error) {
	key := p.String() + " " + ref
	c.mu.Lock()
	img, ok := c.resolved[key]
	c.mu.Unlock()
	if ok {
		return img, nil
	}
	r, err := name.ParseReference(ref, name.WeakValidation)
	if err != nil {
		return nil, &Error{Class: request.ClassResolve, Msg: fmt.Sprintf("%s is no image reference: %s", clean(ref), clean(err.Error())), Err: err}
	}
	if img, err = c.resolve(ctx, r, p); err != nil {
		return nil, err
	}
	img.Ref, img.Repository = ref, r.Context().Name()
	c.mu.Lock()
	defer c.mu.Unlock()
	if first, ok := c.resolved[key]; ok {
		return first, nil
	}
	c.resolved[key] = img
	return img, nil
}

// resolve asks each place in turn; the errors of all count if none answers.
func (c *Client) resolve(ctx context.Context, ref name.Reference, p v1.Platform) (*Image, error) {
	what := "resolve " + clean(ref.String())
	var errs []error
	places := c.places(ref.Context())
	for i, place := range places {
		s, err := c.session(place, request.Pull, "")
		if err != nil {
			return nil, err
		}
		img, err := s.resolve(ctx, ref.Identifier(), p)
		if err == nil {
			c.prove(ref.Context(), place)
			img.From = place.Name()
			return img, nil
		}
		err = s.explain(what, err)
		if ctx.Err() != nil {
			return nil, err
		}
		errs = append(errs, err)
		if i+1 < len(places) {
			c.note("%v: trying %s", err, places[i+1].RegistryStr())
		}
	}
	return nil, together(what, errs)
}

// together makes one error of those of several places.
func together(what string, errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	all := &Error{Class: request.ClassResolve, Err: errors.Join(errs...)}
	var parts []string
	for _, err := range errs {
		parts = append(parts, strings.TrimPrefix(err.Error(), what+": "))
		var e *Error
		if errors.As(err, &e) {
			all.Hint = e.Hint
		}
	}
	all.Msg = what + ": " + strings.Join(parts, "; ")
	return all
}

// resolve resolves a tag or digest of the session's repository.
func (s *session) resolve(ctx context.Context, id string, p v1.Platform) (*Image, error) {
	var err error
	img := &Image{}
	want := v1.Descriptor{Size: -1}
	if strings.Contains(id, ":") {
		h, err := v1.NewHash(id)
		if err != nil || h.Algorithm != "sha256" {
			return nil, &formError{"only digests of type sha256 are supported"}
		}
		want.Digest = h
	}
	for depth := 0; ; depth++ {
		if err := s.manifest(ctx, id, want, img); err != nil {
			return nil, err
		}
		if depth == 0 {
			img.Root = img.Digest
		}
		if img.MediaType.IsImage() {
			break
		}
		if depth == maxNesting {
			return nil, &formError{"indexes are nested too deeply"}
		}
		if want, err = choose(img.Manifest, p); err != nil {
			return nil, err
		}
		id = want.Digest.String()
	}
	m, err := parseImage(img.Manifest)
	if err != nil {
		return nil, err
	}
	if img.Config, err = s.metadata(ctx, m.Config); err != nil {
		return nil, err
	}
	cfg, err := parseConfig(img.Config, m)
	if err != nil {
		return nil, err
	}
	img.Layers, img.DiffIDs, img.Platform = m.Layers, cfg.RootFS.DiffIDs, cfg.platform()
	return img, nil
}

// manifest gets a manifest or index into img; want says what is known of it:
// the digest, and then perhaps the size (else -1) and the media type.
func (s *session) manifest(ctx context.Context, id string, want v1.Descriptor, img *Image) error {
	return s.retry(ctx, "manifest "+id, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("manifests/"+id), nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", strings.Join(accepted(), ", "))
		resp, b, err := s.small(req, store.MaxMetadata, http.StatusOK)
		if err != nil {
			return err
		}
		got, size := sum(b), int64(len(b))
		if want.Size < 0 {
			want.Size = size
		}
		if want.Digest != (v1.Hash{}) && (got != want.Digest || size != want.Size) {
			return &mismatchError{want: want.Digest, got: got, wantSize: want.Size, gotSize: size}
		}
		mt, err := mediaType(b, resp.Header.Get("Content-Type"))
		if err != nil {
			return err
		}
		if want.MediaType != "" && mt != want.MediaType {
			return &formError{fmt.Sprintf("the index calls a manifest %s, but it is %s", clean(string(want.MediaType)), mt)}
		}
		img.Manifest, img.Digest, img.MediaType = b, got, mt
		return nil
	})
}

// metadata gets a small blob whole. One that its descriptor has with it need not be
// asked for (image-spec, descriptor.md, data).
func (s *session) metadata(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	if d.Data != nil && int64(len(d.Data)) == d.Size && sum(d.Data) == d.Digest {
		return d.Data, nil
	}
	var b []byte
	err := s.retry(ctx, "config "+d.Digest.String(), func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("blobs/"+d.Digest.String()), nil)
		if err != nil {
			return err
		}
		if _, b, err = s.small(req, store.MaxMetadata, http.StatusOK); err != nil {
			return err
		}
		if got := sum(b); got != d.Digest || int64(len(b)) != d.Size {
			return &mismatchError{want: d.Digest, got: got, wantSize: d.Size, gotSize: int64(len(b))}
		}
		return nil
	})
	return b, err
}

// choose picks the entry of an index that fits platform p best. Entries
// without a platform count last; such for an unknown platform hold no image but
// attestations.
func choose(raw []byte, p v1.Platform) (v1.Descriptor, error) {
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return v1.Descriptor{}, &formError{"malformed index: " + clean(err.Error())}
	}
	fits := platforms.Only(specPlatform(p))
	var found []v1.Descriptor
	var there []string
	for _, d := range index.Manifests {
		if !d.MediaType.IsImage() && !d.MediaType.IsIndex() {
			continue
		}
		if d.Platform == nil || d.Platform.OS == "" && d.Platform.Architecture == "" {
			found = append(found, d)
			continue
		}
		if d.Platform.OS != "unknown" {
			there = append(there, clean(d.Platform.String()))
		}
		if fits.Match(specPlatform(*d.Platform)) {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		return v1.Descriptor{}, noPlatform(p, there)
	}
	slices.SortStableFunc(found, func(a, b v1.Descriptor) int {
		switch {
		case a.Platform == nil || b.Platform == nil:
			return compareBool(a.Platform == nil, b.Platform == nil)
		case fits.Less(specPlatform(*a.Platform), specPlatform(*b.Platform)):
			return -1
		case fits.Less(specPlatform(*b.Platform), specPlatform(*a.Platform)):
			return 1
		}
		return 0
	})
	return found[0], checkDescriptor(found[0])
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func noPlatform(p v1.Platform, there []string) error {
	slices.Sort(there)
	there = slices.Compact(there)
	have := strings.Join(there, ", ")
	if have == "" {
		have = "none"
	}
	return &platformError{want: p.String(), have: have}
}

// platformError is an index without the wanted platform.
type platformError struct{ want, have string }

func (e *platformError) Error() string {
	return fmt.Sprintf("no match for platform %s; there are: %s", e.want, e.have)
}

func specPlatform(p v1.Platform) specs.Platform {
	return specs.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
}
