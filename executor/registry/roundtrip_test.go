package registry_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// TestRoundTrip pulls an image that another client pushed, pushes it on, and has
// another client judge it, on every kind of registry.
func TestRoundTrip(t *testing.T) {
	ca := registrytest.NewCA(t)
	tokens := registrytest.StartTokens(t)
	for _, test := range []struct {
		name string
		opt  registrytest.Options
	}{
		{"plain", registrytest.Options{}},
		{"basic", registrytest.Options{Auth: true}},
		{"token", registrytest.Options{Tokens: tokens}},
		{"tls", registrytest.Options{Auth: true, TLS: ca}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := registrytest.Start(t, test.opt)
			cfg := registry.Config{Keychain: logins{r.Addr: login()}}
			var options []remote.Option
			options = append(options, remote.WithAuth(authn.FromConfig(login())))
			if test.opt.TLS != nil {
				cfg.Registry.Certificates = map[string][]byte{r.Addr: ca.PEM}
				options = append(options, remote.WithTransport(trusting(ca)))
			}
			roundTrip(t, r, cfg, options)
		})
	}
}

func roundTrip(t *testing.T, r *registrytest.Registry, cfg registry.Config, options []remote.Option) {
	ctx := context.Background()
	want := randomImage(t, 100_000, 3)
	seed(t, r.Addr+"/base/image:1", want, options...)
	c, st := newClient(t, cfg), newStore(t)
	if err := c.CheckPush(ctx, r.Addr+"/out/image:2"); err != nil {
		t.Fatal(err)
	}
	img, err := c.Resolve(ctx, r.Addr+"/base/image:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	manifest, _ := want.RawManifest()
	config, _ := want.RawConfigFile()
	if !bytes.Equal(img.Manifest, manifest) || !bytes.Equal(img.Config, config) {
		t.Error("manifest or config came different")
	}
	if img.Platform.OS != "linux" || img.Platform.Architecture != "amd64" || img.Repository != r.Addr+"/base/image" {
		t.Errorf("platform %v, repository %s", img.Platform, img.Repository)
	}
	if diff := cmp.Diff(layersOf(t, want), img.Layers); diff != "" {
		t.Error(diff)
	}
	if err := pullAll(t, c, img, st); err != nil {
		t.Fatal(err)
	}
	var done, total int64
	desc := keep(t, st, want, false)
	err = c.Push(ctx, st, desc, r.Addr+"/out/image:2", func(d, n int64) { done, total = d, n })
	if err != nil {
		t.Fatal(err)
	}
	if done != total || total == 0 {
		t.Errorf("progress ended at %d of %d", done, total)
	}
	ref, err := name.ParseReference(r.Addr + "/out/image:2")
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(ref, options...)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	if h, _ := got.Digest(); h != desc.Digest {
		t.Errorf("digest %s, want %s", h, desc.Digest)
	}
}

// TestMount pushes an image whose layers were never pulled: to the registry
// that has them, and to another one.
func TestMount(t *testing.T) {
	ctx := context.Background()
	tokens := registrytest.StartTokens(t)
	r := registrytest.Start(t, registrytest.Options{Tokens: tokens})
	other := registrytest.Start(t, registrytest.Options{Auth: true})
	front := registrytest.StartProxy(t, r.URL, nil)
	want := randomImage(t, 200_000, 2)
	seed(t, front.Addr+"/private/base:1", want, remote.WithAuth(authn.FromConfig(login())))
	front.Seen("", "")
	c, st := newClient(t, registry.Config{Keychain: logins{front.Addr: login(), other.Addr: login()}}), newStore(t)
	desc := keep(t, st, want, false)
	for _, l := range layersOf(t, want) {
		if err := st.Remember(l.Digest, front.Addr+"/private/base"); err != nil {
			t.Fatal(err)
		}
	}
	uploads := len(front.Seen("PUT", "/blobs/uploads/"))
	for _, dest := range []string{front.Addr + "/out/a", other.Addr + "/out/b:x"} {
		if err := c.Push(ctx, st, desc, dest, nil); err != nil {
			t.Fatal(err)
		}
		ref, _ := name.ParseReference(dest)
		got, err := remote.Image(ref, remote.WithAuth(authn.FromConfig(login())))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(got); err != nil {
			t.Errorf("%s: %v", dest, err)
		}
	}
	for _, l := range layersOf(t, want) {
		if st.Has(l.Digest) {
			t.Error("a layer was pulled into the store")
		}
	}
	// The config alone is uploaded to the registry that has the layers.
	if n := len(front.Seen("PUT", "/blobs/uploads/")) - uploads; n != 1 {
		t.Errorf("%d blobs uploaded, want 1", n)
	}
}

func TestPullOnlyCredentialCannotPush(t *testing.T) {
	tokens := registrytest.StartTokens(t)
	r := registrytest.Start(t, registrytest.Options{Tokens: tokens})
	c := newClient(t, registry.Config{})
	err := c.CheckPush(context.Background(), r.Addr+"/team/app:1")
	wantError(t, err, request.ClassPush, "push to "+r.Addr+"/team/app", "wants a credential", "config.json")
}
