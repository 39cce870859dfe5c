package executor

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// epoch2001 makes an image that does not depend on when it is built.
var epoch2001 = []request.KeyValue{{Key: "SOURCE_DATE_EPOCH", Value: "981173106"}}

// TestRolesMakeWhatOneProcessMakes holds for each kind of context and base that
// three roles over a store make the image that one process makes, byte by byte.
func TestRolesMakeWhatOneProcessMakes(t *testing.T) {
	files := tarOf(t, entry{"Dockerfile", "FROM scratch\nCOPY . /\n"}, entry{"sub/Dockerfile", "FROM scratch\nCOPY . /sub/\n"}, entry{"sub/x", "x"}, entry{"l", "->x"})
	o := newOpening(t, map[string][]byte{
		"/x.tgz": gzipped(t, files), "/text": []byte("FROM scratch\nWORKDIR /a\n"), "/file": []byte("content"),
	})
	reg := startRegistry(t)
	base := reg.seed(t, "base:1", layered(t, here(), entry{"below", "1"}, entry{"above", "2"}))
	lib := filepath.Join(t.TempDir(), "layout")
	path, err := layout.Write(lib, empty.Index)
	check(t, err)
	check(t, path.AppendImage(layered(t, here(), entry{"of-layout", "3"})))
	local := o.file("local/a", []byte("a"))
	local = request.GuestPath(filepath.Dir(string(local)))
	own := func(text string) request.Build {
		return request.Build{Context: local, Dockerfile: o.file("Dockerfile."+t.Name()+"/"+text[:min(len(text), 40)], []byte(text))}
	}
	fromBase := own("FROM " + base + "\nCOPY a /b\n")
	for _, tt := range []struct {
		name string
		req  request.Build
	}{
		{"directory", own("FROM scratch\nCOPY a /\nWORKDIR /w\n")},
		{"archive", request.Build{Source: request.Source{Tar: o.file("x.tar", files)}}},
		{"archive from a server", request.Build{Source: request.Source{URL: o.web + "/x.tgz", Text: true}}},
		{"a directory of it", request.Build{Source: request.Source{URL: o.web + "/x.tgz", Text: true, Dir: "sub"}}},
		{"text from a server", request.Build{Source: request.Source{URL: o.web + "/text", Text: true}}},
		{"Dockerfile from a server", request.Build{Context: local, DockerfileURL: o.web + "/text"}},
		{"git", request.Build{Source: request.Source{URL: "https://example.com/x.git#v1:dir"}}},
		{"base", fromBase},
		{"base that nobody reads", own("FROM " + base + "\nENV A=1\n")},
		{"image that is copied from", own("FROM scratch\nCOPY --from=" + base + " /below /\n")},
		{"named contexts", func() request.Build {
			req := own("FROM of-layout\nCOPY --from=web sub /web\nCOPY --from=file context /file\nCOPY --from=repo . /repo\nCOPY --from=other /above /\n")
			req.Contexts = []request.NamedContext{
				{Name: "of-layout", Layout: request.GuestPath(lib)}, {Name: "web", Source: request.Source{URL: o.web + "/x.tgz"}},
				{Name: "file", Source: request.Source{URL: o.web + "/file"}}, {Name: "repo", Source: request.Source{URL: "https://example.com/x.git"}},
				{Name: "other", Image: base},
			}
			return req
		}()},
		{"two platforms", func() request.Build {
			req := own("FROM scratch\nARG TARGETARCH\nCOPY a /$TARGETARCH\n")
			req.Platforms, req.Index = []string{"linux/amd64", "linux/arm64"}, true
			return req
		}()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := tt.req
			req.Args, req.RewriteTimestamp, req.Layout, req.Tar = epoch2001, true, true, !req.Index
			req.Destinations = []string{reg.addr + "/out/" + strings.ToLower(strings.ReplaceAll(tt.name, " ", "-")) + ":1"}
			alone := newHost(t, o.tools)
			want := succeed(t, "all", All(t.Context(), alone.request(req, ""), alone.tools))
			h := newHost(t, o.tools)
			fetched := succeed(t, "fetch", h.fetch(req))
			built := succeed(t, "build", h.build(req, fetched))
			if built.Digest != want.Digest || built.Size != want.Size || built.Media != want.Media || built.Config != want.Config {
				t.Errorf("built %+v, want %+v", built, want)
			}
			if d := cmp.Diff(want.Images, built.Images); d != "" {
				t.Errorf("images (-one process +roles):\n%s", d)
			}
			if d := cmp.Diff(want.Materials, append(fetched.Materials, built.Materials...)); d != "" {
				t.Errorf("materials (-one process +roles):\n%s", d)
			}
			for _, kind := range []request.OutputKind{request.OutputTar, request.OutputIndex} {
				if !bytes.Equal(alone.files[kind], h.files[kind]) {
					t.Errorf("%s differs", kind)
				}
			}
			for _, digest := range h.kept {
				if !h.has(digest) {
					t.Errorf("%s was kept, but never stored", digest)
				}
			}
			pushed := succeed(t, "push", h.push(req, built))
			if d := cmp.Diff(want.Pushed, pushed.Pushed); d != "" || digestOf(t, req.Destinations[0]) != want.Digest {
				t.Errorf("pushed (-one process +roles):\n%s", d)
			}
			if h.now != 0 || h.most > request.MaxStreams {
				t.Errorf("%d outputs are open still, %d were at once", h.now, h.most)
			}
		})
	}
}

