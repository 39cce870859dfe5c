package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

var amd64 = v1.Platform{OS: "linux", Architecture: "amd64"}

// logins is a keychain: credentials by host.
type logins map[string]authn.AuthConfig

func (l logins) Resolve(r authn.Resource) (authn.Authenticator, error) {
	a, ok := l[r.RegistryStr()]
	if !ok {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(a), nil
}

func login() authn.AuthConfig {
	return authn.AuthConfig{Username: registrytest.User, Password: registrytest.Password}
}

func newClient(t *testing.T, cfg registry.Config) *registry.Client {
	t.Helper()
	cfg.UserAgent = "kbuild-sandbox/test"
	cfg.Note = func(text string) { t.Log("note: " + text) }
	c, err := registry.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	registry.Hurry(c)
	return c
}

func newStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// randomImage makes an image for linux/amd64.
func randomImage(t *testing.T, size int64, layers int64) v1.Image {
	t.Helper()
	img, err := random.Image(size, layers)
	if err != nil {
		t.Fatal(err)
	}
	return platformed(t, img, amd64)
}

func platformed(t *testing.T, img v1.Image, p v1.Platform) v1.Image {
	t.Helper()
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg.OS, cfg.Architecture, cfg.Variant = p.OS, p.Architecture, p.Variant
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	return mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
}

// seed pushes img with another client.
func seed(t *testing.T, ref string, img remote.Taggable, options ...remote.Option) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	switch img := img.(type) {
	case v1.Image:
		err = remote.Write(r, img, options...)
	case v1.ImageIndex:
		err = remote.WriteIndex(r, img, options...)
	default:
		err = remote.Put(r, img, options...)
	}
	if err != nil {
		t.Fatalf("seed %s: %v", ref, err)
	}
}

// keep puts img into a store; withLayers false: all but the layers.
func keep(t *testing.T, st *store.Store, img v1.Image, withLayers bool) v1.Descriptor {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	raw, err := img.RawManifest()
	must(err)
	cfg, err := img.RawConfigFile()
	must(err)
	h, err := st.Put(raw)
	must(err)
	_, err = st.Put(cfg)
	must(err)
	layers, err := img.Layers()
	must(err)
	for _, l := range layers {
		if !withLayers {
			break
		}
		r, err := l.Compressed()
		must(err)
		b, err := st.Create()
		must(err)
		_, err = io.Copy(b, r)
		must(err)
		_, _, err = b.Commit()
		must(err)
		must(b.Close())
	}
	mt, err := img.MediaType()
	must(err)
	return v1.Descriptor{MediaType: mt, Digest: h, Size: int64(len(raw))}
}

func pullAll(t *testing.T, c *registry.Client, img *registry.Image, st *store.Store) error {
	t.Helper()
	for _, l := range img.Layers {
		if err := c.Pull(context.Background(), img, l, st, nil); err != nil {
			return err
		}
	}
	return nil
}

func layersOf(t *testing.T, img v1.Image) []v1.Descriptor {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	return m.Layers
}

// wantError checks class and text of an *registry.Error.
func wantError(t *testing.T, err error, class request.Class, parts ...string) *registry.Error {
	t.Helper()
	var e *registry.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T), want a *registry.Error", err, err)
	}
	if e.Class != class {
		t.Errorf("class %s, want %s: %v", e.Class, class, e)
	}
	all := e.Msg + " | " + e.Hint
	for _, p := range parts {
		if !strings.Contains(all, p) {
			t.Errorf("error lacks %q: %s", p, all)
		}
	}
	if strings.Contains(all, registrytest.Password) {
		t.Errorf("error shows the password: %s", all)
	}
	t.Logf("%s", all)
	return e
}

func asJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
