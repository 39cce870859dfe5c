package executor

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// placesBuild is a build that keeps results of steps in places.
type placesBuild struct {
	t   *testing.T
	dir string
	req request.Build
	// between is done when fetch has ended.
	between func()
	host    *host
}

func newPlacesBuild(t *testing.T, base, dest string) *placesBuild {
	t.Helper()
	b := &placesBuild{t: t, dir: t.TempDir()}
	b.write("Dockerfile", "FROM "+base+"\nCOPY a /a\nWORKDIR /w\nCOPY b /w/\n")
	b.write("a", "1")
	b.write("b", "1")
	b.req = request.Build{
		Context: request.GuestPath(b.dir), Dockerfile: request.GuestPath(b.dir + "/Dockerfile"), Destinations: []string{dest},
	}
	return b
}

func (b *placesBuild) write(name, content string) {
	b.t.Helper()
	check(b.t, os.WriteFile(filepath.Join(b.dir, name), []byte(content), 0o644))
	check(b.t, os.Chtimes(filepath.Join(b.dir, name), time.Unix(1, 0), time.Unix(1, 0)))
}

// run plays the roles and returns build's result.
func (b *placesBuild) run() request.Result {
	b.t.Helper()
	b.host = newHost(b.t, Tools{})
	fetched := succeed(b.t, "fetch", b.host.fetch(b.req))
	if b.between != nil {
		b.between()
	}
	tools := b.host.tools
	tools.Images = nil
	start := request.Go{Fetched: fetched.Fetched, Steps: fetched.Steps} // no image is mounted here
	built := succeed(b.t, "build", Build(b.t.Context(), b.host.request(b.req, request.RoleBuild), start, tools))
	next := func(context.Context) (request.Pushing, error) {
		image := request.Descriptor{MediaType: built.Media, Digest: built.Digest, Size: built.Size}
		return request.Pushing{Descriptor: image, Exported: built.Exported}, nil
	}
	succeed(b.t, "push", Push(b.t.Context(), b.host.request(b.req, request.RolePush), next, b.host.tools))
	return built
}

// exported counts the entries of the first index.
func (b *placesBuild) exported(r request.Result) int {
	b.t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.host.store, "blobs/sha256", strings.TrimPrefix(r.Exported[0].Digest, "sha256:")))
	check(b.t, err)
	var index v1.IndexManifest
	check(b.t, json.Unmarshal(raw, &index))
	return len(index.Manifests)
}

// layersOf are the layers of a result's image but for the base's.
func (b *placesBuild) layersOf(r request.Result) (digests []string) {
	b.t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.host.store, "blobs/sha256", strings.TrimPrefix(r.Digest, "sha256:")))
	check(b.t, err)
	var m v1.Manifest
	check(b.t, json.Unmarshal(raw, &m))
	for _, l := range m.Layers[1:] {
		digests = append(digests, l.Digest.String())
	}
	return digests
}

// TestPlaces builds with results of steps in a registry: what is used, what is pulled,
// and what is pushed.
func TestPlaces(t *testing.T) {
	reg, far := startRegistry(t), startRegistry(t)
	base := reg.seed(t, "base:1", layered(t, here(), entry{"x", "1"}))
	repo := request.CachePlace{Repository: reg.addr + "/cache"}
	all := request.CacheTarget{CachePlace: repo, Copies: true, Others: true, All: true}
	first := newPlacesBuild(t, base, reg.addr+"/app:1")
	first.req.CacheFrom, first.req.CacheTo = []request.CachePlace{repo}, []request.CacheTarget{all}
	one := first.run()
	if n := first.exported(one); one.Cached != 0 || n != 3 || len(first.host.told(request.EventWarning)) > 0 {
		t.Errorf("first: %d cached, %d exported, %q", one.Cached, n, first.host.told(request.EventWarning))
	}
	layers := first.layersOf(one)
	for _, tt := range []struct {
		name   string
		change func(b *placesBuild)
		cached int
		same   bool // digest
		there  int  // layers of the first image that are in the store: pulled, or made again
		warn   string
	}{
		{"all", func(*placesBuild) {}, 3, true, 0, ""},
		{"pushed elsewhere", func(b *placesBuild) { b.req.Destinations = []string{far.addr + "/app:1"} }, 3, true, 3, ""},
		{"kept elsewhere, too", func(b *placesBuild) {
			b.req.CacheTo = append(b.req.CacheTo, request.CacheTarget{CachePlace: request.CachePlace{Reference: far.addr + "/c:1"}, Copies: true, Others: true})
		}, 3, true, 3, ""},
		{"a layout", func(b *placesBuild) { b.req.Layout = true }, 3, true, 3, ""},
		{"something changed", func(b *placesBuild) { b.write("b", "2") }, 2, false, 2, ""},
		{"the first changed", func(b *placesBuild) { b.write("a", "2") }, 0, false, 0, ""},
		{"too old", func(b *placesBuild) { b.req.CacheTTL = time.Nanosecond }, 0, false, 1, ""},
		{"young enough", func(b *placesBuild) { b.req.CacheTTL = time.Hour }, 3, true, 0, ""},
		{"not wanted", func(b *placesBuild) { b.req.NoCache = true }, 0, false, 1, ""},
		{"nobody there", func(b *placesBuild) { b.req.CacheFrom = []request.CachePlace{{Repository: "127.0.0.1:1/x"}} }, 0, false, 1, "cache 127.0.0.1:1/x is not used"},
		{"nobody to keep it", func(b *placesBuild) { b.req.CacheTo[0].CachePlace = request.CachePlace{Repository: "127.0.0.1:1/x"} }, 3, true, 3, "cache 127.0.0.1:1/x is not complete"},
		{"a layer is lost", func(b *placesBuild) {
			reg.lose("/v2/cache", layers[1])
			b.write("b", "3")
		}, 1, false, 1, "a result of a step is not used"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newPlacesBuild(t, base, reg.addr+"/app:2")
			b.req.CacheFrom, b.req.CacheTo = slices.Clone(first.req.CacheFrom), slices.Clone(first.req.CacheTo)
			if tt.name != "a layer is lost" { // nothing takes the place of the first's
				b.req.CacheTo[0].Repository = reg.addr + "/cache2"
			}
			tt.change(b)
			got := b.run()
			there := 0
			for _, l := range layers {
				if b.host.has(l) {
					there++
				}
			}
			if got.Cached != tt.cached || (got.Digest == one.Digest) != tt.same || there != tt.there {
				t.Errorf("%d cached, %d there, %s", got.Cached, there, got.Digest)
			}
			warned := strings.Join(b.host.told(request.EventWarning), "\n")
			if !strings.Contains(warned, tt.warn) || tt.warn == "" && warned != "" {
				t.Errorf("warned %q, want %q", warned, tt.warn)
			}
			if n := b.exported(got); n != 3 {
				t.Errorf("%d exported", n)
			}
		})
	}
}