// TestLayoutOfRoles has another library read the layout that is made of the store.
func TestLayoutOfRoles(t *testing.T) {
	reg := startRegistry(t)
	h := newHost(t, Tools{})
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "a"), []byte("a"), 0o644))
	check(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+reg.seed(t, "base:1", layered(t, here(), entry{"b", "1"}))+"\nCOPY a /\n"), 0o644))
	req := request.Build{Context: request.GuestPath(dir), Dockerfile: request.GuestPath(dir + "/Dockerfile"), Layout: true}
	built := succeed(t, "build", h.build(req, succeed(t, "fetch", h.fetch(req))))
	out := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(out, "blobs/sha256"), 0o755))
	for _, digest := range h.kept {
		hex := strings.TrimPrefix(digest, "sha256:")
		check(t, os.Rename(filepath.Join(h.store, "blobs/sha256", hex), filepath.Join(out, "blobs/sha256", hex)))
	}
	check(t, os.WriteFile(filepath.Join(out, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	check(t, os.WriteFile(filepath.Join(out, "index.json"), h.files[request.OutputIndex], 0o644))
	index, err := layout.ImageIndexFromPath(out)
	check(t, err)
	check(t, validate.Index(index))
	if len(h.kept) != 4 || built.Images[0].Digest != built.Digest || len(h.files) != 2 { // index.json, and the image of the base's layer
		t.Errorf("kept %q of %+v", h.kept, built)
	}
}

// TestLayersThatStay holds which layers of a base that no step reads are not
// pulled: those that push finds at its destinations' registry, and then they get
// there all the same.
func TestLayersThatStay(t *testing.T) {
	reg, other := startRegistry(t), startRegistry(t)
	img := layered(t, here(), entry{"a", "1"}, entry{"b", "2"})
	base, far := reg.seed(t, "base:1", img), other.seed(t, "base:1", img)
	m, err := img.Manifest()
	check(t, err)
	for i, tt := range []struct {
		name, text string
		change     func(*request.Build)
		stay       bool
	}{
		{"beside", "FROM " + base, nil, true},
		{"beside, but read", "FROM " + base + "\nWORKDIR /w", nil, false},
		{"elsewhere", "FROM " + far, nil, false},
		{"beside one of two", "FROM " + base, func(r *request.Build) { r.Destinations = append(r.Destinations, other.addr+"/out:1") }, false},
		{"not pushed", "FROM " + far, func(r *request.Build) { r.NoPush = true }, true},
		{"not pushed, but a tar", "FROM " + base, func(r *request.Build) { r.NoPush, r.Tar = true, true }, false},
		{"a layout", "FROM " + base, func(r *request.Build) { r.Layout = true }, false},
		{"from a mirror", "FROM " + far, func(r *request.Build) {
			r.Registry.Maps = []request.Mirror{{Host: other.addr, Location: reg.addr}}
		}, true},
		{"behind a mirror that lacks it", "FROM " + base, func(r *request.Build) {
			r.Registry.Maps = []request.Mirror{{Host: reg.addr, Location: other.addr + "/none"}}
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			check(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(tt.text+"\nENV A=1\n"), 0o644))
			req := request.Build{
				Context: request.GuestPath(dir), Dockerfile: request.GuestPath(dir + "/Dockerfile"),
				Destinations: []string{fmt.Sprintf("%s/to/%d:1", reg.addr, i)},
			}
			if tt.change != nil {
				tt.change(&req)
			}
			images, err := registry.New(registry.Config{Registry: req.Registry})
			check(t, err)
			h := newHost(t, Tools{Images: images})
			built := succeed(t, "build", h.build(req, succeed(t, "fetch", h.fetch(req))))
			for _, l := range m.Layers {
				if h.has(l.Digest.String()) == tt.stay {
					t.Errorf("layer %s: stored %t", l.Digest, !tt.stay)
				}
			}
			if req.NoPush {
				return
			}
			h.tools.Images, err = registry.New(registry.Config{})
			check(t, err)
			before := other.count("")
			succeed(t, "push", h.push(req, built))
			if n := other.count(""); len(req.Destinations) == 1 && n > before {
				t.Errorf("push asked another registry %d times", n-before)
			}
			ref, err := name.ParseReference(req.Destinations[0])
			check(t, err)
			got, err := remote.Image(ref)
			check(t, err)
			check(t, validate.Image(got))
		})
	}
}

// scopes is a keychain that remembers what it was asked for.
type scopes struct {
	mu   sync.Mutex
	list []registry.Target
}

func (s *scopes) Resolve(r authn.Resource) (authn.Authenticator, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, r.(registry.Target))
	return authn.Anonymous, nil
}

