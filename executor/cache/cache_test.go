package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

func key(c byte) string { return strings.Repeat(string(c), 64) }

func digest(c byte) string { return "sha256:" + key(c) }

// a result, as somebody reads it who did not make it.
func result(k byte) Result {
	return Result{key(k), request.CachedStep{
		DiffID: digest('d'), Digest: digest('b'), Size: 7, Media: string(types.OCILayer), Created: time.Unix(1700000000, 5).UTC(), Pulled: true,
	}}
}

// errRefused: package registry has no such image.
var errRefused = errors.New("no image")

// read is what Read makes of an image.
func read(t testing.TB, k string, conf, manifest []byte) (request.CachedStep, error) {
	t.Helper()
	var m v1.Manifest
	var c config
	if json.Unmarshal(manifest, &m) != nil || json.Unmarshal(conf, &c) != nil {
		return request.CachedStep{}, errRefused
	}
	img := &registry.Image{Config: conf, Layers: m.Layers}
	for _, d := range c.RootFS.DiffIDs {
		h, err := v1.NewHash(d)
		if err != nil {
			return request.CachedStep{}, errRefused
		}
		img.DiffIDs = append(img.DiffIDs, h)
	}
	if len(img.DiffIDs) != len(img.Layers) {
		return request.CachedStep{}, errRefused
	}
	return Read(k, img)
}

// TestImage: what is read is what was written, and the same bytes come of it again: else
// everything would be pushed with each build.
func TestImage(t *testing.T) {
	docker, zstd, pointer := result('1'), result('2'), result('3')
	docker.Step.Media = string(types.DockerLayer)
	zstd.Step.Media = string(types.OCILayerZStd)
	pointer.Step.Key = key('4')
	for _, r := range []Result{docker, zstd, pointer} {
		conf, manifest, err := r.Image()
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(t, r.Key, conf, manifest)
		want := r.Step
		if want.Media == string(types.DockerLayer) {
			want.Media = string(types.OCILayer)
		}
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
		conf2, manifest2, err := Result{r.Key, got}.Image()
		if string(conf) != string(conf2) || string(manifest) != string(manifest2) || err != nil {
			t.Errorf("again, %v:\n%s\n%s", err, manifest, manifest2)
		}
	}
}

