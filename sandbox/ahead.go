package sandbox

import (
	"context"
	"fmt"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// ahead are layers on their way from build to push while build goes on. What push
// uploads before there is an image has no name in the registry. Only one role adds.
type ahead struct {
	blobs chan request.Descriptor
	seen  map[string]bool
}

// newAhead returns nil where nothing is pushed.
func newAhead(pushes bool) *ahead {
	if !pushes {
		return nil
	}
	return &ahead{blobs: make(chan request.Descriptor, request.MaxLayers), seen: map[string]bool{}}
}

// add passes a blob of the store on. It may be called of nil, where nothing is pushed.
func (a *ahead) add(s *store, digest string) error {
	size, ok := s.size(digest)
	if !ok || a == nil {
		return fmt.Errorf("%w: %.80q is not to be pushed", errOutput, digest)
	}
	if a.seen[digest] {
		return nil
	}
	a.seen[digest] = true
	select {
	case a.blobs <- request.Descriptor{Digest: digest, Size: size}:
	default: // it is in time when the image is there
	}
	return nil
}

// tellAhead tells push of layers until ctx ends.
func (s *session) tellAhead(ctx context.Context) {
	for {
		select {
		case blob := <-s.ahead.blobs:
			if s.reply(request.FrameAhead, blob) != nil {
				return // the reader finds out
			}
		case <-ctx.Done():
			return
		}
	}
}
