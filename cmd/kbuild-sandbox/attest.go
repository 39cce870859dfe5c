package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/provenance"
)

// attester writes the provenance of one build.
type attester struct {
	wanted   flags.Attestation
	file     string // absolute; empty: none
	req      request.Build
	versions map[string]string
	egress   policy.Egress
	started  time.Time
	keep     sandbox.Caches
	filled   bool    // there were kept cache mounts before the build
	signer   *signer // nil: nothing is signed
	mask     func(string) string

	lines [][]byte // what the file gets
}

// attester starts what the provenance of a build needs, if any is wanted, and
// hooks it into cfg. A key that cannot be used is known before the build.
func (a *app) attester(ctx context.Context, j job, cfg *sandbox.Config) (*attester, error) {
	if !j.attest.Wanted() {
		return nil, nil
	}
	t := &attester{
		mask: a.mask.Text, keep: j.keep, filled: j.keep.Filled(),
		wanted: j.attest, file: j.out.Provenance, req: j.req, started: time.Now(), egress: cfg.Network.Run,
		versions: map[string]string{"kbuild-sandbox": versionText(), "gvisor": cfg.Runsc.Version.Text},
	}
	cfg.Attest = t.attest
	if j.attest.Key == "" {
		return t, nil
	}
	password, _ := a.env(keyPassword)
	_ = a.mask.Add([]byte(password)) // one that is too short cannot be masked
	var err error
	if t.signer, err = startSigner(ctx, j.attest.Key, a.env); err != nil {
		return nil, &flags.Error{Msg: "--sign-key: " + err.Error(), Input: true}
	}
	return t, nil
}

// attest makes the provenance of what was built: for the index, for the file,
// and signed for cosign.
func (t *attester) attest(built sandbox.Built) (sandbox.Attestation, error) {
	var out sandbox.Attestation
	if err := built.CheckReceived(); err != nil {
		return out, err
	}
	b := t.build(built)
	statements, err := provenance.Statements(b)
	if err != nil {
		return out, fmt.Errorf("provenance: %w", err)
	}
	top := built.Result.Digest
	if t.wanted.Attach {
		blobs, root, err := provenance.Index(b, statements)
		if err != nil {
			return out, fmt.Errorf("provenance: %w", err)
		}
		out.Blobs, out.Root, top = blobs, &root, root.Digest
	}
	for _, s := range statements {
		raw, err := s.About(top).JSON()
		if err != nil {
			return out, fmt.Errorf("provenance: %w", err)
		}
		t.lines = append(t.lines, raw)
	}
	if t.signer == nil {
		return out, nil
	}
	if t.lines, err = t.signer.signAll(t.lines); err != nil {
		return out, err
	}
	return t.attach(out, top, b.Images)
}

// attach adds the signed statements to what is pushed, to be found by the digest
// of the index and of each image.
func (t *attester) attach(out sandbox.Attestation, top string, images []request.Image) (sandbox.Attestation, error) {
	if t.req.NoPush {
		return out, nil
	}
	digests := []string{top}
	for _, img := range images {
		digests = append(digests, img.Digest)
	}
	blobs, attached, err := provenance.Attach(t.lines, digests)
	if err != nil {
		return out, fmt.Errorf("provenance: %w", err)
	}
	out.AttachedBlobs, out.Attached = blobs, attached
	return out, nil
}

// build is what the launcher knows, in the form of provenance.
func (t *attester) build(b sandbox.Built) provenance.Build {
	network := map[request.Role]provenance.Network{}
	for role, n := range b.Network {
		network[role] = provenance.Network{
			Flows: n.Flows, Denied: n.Denied, Shed: n.Shed, Destinations: n.Destinations, Recorded: n.Records,
		}
	}
	return provenance.Build{
		Options: provenance.Options{Max: t.wanted.Max, Builder: t.wanted.Builder},
		Request: t.req, Images: b.Result.Images, Fetched: b.Fetched, Built: b.Result.Materials,
		Received: func(digest string) bool { _, ok := b.Blobs(digest); return ok },
		Mask:     t.mask,
		// Of a build at the same time there is something at the end only. What a
		// step read that was not done now, nobody has seen.
		Caches:  t.filled || t.keep.Filled() || b.Result.Cached > 0,
		Network: network, Postures: b.Postures, Egress: map[request.Role]policy.Egress{request.RoleBuild: t.egress},
		InvocationID: rand.Text(), Started: t.started, Finished: time.Now(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH, Versions: t.versions,
	}
}

// close ends the signer.
func (t *attester) close() {
	if t != nil && t.signer != nil {
		t.signer.close()
	}
}

// write writes the file of the provenance, once the build has succeeded.
func (t *attester) write() error {
	switch {
	case t == nil:
		return nil
	case len(t.lines) == 0:
		return errors.New("provenance: none was made")
	case t.file == "":
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(t.file), 0o700); err != nil { // as the other files of a result
		return fmt.Errorf("write %s: %w", t.file, err)
	}
	if err := os.WriteFile(t.file, append(bytes.Join(t.lines, []byte("\n")), '\n'), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", t.file, err)
	}
	return nil
}
