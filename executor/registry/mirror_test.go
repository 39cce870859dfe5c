package registry_test

import (
	"context"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// TestMirrors resolves and pulls through mirrors that have the image, lack it
// or are down.
func TestMirrors(t *testing.T) {
	origin := registrytest.Start(t, registrytest.Options{})
	mirror := registrytest.Start(t, registrytest.Options{})
	image := randomImage(t, 10_000, 2)
	seed(t, origin.Addr+"/library/debian:12", image)
	seed(t, mirror.Addr+"/hub/library/debian:12", image)
	empty := registrytest.StartProxy(t, registrytest.Start(t, registrytest.Options{}).URL, nil)
	const down = "127.0.0.1:1"
	hub := func(locations ...string) []request.Mirror {
		var out []request.Mirror
		for _, l := range locations {
			out = append(out, request.Mirror{Host: "docker.io", Location: l})
		}
		return out
	}
	for _, test := range []struct {
		name   string
		reg    request.Registry
		origin bool // whether the origin is asked
		want   []string
	}{
		{"mirror has it", request.Registry{Maps: hub(mirror.Addr + "/hub")}, false, nil},
		{"with a scheme and slash", request.Registry{Maps: hub("http://" + mirror.Addr + "/hub/")}, false, nil},
		{"second mirror", request.Registry{Maps: hub(down, empty.Addr+"/hub", mirror.Addr+"/hub")}, false, nil},
		{"fallback", request.Registry{Maps: hub(empty.Addr)}, true, nil},
		{"fallback after one that is down", request.Registry{Maps: hub(down)}, true, nil},
		{"another host's mirror", request.Registry{Maps: []request.Mirror{{Host: "ghcr.io", Location: down}}}, true, nil},
		{"no fallback", request.Registry{Maps: hub(down, empty.Addr), SkipFallback: true}, false,
			[]string{"resolve debian:12", "connection refused by 127.0.0.1:1", "not found at " + empty.Addr}},
		{"no fallback without a map", request.Registry{SkipFallback: true}, true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			front := registrytest.StartProxy(t, origin.URL, nil)
			c := newClient(t, registry.Config{Registry: withInsecure(test.reg, "index.docker.io")})
			registry.Hosts(c, map[string]string{"index.docker.io:443": front.Addr, "index.docker.io:80": front.Addr})
			img, err := c.Resolve(context.Background(), "debian:12", amd64)
			if test.want != nil {
				wantError(t, err, request.ClassResolve, test.want...)
			} else if err != nil {
				t.Fatal(err)
			} else {
				from := "index.docker.io/library/debian"
				if !test.origin {
					from = mirror.Addr + "/hub/library/debian"
				}
				if img.Repository != "index.docker.io/library/debian" || img.From != from {
					t.Errorf("repository %s, from %s", img.Repository, img.From)
				}
				if err := pullAll(t, c, img, newStore(t)); err != nil {
					t.Fatal(err)
				}
			}
			if asked := len(front.Seen("", "debian")) > 0; asked != test.origin {
				t.Errorf("origin asked: %v, want %v", asked, test.origin)
			}
		})
	}
}

// TestBeside: a push needs no other registry than its own if an image came from
// there, and would be looked for nowhere else.
func TestBeside(t *testing.T) {
	hub := registry.Config{Registry: request.Registry{Maps: []request.Mirror{{Host: "docker.io", Location: "mirror.test/hub"}}}}
	for _, tt := range []struct {
		from, dest string
		cfg        registry.Config
		want       bool
	}{
		{"r.test/base", "r.test/x/y:1", registry.Config{}, true},
		{"r.test:5000/base", "r.test/x:1", registry.Config{}, false},
		{"R.test/base", "r.test/x:1", registry.Config{}, true},
		{"index.docker.io/library/debian", "me/x", registry.Config{}, true},
		{"index.docker.io/library/debian", "docker.io/me/x:1", registry.Config{}, true},
		{"index.docker.io/library/debian", "me/x", hub, false},
		{"mirror.test/hub/library/debian", "mirror.test/x", hub, true},
		{"mirror.test/hub/library/debian", "me/x", hub, false},
		{"", "r.test/x", registry.Config{}, false},
		{"r.test/base", "r.test/UPPER", registry.Config{}, false},
	} {
		c := newClient(t, tt.cfg)
		if got := c.Beside(&registry.Image{From: tt.from}, tt.dest); got != tt.want {
			t.Errorf("%s and %s: %t", tt.from, tt.dest, got)
		}
	}
}

func withInsecure(r request.Registry, hosts ...string) request.Registry {
	r.InsecureHosts = append(r.InsecureHosts, hosts...)
	return r
}

// TestMirrorGoesBad: a mirror that has the manifest and delivers bad blobs, or
// none, is left for the next place.
func TestMirrorGoesBad(t *testing.T) {
	origin := registrytest.Start(t, registrytest.Options{})
	image := randomImage(t, 2<<20, 1)
	seed(t, origin.Addr+"/x:1", image)
	for _, test := range []struct {
		name string
		f    fault
	}{
		{"corrupt", fault{Path: blobs, Skip: 1, Corrupt: true}},
		{"missing", fault{Path: blobs, Skip: 1, Status: 404}},
		{"breaks off", fault{Path: blobs, Skip: 1, Truncate: 10_000}},
		{"breaks off once, then gone", fault{Path: blobs, Skip: 1, Truncate: 1_500_000, Times: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			mirror := registrytest.StartProxy(t, origin.URL, nil, test.f, fault{Path: blobs, Skip: 1, Status: 404})
			c := newClient(t, registry.Config{Registry: request.Registry{Maps: []request.Mirror{{Host: origin.Addr, Location: mirror.Addr}}}})
			img, err := c.Resolve(context.Background(), origin.Addr+"/x:1", amd64)
			if err != nil {
				t.Fatal(err)
			}
			if err := pullAll(t, c, img, newStore(t)); err != nil {
				t.Fatal(err)
			}
			if len(mirror.Seen("", "")) == 0 {
				t.Error("the mirror was not asked")
			}
		})
	}
}

// TestMountFromMirror: the destination's registry is a mirror of the base's.
func TestMountFromMirror(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	image := randomImage(t, 100_000, 2)
	seed(t, r.Addr+"/hub/library/base:1", image)
	front := registrytest.StartProxy(t, r.URL, nil)
	c := newClient(t, registry.Config{Registry: request.Registry{
		Maps: []request.Mirror{{Host: "index.docker.io", Location: front.Addr + "/hub"}}, SkipFallback: true}})
	st := newStore(t)
	for _, l := range layersOf(t, image) {
		st.Remember(l.Digest, "index.docker.io/library/base")
	}
	if err := c.Push(context.Background(), st, keep(t, st, image, false), front.Addr+"/out", nil); err != nil {
		t.Fatal(err)
	}
	mounted := 0
	for _, s := range front.Seen("POST", uploads) {
		if strings.Contains(s.Query, "from=hub%2Flibrary%2Fbase") {
			mounted++
		}
	}
	if mounted != 2 || len(front.Seen("PUT", uploads)) != 1 {
		t.Errorf("%d mounts, %d uploads", mounted, len(front.Seen("PUT", uploads)))
	}
}

func TestBadMirror(t *testing.T) {
	for _, l := range []string{"", "a b/c", "UPPER/..", "host:1/UPPER"} {
		if _, err := registry.New(registry.Config{Registry: request.Registry{Maps: []request.Mirror{{Host: "docker.io", Location: l}}}}); err == nil {
			t.Errorf("mirror %q is taken", l)
		}
	}
}
