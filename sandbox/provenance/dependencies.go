package provenance

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// maxURI bounds the URI of a dependency, in bytes.
const maxURI = 4096

// dependency is a Dependency with its kind.
type dependency struct {
	Dependency
	kind request.MaterialKind
}

// dependencies are all materials, without repetition, images first. What both
// roles tell is fetch's.
func (b Build) dependencies() ([]dependency, error) {
	var out []dependency
	seen := map[string]bool{}
	for _, from := range []struct {
		role request.Role
		list []request.Material
	}{{request.RoleFetch, b.Fetched}, {request.RoleBuild, b.Built}} {
		for _, m := range from.list {
			d, err := b.dependency(m, from.role)
			if err != nil {
				return nil, fmt.Errorf("material of %s: %w", from.role, err)
			}
			key := d.URI + "\x00" + m.Digest
			if !seen[key] {
				seen[key] = true
				out = append(out, d)
			}
		}
	}
	order := map[request.MaterialKind]int{request.MaterialImage: 0, request.MaterialGit: 1, request.MaterialHTTP: 2}
	slices.SortStableFunc(out, func(a, b dependency) int {
		return cmp.Or(cmp.Compare(order[a.kind], order[b.kind]), cmp.Compare(a.URI, b.URI))
	})
	return out, nil
}

// dependency is one material in SLSA's form. The claims are checked in form:
// whether they are true only the digest can tell.
func (b Build) dependency(m request.Material, by request.Role) (dependency, error) {
	out := dependency{kind: m.Kind}
	out.Annotations.ReportedBy = by
	if m.URI == "" || len(m.URI) > maxURI || strings.ContainsFunc(m.URI, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return out, fmt.Errorf("%w: URI %.80q", ErrClaim, m.URI)
	}
	if strings.Trim(m.Platform, platformLetters) != "" {
		return out, fmt.Errorf("%w: platform %.80q", ErrClaim, m.Platform)
	}
	if m.Digest != "" && !isDigest(m.Digest) && (m.Kind != request.MaterialGit || !isCommit(m.Digest)) {
		return out, fmt.Errorf("%w: digest %.80q", ErrClaim, m.Digest)
	}
	switch m.Kind {
	case request.MaterialImage:
		kind, ref := "docker", strings.TrimPrefix(m.URI, "docker-image://")
		if local, ok := strings.CutPrefix(ref, "oci-layout://"); ok {
			kind, ref = "oci", local
		}
		out.URI = packageURL(kind, redactText(ref), m.Platform)
	case request.MaterialGit, request.MaterialHTTP:
		out.URI = redactURL(m.URI)
	default:
		return out, fmt.Errorf("%w: of kind %.20q", ErrClaim, m.Kind)
	}
	if m.Digest != "" {
		out.Digest = digestSet(m.Digest)
		out.Annotations.Received = b.Received != nil && b.Received(m.Digest)
	}
	return out, nil
}

func isCommit(digest string) bool {
	hex, ok := strings.CutPrefix(digest, "sha1:")
	return ok && isHex(hex, 40)
}

// written are the dependencies as they stand in each statement. Those for other
// platforms are among them: fetch says for which platform an image was asked, not
// which of the images that are built is made from it (FROM --platform=...).
func written(deps []dependency) []Dependency {
	out := make([]Dependency, 0, len(deps))
	for _, d := range deps {
		out = append(out, d.Dependency)
	}
	return out
}

// digestFor is what fetch says of the source that a URL names; nil where it
// does not say it, or where several answers fit.
func digestFor(deps []dependency, uri string) Digests {
	var found Digests
	for _, d := range deps {
		if d.kind == request.MaterialImage || d.Annotations.ReportedBy != request.RoleFetch || !sameSource(d.URI, uri) {
			continue
		}
		if found != nil && !maps.Equal(found, d.Digest) {
			return nil
		}
		found = d.Digest
	}
	return found
}

// sameSource compares a dependency's URI with what the user wrote, which may
// have a user, a query, and a directory behind the reference.
func sameSource(uri, written string) bool {
	a, refA := source(uri)
	b, refB := source(written)
	return a == b && (refA == "" || refB == "" || refA == refB)
}

// source cuts a URL into host with path, and the reference.
func source(uri string) (place, ref string) {
	uri, fragment, _ := strings.Cut(uri, "#")
	uri, _, _ = strings.Cut(uri, "?")
	_, place, ok := strings.Cut(uri, "://")
	if !ok {
		place = uri
	}
	if at := strings.LastIndexByte(place, '@'); ok && at >= 0 {
		place = place[at+1:]
	}
	ref, _, _ = strings.Cut(fragment, ":")
	return place, ref
}
