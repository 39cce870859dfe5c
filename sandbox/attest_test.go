package sandbox

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// TestAttest: between build and push the caller learns what the launcher itself
// has received and counted, and what it answers is stored and pushed.
func TestAttest(t *testing.T) {
	var got Built
	index := request.Descriptor{MediaType: "index", Digest: guestDigest("index"), Size: 5}
	signed := request.Attached{Descriptor: request.Descriptor{MediaType: "signed", Digest: guestDigest("signed"), Size: 6}, Tag: "sha256-x.att"}
	res, said, err := run(t, newJob(t, "@fetch give\nclaim nothing\n@push pushed"), func(c *Config) {
		pushing(c)
		c.Attest = func(b Built) (Attestation, error) {
			got = b
			return Attestation{
				Blobs: [][]byte{[]byte("index"), []byte("signed")}, Root: &index, Attached: []request.Attached{signed},
			}, nil
		}
	})
	if err != nil || res.Failure != nil {
		t.Fatal(err, res.Failure)
	}
	if d := cmp.Diff([]string{"image: index 5 index", "sha256-x.att: signed 6 signed"}, said); d != "" {
		t.Error(d)
	}
	if res.Digest != index.Digest || res.Media != "index" || res.Size != 5 {
		t.Errorf("the result is %s %s %d", res.Digest, res.Media, res.Size)
	}
	// What build claims is build's, whatever it calls it.
	if len(got.Fetched) != 0 || len(got.Result.Materials) != 1 {
		t.Errorf("fetched %v, build took %v", got.Fetched, got.Result.Materials)
	}
	var roles []string
	for _, p := range got.Postures {
		roles = append(roles, string(p.Role))
		if p.Outside == nil || len(p.Outside.Processes) == 0 {
			t.Errorf("%s: nothing was measured from outside", p.Role)
		}
	}
	if !slices.Equal(roles, []string{"fetch", "build", "push"}) {
		t.Errorf("postures of %v", roles)
	}
	if _, ok := got.Network[request.RoleBuild]; !ok || len(got.Network) != 2 {
		t.Errorf("counted: %+v", got.Network)
	}
}

// TestForgedResult: nothing is attested or pushed that the launcher has not
// received byte by byte.
func TestForgedResult(t *testing.T) {
	for _, what := range []string{"image", "size", "config"} {
		t.Run(what, func(t *testing.T) {
			_, said, err := run(t, newJob(t, "claim "+what+"\n@push pushed"), func(c *Config) {
				pushing(c)
				c.Attest = func(Built) (Attestation, error) {
					t.Error("it was attested")
					return Attestation{}, nil
				}
			})
			if !errors.Is(err, ErrNotReceived) || len(said) != 0 {
				t.Errorf("%v, said %q", err, said)
			}
		})
	}
}

// TestAttestFails: without the provenance that was asked for nothing is pushed.
func TestAttestFails(t *testing.T) {
	_, said, err := run(t, newJob(t, "claim nothing\n@push pushed"), func(c *Config) {
		pushing(c)
		c.Attest = func(Built) (Attestation, error) { return Attestation{}, errors.New("no key") }
	})
	if err == nil || !strings.Contains(err.Error(), "no key") || len(said) != 0 {
		t.Errorf("%v, said %q", err, said)
	}
}
