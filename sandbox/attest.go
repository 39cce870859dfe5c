package sandbox

import (
	"errors"
	"fmt"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Built is what is known of an image when build has ended and before it is pushed: of
// its layers some can have been, without a name.
type Built struct {
	// Result is what build reported: claims of a process that ran tenant code.
	Result request.Result
	// Fetched is what fetch reported to have pulled and fetched. It runs no
	// tenant code.
	Fetched []request.Material
	// Blobs tells the size in bytes of a blob that the launcher itself has
	// received and hashed.
	Blobs func(digest string) (size int64, ok bool)
	// Network has what the gateways counted. A role without network has zeros;
	// one that is missing was not counted.
	Network  map[request.Role]NetworkCounts
	Postures []request.RolePosture
}

// NetworkCounts is what the gateway of one role counted until it ended.
type NetworkCounts struct {
	Flows   uint64 // that were judged, questions to name servers included
	Records uint64 // of Flows, that the audit log has taken
	Denied  uint64 // of Flows
	Shed    uint64 // packets over a limit, that would have begun a flow
	// Destinations is how many addresses with their ports flows went to.
	Destinations int
}

// Attestation is what is to be published about an image.
type Attestation struct {
	// Blobs go into the store. What refers to another comes after it.
	Blobs [][]byte
	// Root is pushed and laid out instead of build's result; nil: that stays.
	Root *request.Descriptor
	// Attached go into each repository that is pushed to, with their blobs, which are
	// in no layout.
	Attached      []request.Attached
	AttachedBlobs [][]byte
}

// ErrNotReceived is wrapped by the errors of CheckReceived.
var ErrNotReceived = errors.New("build names what it did not hand out")

// attest checks that what build says it made is there, and lets the caller say
// something about it. It returns what is to be pushed.
func (b *build) attest(res request.Result) (request.Pushing, error) {
	b.mu.Lock()
	fetch := b.results[request.RoleFetch]
	b.mu.Unlock()
	built := Built{
		Result: res, Fetched: fetch.Materials, Blobs: b.store.size, Network: b.tally.counts(b.c.Network),
		// Push stands, too: build has begun only when it did.
		Postures: b.posture(),
	}
	image := request.Descriptor{MediaType: res.Media, Digest: res.Digest, Size: res.Size}
	if err := built.CheckReceived(); err != nil {
		return request.Pushing{}, &EndError{Msg: "build: the executor broke the protocol", Err: err}
	}
	if b.c.Attest == nil {
		return request.Pushing{Descriptor: image}, nil
	}
	a, err := b.c.Attest(built)
	if err != nil {
		return request.Pushing{}, fmt.Errorf("attest: %w", err)
	}
	digests := make([]string, len(a.Blobs))
	for i, blob := range a.Blobs {
		if digests[i], err = b.store.put(blob); err != nil {
			return request.Pushing{}, fmt.Errorf("attest: %w", err)
		}
	}
	for _, blob := range a.AttachedBlobs {
		if _, err := b.store.put(blob); err != nil {
			return request.Pushing{}, fmt.Errorf("attest: %w", err)
		}
	}
	if a.Root != nil {
		b.root, image = a.Root, *a.Root
		if err := b.out.reroot(image, digests); err != nil {
			return request.Pushing{}, fmt.Errorf("attest: %w", err)
		}
	}
	return request.Pushing{Descriptor: image, Attached: a.Attached}, nil
}

// CheckReceived refuses a result that names an image which the launcher did not
// receive itself (promise P12): a digest is true because it was hashed here.
func (b Built) CheckReceived() error {
	res := b.Result
	named := []request.Descriptor{{Digest: res.Digest, Size: res.Size, MediaType: res.Media}}
	for _, img := range res.Images {
		named = append(named, img.Descriptor)
	}
	named = append(named, res.Exported...)
	for _, d := range named {
		size, ok := b.Blobs(d.Digest)
		if !ok {
			return fmt.Errorf("%w: %.80q", ErrNotReceived, d.Digest)
		}
		if size != d.Size {
			return fmt.Errorf("%w: %s has %d bytes, not %d", ErrNotReceived, d.Digest, size, d.Size)
		}
	}
	if res.Config != "" {
		if _, ok := b.Blobs(res.Config); !ok {
			return fmt.Errorf("%w: %.80q", ErrNotReceived, res.Config)
		}
	}
	return nil
}