// TestFetchAsksToPullOnly: it never asks for what only push may have.
func TestFetchAsksToPullOnly(t *testing.T) {
	reg := startRegistry(t)
	asked := &scopes{}
	images, err := registry.New(registry.Config{Keychain: asked})
	check(t, err)
	h := newHost(t, Tools{Images: images})
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+reg.seed(t, "base:1", layered(t, here(), entry{"b", "1"}))+"\nWORKDIR /a\n"), 0o644))
	req := request.Build{Context: request.GuestPath(dir), Dockerfile: request.GuestPath(dir + "/Dockerfile"), Destinations: []string{reg.addr + "/out:1"}}
	succeed(t, "fetch", h.fetch(req))
	if len(asked.list) == 0 || slices.ContainsFunc(asked.list, func(a registry.Target) bool { return a.Scope != request.Pull }) {
		t.Errorf("asked for %+v", asked.list)
	}
}

// TestMaterials: each once, in order, by digest and without what opens doors.
func TestMaterials(t *testing.T) {
	o := newOpening(t, map[string][]byte{"/x.tar": tarOf(t, entry{"Dockerfile", "x"}), "/f": []byte("content")})
	reg := startRegistry(t)
	one := layered(t, here(), entry{"a", "1"})
	p := here()
	index := mutate.AppendManifests(mutate.IndexMediaType(v1.ImageIndex(empty.Index), types.OCIImageIndex), mutate.IndexAddendum{Add: one, Descriptor: v1.Descriptor{Platform: &p}})
	root, err := index.Digest()
	check(t, err)
	single, err := one.Digest()
	check(t, err)
	many, lone := reg.seed(t, "many:1", index), reg.seed(t, "lone:1", one)
	web := strings.Replace(o.web, "http://", "http://user:secret@", 1)
	text := "FROM " + many + " AS a\nFROM " + lone + "\nCOPY --from=" + many + " /a /b\nCOPY --from=a /a /c\n" +
		"ADD " + web + "/f?sig=secret /f\nADD " + web + "/f?sig=secret /g\nADD https://token:secret@example.com/x.git#v1 /x/\n"
	req := request.Build{
		Source: request.Source{URL: web + "/x.tar"}, Dockerfile: o.file("Dockerfile", []byte(text)),
		Contexts: []request.NamedContext{{Name: "n", Source: request.Source{URL: "https://token@example.com/n.git"}}, {Name: "m", Source: request.Source{URL: "git@example.com:m#x:dir"}}},
	}
	h := newHost(t, o.tools)
	fetched := succeed(t, "fetch", h.fetch(req))
	built := succeed(t, "build", h.build(req, fetched))
	const commit = "sha1:0123456789012345678901234567890123456789"
	sum := func(data []byte) string {
		h, _, err := v1.SHA256(bytes.NewReader(data))
		check(t, err)
		return h.String()
	}
	want := []request.Material{
		{Kind: request.MaterialImage, URI: many, Platform: p.String(), Digest: root.String()},
		{Kind: request.MaterialImage, URI: lone, Platform: p.String(), Digest: single.String()},
		{Kind: request.MaterialHTTP, URI: o.web + "/x.tar", Digest: sum(tarOf(t, entry{"Dockerfile", "x"}))},
		{Kind: request.MaterialGit, URI: "https://example.com/n.git", Digest: commit},
		{Kind: request.MaterialGit, URI: "git@example.com:m#x", Digest: commit},
	}
	if d := cmp.Diff(want, fetched.Materials); d != "" {
		t.Errorf("of fetch (-want +got):\n%s", d)
	}
	want = []request.Material{
		{Kind: request.MaterialHTTP, URI: o.web + "/f?sig=xxxxx", Digest: sum([]byte("content"))},
		{Kind: request.MaterialGit, URI: "https://example.com/x.git#v1", Digest: commit},
	}
	if d := cmp.Diff(want, built.Materials); d != "" {
		t.Errorf("of build (-want +got):\n%s", d)
	}
	names := ""
	for _, f := range fetched.Fetched {
		names += f.Name + " "
	}
	if names != "main 0 1 " {
		t.Errorf("fetched %+v", fetched.Fetched)
	}
}

