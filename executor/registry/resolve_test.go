package registry_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

func platform(t *testing.T, s string) v1.Platform {
	t.Helper()
	p, err := v1.ParsePlatform(s)
	if err != nil {
		t.Fatal(err)
	}
	return *p
}

// index makes an index of images for platforms; "-" is an entry without one,
// and "unknown/unknown" an attestation.
func index(t *testing.T, names ...string) (v1.ImageIndex, map[string]v1.Hash) {
	t.Helper()
	ix := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	digests := map[string]v1.Hash{}
	for _, n := range names {
		p := amd64
		d := v1.Descriptor{}
		if n != "-" {
			p = platform(t, n)
			d.Platform = &p
		}
		img := randomImage(t, 100, 1)
		img = platformed(t, img, p)
		h, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests[n] = h
		ix = mutate.AppendManifests(ix, mutate.IndexAddendum{Add: img, Descriptor: d})
	}
	return ix, digests
}

func TestPlatforms(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	for i, test := range []struct {
		there []string
		want  string
		get   string // empty: none
	}{
		{[]string{"linux/arm64", "linux/amd64"}, "linux/amd64", "linux/amd64"},
		{[]string{"linux/arm64", "linux/amd64"}, "linux/arm64", "linux/arm64"},
		{[]string{"linux/arm64/v8", "linux/amd64"}, "linux/arm64", "linux/arm64/v8"},
		{[]string{"linux/arm/v5", "linux/arm/v7", "linux/arm/v6"}, "linux/arm/v7", "linux/arm/v7"},
		{[]string{"linux/arm/v5", "linux/arm/v6"}, "linux/arm/v7", "linux/arm/v6"},
		{[]string{"linux/arm/v7", "linux/arm/v6"}, "linux/arm/v6", "linux/arm/v6"},
		{[]string{"linux/386", "linux/arm64"}, "linux/amd64", "linux/386"},
		{[]string{"linux/386", "linux/amd64"}, "linux/amd64", "linux/amd64"},
		{[]string{"unknown/unknown", "linux/amd64"}, "linux/amd64", "linux/amd64"},
		{[]string{"-", "linux/amd64"}, "linux/amd64", "linux/amd64"},
		{[]string{"linux/arm64", "-"}, "linux/amd64", "-"},
		{[]string{"linux/s390x", "linux/arm64", "unknown/unknown"}, "linux/amd64", ""},
		{[]string{"linux/arm64"}, "linux/arm/v7", ""},
		{[]string{"unknown/unknown"}, "linux/amd64", ""},
	} {
		t.Run(fmt.Sprintf("%v for %s", test.there, test.want), func(t *testing.T) {
			ix, digests := index(t, test.there...)
			ref := fmt.Sprintf("%s/multi:%d", r.Addr, i)
			seed(t, ref, ix)
			img, err := newClient(t, registry.Config{}).Resolve(context.Background(), ref, platform(t, test.want))
			if test.get == "" {
				e := wantError(t, err, request.ClassResolve, "no match for platform "+test.want, "--platform")
				for _, p := range test.there {
					if strings.Contains(e.Msg, p) == strings.HasPrefix(p, "unknown") {
						t.Errorf("%s in %q", p, e.Msg)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if img.Digest != digests[test.get] {
				t.Errorf("got %s (%s), want %s", img.Digest, img.Platform, digests[test.get])
			}
		})
	}
}

// TestSingleImageOfAnotherPlatform: it is used; its platform is told.
func TestSingleImageOfAnotherPlatform(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	seed(t, r.Addr+"/x:1", platformed(t, randomImage(t, 100, 1), platform(t, "linux/arm64/v8")))
	img, err := newClient(t, registry.Config{}).Resolve(context.Background(), r.Addr+"/x:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if img.Platform.String() != "linux/arm64/v8" {
		t.Errorf("platform %s", img.Platform)
	}
}

func TestDigestWins(t *testing.T) {
	ctx := context.Background()
	r := registrytest.Start(t, registrytest.Options{})
	first, second := randomImage(t, 100, 1), randomImage(t, 100, 1)
	seed(t, r.Addr+"/x:1", first)
	seed(t, r.Addr+"/x:2", second)
	want, _ := first.Digest()
	img, err := newClient(t, registry.Config{}).Resolve(ctx, r.Addr+"/x:2@"+want.String(), amd64)
	if err != nil {
		t.Fatal(err)
	}
	if img.Digest != want {
		t.Errorf("got %s", img.Digest)
	}
	// A registry that delivers something else for it.
	raw, _ := second.RawManifest()
	front := registrytest.StartProxy(t, r.URL, nil, fault{Path: manifests, Status: 200, Body: string(raw)})
	_, err = newClient(t, registry.Config{}).Resolve(ctx, front.Addr+"/x@"+want.String(), amd64)
	wantError(t, err, request.ClassResolve, "digest mismatch", "wanted "+want.String())
}

// TestTagThatMoves: one answer for the life of a client.
func TestTagThatMoves(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	seed(t, r.Addr+"/x:1", randomImage(t, 100, 1))
	c := newClient(t, registry.Config{})
	first, err := c.Resolve(context.Background(), r.Addr+"/x:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	seed(t, r.Addr+"/x:1", randomImage(t, 100, 1))
	if second, _ := c.Resolve(context.Background(), r.Addr+"/x:1", amd64); second.Digest != first.Digest {
		t.Error("the tag moved within a build")
	}
	if other, _ := newClient(t, registry.Config{}).Resolve(context.Background(), r.Addr+"/x:1", amd64); other.Digest == first.Digest {
		t.Error("the tag did not move at all: the test tests nothing")
	}
}

func TestBadReferences(t *testing.T) {
	c := newClient(t, registry.Config{})
	for _, ref := range []string{"", "a b", "UPPER", "x@sha256:../../x", "x@sha256:" + strings.Repeat("A", 64),
		"x@sha256:" + strings.Repeat("a", 63), "x@md5:" + strings.Repeat("a", 32), "http://x/y", "x:1:2", "127.0.0.1:x/y",
		"x@sha512:" + strings.Repeat("a", 128)} {
		if strings.HasPrefix(ref, "x@sha512") {
			ref = "127.0.0.1:1/" + ref
		}
		if _, err := c.Resolve(context.Background(), ref, amd64); err == nil {
			t.Errorf("%q is taken", ref)
		} else {
			wantError(t, err, request.ClassResolve)
		}
	}
}

const (
	hexA   = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	config = `"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:` + hexA + `"}`
	layer  = `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":2,"digest":"sha256:` + hexA + `"}`
	oci    = "application/vnd.oci.image.manifest.v1+json"
	ociIx  = "application/vnd.oci.image.index.v1+json"
)

// TestHostileManifests serves manifests that no honest registry serves.
func TestHostileManifests(t *testing.T) {
	for _, test := range []struct {
		name, body, typ, want string
	}{
		{"image and index", `{"schemaVersion":2,` + config + `,"layers":[],"manifests":[]}`, oci, "ambiguous"},
		{"index and image", `{"schemaVersion":2,` + config + `,"layers":[],"manifests":[]}`, ociIx, "ambiguous"},
		{"index that says image", `{"schemaVersion":2,"mediaType":"` + oci + `","manifests":[]}`, ociIx, "says that it is"},
		{"image that says index", `{"schemaVersion":2,"mediaType":"` + ociIx + `",` + config + `,"layers":[]}`, oci, "says that it is"},
		{"Docker's type in the header", `{"schemaVersion":2,"mediaType":"` + oci + `",` + config + `,"layers":[]}`, string(types.DockerManifestSchema2), "says that it is"},
		{"no type at all", `{"schemaVersion":2,` + config + `,"layers":[]}`, "text/plain", "no media type"},
		{"web page", `<html>`, "text/html", "no JSON"},
		{"other JSON", `{}`, "application/vnd.example+json", "not supported"},
		{"schema 1 inside", `{"schemaVersion":1,"fsLayers":[],` + config + `}`, oci, "schema 1"},
		{"path as digest", `{"schemaVersion":2,` + strings.Replace(config, hexA, "../../../etc/passwd", 1) + `,"layers":[]}`, oci, "malformed manifest"},
		{"upper-case digest", `{"schemaVersion":2,` + strings.Replace(config, hexA, strings.ToUpper(hexA), 1) + `,"layers":[]}`, oci, "malformed manifest"},
		{"other algorithm", `{"schemaVersion":2,` + strings.Replace(config, "sha256:"+hexA, "sha512:"+hexA+hexA, 1) + `,"layers":[]}`, oci, "sha512"},
		{"no config", `{"schemaVersion":2,"layers":[]}`, oci, "lacks a digest"},
		{"negative size", `{"schemaVersion":2,` + config + `,"layers":[` + strings.Replace(layer, `"size":2`, `"size":-2`, 1) + `]}`, oci, "-2 bytes"},
		{"huge config", `{"schemaVersion":2,` + strings.Replace(config, `"size":2`, `"size":5000000`, 1) + `,"layers":[]}`, oci, "5000000"},
		{"encrypted layer", `{"schemaVersion":2,` + config + `,"layers":[` + strings.Replace(layer, "tar+gzip", "tar+gzip+encrypted", 1) + `]}`, oci, "encrypted"},
		{"layer that is none", `{"schemaVersion":2,` + config + `,"layers":[` + strings.Replace(layer, "vnd.oci.image.layer.v1.tar+gzip", "x", 1) + `]}`, oci, "application/x"},
		{"deep JSON", strings.Repeat(`{"a":`, 20000), oci, "no JSON"},
	} {
		t.Run(test.name, func(t *testing.T) {
			front := registrytest.StartProxy(t, "", nil,
				fault{Path: manifests, Status: 200, Body: test.body, Header: map[string][]string{"Content-Type": {test.typ}}},
				fault{Path: blobs, Status: 200, Body: "{}"},
				fault{Path: "/v2/", Status: 200})
			_, err := newClient(t, registry.Config{}).Resolve(context.Background(), front.Addr+"/x:1", amd64)
			wantError(t, err, request.ClassResolve, test.want, "resolve "+front.Addr+"/x:1")
		})
	}
}

// TestHostileConfigs serves configs that do not belong to their manifest.
func TestHostileConfigs(t *testing.T) {
	for _, test := range []struct{ name, config, want string }{
		{"a chart", `{"name":"nginx"}`, "no container image"},
		{"too few layers", `{"rootfs":{"type":"layers","diff_ids":[]}}`, "lists 0 layers, the manifest 1"},
		{"bad diffID", `{"rootfs":{"type":"layers","diff_ids":["sha256:../x"]}}`, "malformed image config"},
		{"no JSON", `hello`, "malformed image config"},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.x.config+json","size":%d,"digest":"%s"},"layers":[%s]}`,
				len(test.config), registry.Sum([]byte(test.config)), layer)
			front := registrytest.StartProxy(t, "", nil,
				fault{Path: manifests, Status: 200, Body: body, Header: map[string][]string{"Content-Type": {oci + "; charset=utf-8"}}},
				fault{Path: blobs, Status: 200, Body: test.config},
				fault{Path: "/v2/", Status: 200})
			_, err := newClient(t, registry.Config{}).Resolve(context.Background(), front.Addr+"/x:1", amd64)
			wantError(t, err, request.ClassResolve, test.want)
		})
	}
}

// TestIndexConfusion: the index says one thing of an entry, the registry
// delivers another.
func TestIndexConfusion(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	img := randomImage(t, 100, 1)
	seed(t, r.Addr+"/x:img", img)
	raw, _ := img.RawManifest()
	h, _ := img.Digest()
	entry := func(mt string, size int) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":"%s","manifests":[{"mediaType":"%s","size":%d,"digest":"%s","platform":{"os":"linux","architecture":"amd64"}}]}`, ociIx, mt, size, h)
	}
	for _, test := range []struct{ name, body, want string }{
		{"honest", entry(oci, len(raw)), ""},
		{"index in the index", entry(ociIx, len(raw)), "calls a manifest"},
		{"other size", entry(oci, len(raw)+1), "digest mismatch"},
	} {
		t.Run(test.name, func(t *testing.T) {
			front := registrytest.StartProxy(t, r.URL, nil, fault{Path: manifests + "1", Status: 200, Body: test.body, Header: map[string][]string{"Content-Type": {ociIx}}})
			_, err := newClient(t, registry.Config{}).Resolve(context.Background(), front.Addr+"/x:1", amd64)
			if test.want == "" && err != nil {
				t.Fatal(err)
			}
			if test.want != "" {
				wantError(t, err, request.ClassResolve, test.want)
			}
		})
	}
}