// TestRead: an image that is no result, or that of another step, is not used.
func TestRead(t *testing.T) {
	conf, manifest, err := result('1').Image()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ from, to, want string }{
		"another step":     {key('1'), key('2'), "not called"},
		"an image":         {keyLabel, "other", "not called"},
		"no result":        {`"kbuild-sandbox.step":`, `"kbuild-sandbox.step.result":"../x","kbuild-sandbox.step":`, "malformed kbuild-sandbox.step.result"},
		"no age":           {`"created":"2023-`, `"created":"0001-`, "of the year 1"},
		"the end of times": {`"created":"2023-`, `"created":"9999-`, "of the year 9999"},
		"two layers":       {`"layers":[`, `"layers":[{"mediaType":"` + string(types.OCILayer) + `","size":7,"digest":"` + digest('c') + `"},`, "2 layers"},
		"a foreign layer":  {string(types.OCILayer), "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "layer of type"},
	} {
		c, m := strings.Replace(string(conf), tt.from, tt.to, 1), strings.Replace(string(manifest), tt.from, tt.to, 1)
		if tt.want == "2 layers" {
			c = strings.Replace(c, `"diff_ids":[`, `"diff_ids":["`+digest('c')+`",`, 1)
		}
		if c == string(conf) && m == string(manifest) {
			t.Errorf("%s changes nothing", name)
		}
		if _, err := read(t, key('1'), []byte(c), []byte(m)); !errors.Is(err, errForm) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// FuzzRead: whatever a registry says, what comes of it can be asked for, kept and told.
func FuzzRead(f *testing.F) {
	conf, manifest, err := result('1').Image()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(conf, manifest)
	f.Fuzz(func(t *testing.T, conf, manifest []byte) {
		step, err := read(t, key('1'), conf, manifest)
		if err != nil {
			return
		}
		if _, err := json.Marshal(step); err != nil || !step.Found() || step.Key != "" && !keyForm.MatchString(step.Key) {
			t.Errorf("%+v: %v", step, err)
		}
	})
}

// FuzzReadIndex: of an index only well-formed entries are used.
func FuzzReadIndex(f *testing.F) {
	h, err := v1.NewHash(digest('a'))
	if err != nil {
		f.Fatal(err)
	}
	raw, err := Index([]Entry{{key('1'), v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: h, Size: 3}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(strings.Replace(string(raw), key('1'), "../1", 1)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, _ := ReadIndex(raw)
		for _, e := range list {
			if !keyForm.MatchString(e.Key) || e.Manifest.Size < 0 || e.Manifest.Digest.Algorithm != "sha256" || e.Manifest.Annotations != nil {
				t.Errorf("%+v", e)
			}
		}
	})
}

// pushed is a registry with results under tags, and in an index with another image.
func pushed(t *testing.T, c *registry.Client, st *store.Store, to string, results ...Result) {
	t.Helper()
	var entries []Entry
	for _, r := range results {
		blob, err := st.Put([]byte("layer"))
		if err != nil {
			t.Fatal(err)
		}
		r.Step.Digest, r.Step.Size = blob.String(), int64(len("layer"))
		conf, manifest, err := r.Image()
		if err == nil {
			_, err = st.Put(conf)
		}
		if err != nil {
			t.Fatal(err)
		}
		h, err := st.Put(manifest)
		if err != nil {
			t.Fatal(err)
		}
		e := Entry{r.Key, v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: h, Size: int64(len(manifest))}}
		entries = append(entries, e)
		if err := c.Push(t.Context(), st, e.Manifest, to+":"+Tag(r.Key), nil); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Tagged(t.Context(), to+":"+Tag(r.Key)); err != nil || got != h {
			t.Errorf("tagged %s, %v, want %s", got, err, h)
		}
	}
	raw, err := Index(entries)
	if err != nil {
		t.Fatal(err)
	}
	h, err := st.Put(raw)
	if err == nil {
		err = c.Push(t.Context(), st, v1.Descriptor{MediaType: types.OCIImageIndex, Digest: h, Size: int64(len(raw))}, to+":all", nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// laidOut writes the same as an OCI layout: the store has everything but index.json.
func laidOut(t *testing.T, dir string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), `"manifests":`) {
			if err := os.WriteFile(filepath.Join(dir, "index.json"), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestFinder asks a real registry and a layout, and places that are none.
func TestFinder(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	private := registrytest.Start(t, registrytest.Options{Auth: true})
	c, err := registry.New(registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	st, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	pushed(t, c, st, r.Addr+"/x/cache", result('1'), result('2'))
	laidOut(t, dir)
	repository := request.CachePlace{Repository: r.Addr + "/x/cache"}
	reference := request.CachePlace{Reference: r.Addr + "/x/cache:all"}
	layout := request.CachePlace{Layout: request.GuestPath(dir), Called: "./dir"}
	for name, tt := range map[string]struct {
		places []request.CachePlace
		place  string // that has it
		warn   string
	}{
		"repository":            {[]request.CachePlace{repository}, repository.Name(), ""},
		"reference":             {[]request.CachePlace{reference}, reference.Name(), ""},
		"layout":                {[]request.CachePlace{layout}, "./dir", ""},
		"the first has it":      {[]request.CachePlace{layout, reference}, "./dir", ""},
		"the second has it":     {[]request.CachePlace{{Repository: r.Addr + "/none"}, {Reference: r.Addr + "/none:x"}, {Layout: request.GuestPath(t.TempDir()), Called: "e"}, reference}, reference.Name(), ""},
		"nobody is there":       {[]request.CachePlace{{Repository: "127.0.0.1:1/x"}, repository}, repository.Name(), "cache 127.0.0.1:1/x is not used: "},
		"nobody is let in":      {[]request.CachePlace{{Repository: private.Addr + "/x"}, repository}, repository.Name(), "cache " + private.Addr + "/x is not used: "},
		"an image":              {[]request.CachePlace{{Reference: r.Addr + "/x/cache:" + Tag(key('1'))}, repository}, repository.Name(), "it is an image, and no index"},
		"a file in the layout":  {[]request.CachePlace{{Layout: request.GuestPath(filepath.Join(dir, "index.json")), Called: "f"}, repository}, repository.Name(), "cache f is not used"},
		"not even a repository": {[]request.CachePlace{{Repository: "A B"}, repository}, repository.Name(), "cache A B is not used"},
	} {
		t.Run(name, func(t *testing.T) {
			var warned []string
			f := NewFinder(tt.places, c, func(text string) { warned = append(warned, text) })
			for _, k := range []byte{'1', '3', '2', '1'} {
				found, err := f.Find(t.Context(), key(k))
				if err != nil || found.Step.Found() == (k == '3') || found.Step.Found() && found.Place != tt.place {
					t.Errorf("%c: %+v, %v", k, found.Step, err)
				}
				if k != '3' && (!f.Has(found.Step) || f.Of(found.Step).Image == nil || (found.Layout != nil) != (tt.place == "./dir")) {
					t.Errorf("%c: %+v", k, found)
				}
			}
			if got := strings.Join(warned, "\n"); !strings.Contains(got, tt.warn) || len(warned) > 1 || (tt.warn == "") != (got == "") {
				t.Errorf("warned %q, want %q", got, tt.warn)
			}
			found, err := f.Find(t.Context(), key('1'))
			f.Drop(found.Image)
			if again, e := f.Find(t.Context(), key('1')); err != nil || e != nil || again.Step.Found() {
				t.Errorf("dropped, and found: %+v, %v, %v", again, err, e)
			}
		})
	}
	if (*Finder)(nil).Has(result('1').Step) {
		t.Error("nobody has something")
	}
}

// TestRenamed: a registry that delivers the result of another step is not believed.
func TestRenamed(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	c, err := registry.New(registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pushed(t, c, st, r.Addr+"/x", result('1'))
	h, err := c.Tagged(t.Context(), r.Addr+"/x:"+Tag(key('1')))
	raw, e := st.Read(h)
	if err != nil || e != nil {
		t.Fatal(err, e)
	}
	if err := c.Push(t.Context(), st, v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: h, Size: int64(len(raw))}, r.Addr+"/x:"+Tag(key('2')), nil); err != nil {
		t.Fatal(err)
	}
	var warned string
	f := NewFinder([]request.CachePlace{{Repository: r.Addr + "/x"}}, c, func(text string) { warned = text })
	found, err := f.Find(t.Context(), key('2'))
	if want := fmt.Sprintf("not called %s", key('2')); err != nil || found.Step.Found() || !strings.Contains(warned, want) {
		t.Errorf("%+v, %v, %q", found.Step, err, warned)
	}
}