// TestRolesTellOnce: a remark is fetch's to tell, the sum of them build's.
func TestRolesTellOnce(t *testing.T) {
	h := newHost(t, Tools{})
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("from scratch AS x\nENV a b\nWORKDIR c\n"), 0o644))
	req := request.Build{Context: request.GuestPath(dir), Dockerfile: request.GuestPath(dir + "/Dockerfile"), NoPush: true, Args: []request.KeyValue{{Key: "unused", Value: "1"}}}
	fetched := succeed(t, "fetch", h.fetch(req))
	warnings, infos := h.told(request.EventWarning), h.told(request.EventInfo)
	if len(warnings) < 3 || len(infos) > 0 {
		t.Errorf("fetch told %q, %q", warnings, infos)
	}
	h.events = nil
	succeed(t, "build", h.build(req, fetched))
	if again := h.told(request.EventWarning); len(again) > 0 {
		t.Errorf("build tells again: %q", again)
	}
	if infos := h.told(request.EventInfo); len(infos) != 1 || !strings.Contains(infos[0], "warnings found") {
		t.Errorf("build told %q", infos)
	}
	// A build that ends in fetch ends there whole.
	check(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("from scratch AS x\nENV a b\nCOPY missing /\n"), 0o644))
	h.events = nil
	if r := h.fetch(req); r.Failure == nil || r.Failure.Class != request.ClassCopy || len(h.told(request.EventInfo)) != 1 {
		t.Errorf("%+v, told %q", r.Failure, h.told(request.EventInfo))
	}
}

// TestCallEndsInFetch: nothing is handed out for a question.
func TestCallEndsInFetch(t *testing.T) {
	o := newOpening(t, map[string][]byte{"/Dockerfile": []byte("FROM scratch AS x\n")})
	h := newHost(t, o.tools)
	r := succeed(t, "fetch", h.fetch(request.Build{Context: o.file("c/x", nil)[:len(o.dir)+2], DockerfileURL: o.web + "/Dockerfile", Call: request.CallTargets}))
	if r.Called == nil || !strings.Contains(string(r.Called.Text), "x (default)") || h.most > 0 {
		t.Errorf("%+v, %d outputs", r.Called, h.most)
	}
}

// TestRolesThatCannotGoOn: what is missing or refused has a name.
func TestRolesThatCannotGoOn(t *testing.T) {
	o := newOpening(t, map[string][]byte{"/x.tar": tarOf(t, entry{"Dockerfile", "FROM scratch\nWORKDIR /a\n"})})
	reg := startRegistry(t)
	fromBase := request.Build{
		Context: request.GuestPath(o.dir), NoPush: true,
		Dockerfile: o.file("Dockerfile", []byte("FROM "+reg.seed(t, "base:1", layered(t, here(), entry{"a", "1"}))+"\nWORKDIR /x\n")),
	}
	web := request.Build{Source: request.Source{URL: o.web + "/x.tar"}, NoPush: true}
	for _, tt := range []struct {
		name string
		run  func(*host) request.Result
		want string
	}{
		{"no room for a layer", func(h *host) request.Result { h.refuse = request.OutputStored; return h.fetch(fromBase) }, "no more room"},
		{"no room for a context", func(h *host) request.Result { h.refuse = request.OutputContext; return h.fetch(web) }, "hand out: no more room"},
		{"no room for the tags", func(h *host) request.Result { h.refuse = request.OutputTags; return h.fetch(fromBase) }, "hand out tags: no more room"},
		{"a base that was not fetched", func(h *host) request.Result { return h.build(fromBase, request.Result{}) }, "was not fetched"},
		{"a context that was not fetched", func(h *host) request.Result { return h.build(web, request.Result{}) }, "load build context: it was not fetched"},
		{"a context that nobody asked for", func(h *host) request.Result {
			return h.build(web, request.Result{Fetched: []request.Fetched{{Name: "../up"}}})
		}, `"../up" was fetched that nobody asked for`},
		{"an image that was not built", func(h *host) request.Result {
			req := fromBase
			req.Destinations, req.SkipPushCheck = []string{reg.addr + "/x:1"}, true
			return h.push(req, request.Result{Digest: "sha256:" + strings.Repeat("0", 64)})
		}, "blob not found"},
	} {
		h := newHost(t, o.tools)
		r := tt.run(h)
		if r.Failure == nil || !strings.Contains(r.Failure.Message, tt.want) {
			t.Errorf("%s: %+v, want %q", tt.name, r.Failure, tt.want)
		}
		if h.now != 0 {
			t.Errorf("%s: %d outputs are open still", tt.name, h.now)
		}
	}
}