// TestNestedIndex: an index in an index is followed, but not for ever.
func TestNestedIndex(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	ix, digests := index(t, "linux/amd64")
	for depth := range 4 {
		ref := fmt.Sprintf("%s/nested:%d", r.Addr, depth)
		seed(t, ref, ix)
		img, err := newClient(t, registry.Config{}).Resolve(context.Background(), ref, amd64)
		root, _ := ix.Digest()
		if depth < 2 && (err != nil || img.Digest != digests["linux/amd64"] || img.Root != root) {
			t.Errorf("depth %d: %+v, %v", depth, img, err)
		}
		if depth >= 2 {
			wantError(t, err, request.ClassResolve, "nested")
		}
		ix = mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: ix})
	}
}

func TestFullName(t *testing.T) {
	for _, test := range []struct{ dest, want string }{
		{"app", "index.docker.io/library/app:latest"},
		{"docker.io/team/app:1", "index.docker.io/team/app:1"},
		{"localhost:5000/a", "localhost:5000/a:latest"},
		{"ghcr.io/x/y/z:v1.2", "ghcr.io/x/y/z:v1.2"},
		{"a@sha256:" + hexA, ""},
		{"a b", ""},
	} {
		got, err := registry.FullName(test.dest)
		if got != test.want || (err != nil) != (test.want == "") {
			t.Errorf("%s: %q, %v", test.dest, got, err)
		}
	}
}

// FuzzResolve has a registry serve any manifest.
func FuzzResolve(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,`+config+`,"layers":[`+layer+`]}`), oci)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"`+oci+`","size":2,"digest":"sha256:`+hexA+`","platform":{"os":"linux"}}]}`), ociIx)
	f.Fuzz(func(t *testing.T, raw []byte, typ string) {
		registry.ReadManifest(raw, typ, amd64)
	})
}