// TestCopiesAreDoneAgain: where nobody keeps what COPY makes, what stands on it is used
// all the same, as long as the content is what it was.
func TestCopiesAreDoneAgain(t *testing.T) {
	reg := startRegistry(t)
	base := reg.seed(t, "base:1", layered(t, here(), entry{"x", "1"}))
	repo := request.CachePlace{Repository: reg.addr + "/cache"}
	build := func(change func(*placesBuild)) (*placesBuild, request.Result) {
		b := newPlacesBuild(t, base, reg.addr+"/app:1")
		b.req.CacheFrom, b.req.CacheTo = []request.CachePlace{repo}, []request.CacheTarget{{CachePlace: repo, Others: true, All: true}}
		if change != nil {
			change(b)
		}
		return b, b.run()
	}
	if b, r := build(nil); r.Cached != 0 || b.exported(r) != 1 {
		t.Errorf("first: %d cached, %d exported", r.Cached, b.exported(r))
	}
	if b, r := build(nil); r.Cached != 1 || b.exported(r) != 1 {
		t.Errorf("again: %d cached, %d exported", r.Cached, b.exported(r))
	}
	if n := reg.count("PUT /v2/cache/manifests/"); n != 1 {
		t.Errorf("what was there was pushed again: %d times in all", n)
	}
	if _, r := build(func(b *placesBuild) { b.write("a", "2") }); r.Cached != 0 {
		t.Errorf("changed: %d cached", r.Cached)
	}
	// The context changes while it is built: nothing of that may be kept under the old name.
	b, r := build(func(b *placesBuild) {
		b.between = func() { b.write("a", "3") }
		b.req.CacheTo[0].Copies = true
	})
	if warned := b.host.told(request.EventWarning); r.Cached != 1 || len(warned) != 1 || !strings.Contains(warned[0], "the context changed while it was read") {
		t.Errorf("stray: %d cached, %q", r.Cached, warned)
	}
	if n := b.exported(r); n != 2 { // the copy under its own name, and what was found
		t.Errorf("stray: %d exported", n)
	}
}

// TestTakes: which results a place gets.
func TestTakes(t *testing.T) {
	file := &plan.Copy{Paths: []string{"a"}}
	stage := &plan.Copy{Paths: []string{"a"}, From: plan.From{Kind: plan.FromStage}}
	text := &plan.Copy{}
	runs, copies := request.CacheTarget{Others: true, All: true}, request.CacheTarget{Copies: true, All: true}
	for name, tt := range map[string]struct {
		to    request.CacheTarget
		takes []plan.Op
	}{
		"RUN":           {runs, []plan.Op{&plan.Run{}, stage}},
		"COPY":          {copies, []plan.Op{file, stage, text}},
		"both":          {request.CacheTarget{Others: true, Copies: true, All: true}, []plan.Op{&plan.Run{}, file, stage, text}},
		"neither":       {request.CacheTarget{All: true}, nil},
		"of other ones": {request.CacheTarget{Others: true, Copies: true}, nil},
	} {
		for _, op := range []plan.Op{&plan.Run{}, file, stage, text} {
			want := slices.ContainsFunc(tt.takes, func(o plan.Op) bool { return reflect.DeepEqual(o, op) })
			if got := takes(tt.to, op, false); got != want {
				t.Errorf("%s: %T %+v: %v", name, op, op, got)
			}
		}
	}
	if !takes(request.CacheTarget{Others: true}, &plan.Run{}, true) {
		t.Error("what is part of the image is not kept")
	}
}