// TestPushAttaches: what goes beside the image gets to each repository once,
// whatever its layers are.
func TestPushAttaches(t *testing.T) {
	reg := startRegistry(t)
	h := newHost(t, Tools{})
	st, err := store.Open(h.store)
	check(t, err)
	put := func(media types.MediaType, data []byte) v1.Descriptor {
		d, err := st.Put(data)
		check(t, err)
		return v1.Descriptor{MediaType: media, Digest: d, Size: int64(len(data))}
	}
	manifest := func(layer types.MediaType) request.Descriptor {
		raw, err := json.Marshal(v1.Manifest{
			SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: put(types.OCIConfigJSON, []byte("{}")),
			Layers: []v1.Descriptor{put(layer, []byte(layer))},
		})
		check(t, err)
		return descriptor(put(types.OCIManifestSchema1, raw))
	}
	image, extra := manifest(types.OCILayer), manifest("application/vnd.dsse.envelope.v1+json")
	req := request.Build{Destinations: []string{reg.addr + "/a:1", reg.addr + "/a:2", reg.addr + "/b:1"}}
	r := succeed(t, "push", h.push(req, request.Result{Digest: image.Digest, Size: image.Size, Media: image.MediaType}, request.Attached{Descriptor: extra, Tag: "x.att"}))
	if d := cmp.Diff(req.Destinations, r.Pushed); d != "" {
		t.Errorf("pushed (-want +got):\n%s", d)
	}
	for _, ref := range []string{"/a:x.att", "/b:x.att"} {
		if got := digestOf(t, reg.addr+ref); got != extra.Digest {
			t.Errorf("%s is %s, want %s", ref, got, extra.Digest)
		}
	}
	if n := reg.count("PUT /v2/a/manifests/x.att"); n != 1 {
		t.Errorf("attached %d times", n)
	}
	var plan int64
	for _, e := range h.events {
		if e.Kind == request.EventPlan {
			plan = e.Total
		}
	}
	if started := len(h.told(request.EventStart)); int(plan) != started {
		t.Errorf("announced %d pieces of work, did %d", plan, started)
	}
}

// TestTreeOfCheckout: a tree that went out as a tar is the same again.
func TestTreeOfCheckout(t *testing.T) {
	dir := t.TempDir()
	check(t, os.MkdirAll(dir+"/d/e", 0o755))
	for name, mode := range map[string]os.FileMode{"plain": 0o644, "d/run": 0o755, "odd\xff": 0o644, strings.Repeat("n", 200): 0o644} {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(name), mode))
		check(t, os.Chtimes(filepath.Join(dir, name), epochOf2001, epochOf2001.Add(7)))
	}
	check(t, os.Symlink("../"+strings.Repeat("t", 300), dir+"/d/link"))
	var b bytes.Buffer
	check(t, writeTree(context.Background(), &b, dir))
	got := map[string]string{}
	for r := tar.NewReader(&b); ; {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		check(t, err)
		data, err := io.ReadAll(r)
		check(t, err)
		if e.Uid != 0 || e.Gid != 0 || e.Uname != "" || e.Typeflag == tar.TypeReg && !e.ModTime.Equal(epochOf2001.Add(7)) {
			t.Errorf("%+v", e)
		}
		got[e.Name] = e.FileInfo().Mode().String() + " " + e.Linkname + string(data)
	}
	want := map[string]string{
		"plain": "-rw-r--r-- plain", "d/": "drwxr-xr-x ", "d/e/": "drwxr-xr-x ", "d/run": "-rwxr-xr-x d/run", "odd\xff": "-rw-r--r-- odd\xff",
		strings.Repeat("n", 200): "-rw-r--r-- " + strings.Repeat("n", 200), "d/link": "Lrwxrwxrwx ../" + strings.Repeat("t", 300),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