// forge changes the configs of results that were pushed to /cache, and tells how many change
// wanted changed.
func forge(t *testing.T, reg *memoryRegistry, change func(*v1.ConfigFile) bool) (n int) {
	t.Helper()
	for _, seen := range slices.Clone(reg.seen) {
		tag, ok := strings.CutPrefix(seen, "PUT /v2/cache/manifests/")
		if !ok {
			continue
		}
		ref, err := name.ParseReference(reg.addr + "/cache:" + tag)
		check(t, err)
		img, err := remote.Image(ref)
		check(t, err)
		cfg, err := img.ConfigFile()
		check(t, err)
		if cfg = cfg.DeepCopy(); change(cfg) {
			n++
			img, err = mutate.ConfigFile(img, cfg)
			check(t, err)
			reg.seed(t, "cache:"+tag, img)
		}
	}
	return n
}

// TestForgedLayer: whoever can write to a place can choose a result, but not what a
// layer is called: what is unpacked has the digest that the image's config names.
func TestForgedLayer(t *testing.T) {
	reg := startRegistry(t)
	b := newPlacesBuild(t, reg.seed(t, "base:1", layered(t, here(), entry{"x", "1"})), reg.addr+"/app:1")
	repo := request.CachePlace{Repository: reg.addr + "/cache"}
	b.req.CacheFrom, b.req.CacheTo = []request.CachePlace{repo}, []request.CacheTarget{{CachePlace: repo, Copies: true, Others: true, All: true}}
	b.run()
	forge(t, reg, func(cfg *v1.ConfigFile) bool {
		cfg.RootFS.DiffIDs[0].Hex = strings.Repeat("e", 64)
		return true
	})
	b.write("b", "2")
	b.host = newHost(t, Tools{})
	fetched := succeed(t, "fetch", b.host.fetch(b.req))
	tools := b.host.tools
	tools.Images = nil
	warned := strings.Join(b.host.told(request.EventWarning), "\n")
	if fetched.Steps[0].Cached.Found() || !strings.Contains(warned, "a result of a step is not used") || !strings.Contains(warned, "digest mismatch") {
		t.Errorf("%+v, %q", fetched.Steps[0].Cached, warned)
	}
	r := succeed(t, "build", Build(t.Context(), b.host.request(b.req, request.RoleBuild), request.Go{Steps: fetched.Steps}, tools))
	if r.Cached != 0 {
		t.Errorf("%d cached", r.Cached)
	}
}

// TestLentKey: of which content a copy from a stage is the result, a place says; what it
// names gets no place in the launcher's cache, nor does what stands on it, and none in
// another place.
func TestLentKey(t *testing.T) {
	reg := startRegistry(t)
	repo, other := request.CachePlace{Repository: reg.addr + "/cache"}, request.CachePlace{Repository: reg.addr + "/other"}
	b := newPlacesBuild(t, reg.seed(t, "base:1", layered(t, here(), entry{"x", "1"})), reg.addr+"/app:1")
	text := "FROM " + reg.addr + "/base:1 AS s\nCOPY a /a\nFROM scratch\nCOPY --from=s /a /a\nWORKDIR /w\n"
	b.write("Dockerfile", text)
	b.req.CacheFrom, b.req.CacheTo = []request.CachePlace{repo}, []request.CacheTarget{{CachePlace: repo, Copies: true, Others: true, All: true}}
	b.run()
	victim := strings.Repeat("e", 64)
	forged := forge(t, reg, func(cfg *v1.ConfigFile) bool {
		const label = "kbuild-sandbox.step.result"
		if cfg.Config.Labels[label] == "" {
			return false
		}
		cfg.Config.Labels[label] = victim
		return true
	})
	b.write("Dockerfile", text+"WORKDIR /more\n")
	b.req.CacheTo[0].CachePlace, b.req.StepCache = other, true
	b.host = newHost(t, Tools{Steps: nowhere{}})
	fetched := succeed(t, "fetch", b.host.fetch(b.req))
	tools := b.host.tools
	tools.Images = nil
	built := succeed(t, "build", Build(t.Context(), b.host.request(b.req, request.RoleBuild), request.Go{Fetched: fetched.Fetched, Steps: fetched.Steps}, tools))
	if forged != 1 || built.Cached == 0 {
		t.Fatalf("%d forged, %d cached", forged, built.Cached)
	}
	if slices.Contains(b.host.steps, victim) {
		t.Errorf("noted %q", b.host.steps)
	}
	if n := len(b.host.steps); n > 1 { // the copy, by the name that we have for it
		t.Errorf("noted %d: %q", n, b.host.steps)
	}
	raw, err := os.ReadFile(filepath.Join(b.host.store, "blobs/sha256", strings.TrimPrefix(built.Exported[0].Digest, "sha256:")))
	check(t, err)
	if strings.Contains(string(raw), victim) {
		t.Errorf("exported %s", raw)
	}
}
