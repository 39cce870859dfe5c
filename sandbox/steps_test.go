package sandbox

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// cachingLayers are those of a run with a layer cache, over an empty store.
func cachingLayers(t *testing.T, cache string) *layers {
	t.Helper()
	s, err := openStore(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	c := &Config{Sink: discard{}, Caches: Caches{Dir: cache, LayerLimit: 1 << 30}, Request: request.Build{StepCache: true}}
	l, err := openLayers(c, t.TempDir(), s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type discard struct{}

func (discard) Emit(request.Event) {}

var stepKey = strings.Repeat("a", 64)

// say has a role hand out something, and returns the error that ends its sandbox.
func say(i *intake, what request.Output, content []byte, end string) error {
	what.Stream = 1
	err := i.begin(what)
	if err == nil {
		err = i.write(1, content)
	}
	if err == nil {
		err = i.end(request.OutputEnd{Stream: 1, Digest: end})
	}
	i.discard()
	return err
}

// TestHostileSteps: what build says of a step is refused unless what it names has come
// from it, and never takes the place of a base's layer.
func TestHostileSteps(t *testing.T) {
	cache := t.TempDir()
	l := cachingLayers(t, cache)
	in := func(role request.Role) *intake {
		return &intake{role: role, store: l.in, layers: l, open: map[uint32]incoming{}}
	}
	none := "sha256:" + strings.Repeat("0", 64)
	step := func(key, content string) error {
		return say(in(request.RoleBuild), request.Output{Kind: request.OutputStep, Name: key}, []byte(content), "")
	}
	for what, err := range map[string]error{
		"no key":                  step("../x", `{"hint":true}`),
		"no JSON":                 step(stepKey, `{`),
		"nothing":                 step(stepKey, `{}`),
		"an unknown field":        step(stepKey, `{"hint":true,"x":1}`),
		"a hint and a layer":      step(stepKey, `{"hint":true,"diffID":"`+none+`"}`),
		"a path for a digest":     step(stepKey, `{"diffID":"sha256:../../x","image":true}`),
		"a path for a blob":       step(stepKey, `{"diffID":"`+none+`","digest":"sha256:../../x"}`),
		"a path for a key":        step(stepKey, `{"hint":true,"key":"../x"}`),
		"an image that never was": step(stepKey, `{"diffID":"`+none+`","image":true}`),
		"a blob that never was":   step(stepKey, `{"diffID":"`+none+`","digest":"`+none+`","size":1}`),
		"too much":                step(stepKey, `{"hint":true,"media":"`+strings.Repeat("x", maxStep)+`"}`),
		"a step of fetch":         say(in(request.RoleFetch), request.Output{Kind: request.OutputStep, Name: stepKey}, []byte(`{"hint":true}`), ""),
		"a layer of push":         say(in(request.RolePush), request.Output{Kind: request.OutputLayer}, nil, none),
		"a base's layer of build": say(in(request.RoleBuild), request.Output{Kind: request.OutputLayer, Name: request.LayerKey(none, none)}, nil, ""),
		"a step's layer of fetch": say(in(request.RoleFetch), request.Output{Kind: request.OutputLayer, Name: "step-" + request.LayerKey(none, none)}, nil, ""),
		"a blob of fetch":         say(in(request.RoleFetch), request.Output{Kind: request.OutputLayer, Name: "blob-" + strings.Repeat("0", 64)}, make([]byte, 8192), ""),
		"a layer without a name":  say(in(request.RoleBuild), request.Output{Kind: request.OutputLayer}, make([]byte, 8192), "sha256:../../x"),
	} {
		if !errors.Is(err, errOutput) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if l.close(); len(left(t, cache)) != 0 {
		t.Errorf("left: %v", left(t, cache))
	}
}

// TestSteps: a step is found again by the next run, with its blob in the store and its
// image to be mounted; what is damaged or gone is as if it had never been.
func TestSteps(t *testing.T) {
	cache := t.TempDir()
	l := cachingLayers(t, cache)
	in := &intake{role: request.RoleBuild, store: l.in, layers: l, open: map[uint32]incoming{}}
	diffID := "sha256:" + strings.Repeat("d", 64)
	digest, err := l.in.put([]byte("blob"))
	if err != nil {
		t.Fatal(err)
	}
	sum := hex.EncodeToString(sha256.New().Sum(nil)) // of no image
	empty := sha256.Sum256(make([]byte, 8192))
	want := request.CachedStep{DiffID: diffID, Digest: digest, Size: 4, Image: true, Sum: hex.EncodeToString(empty[:])}
	record := fmt.Sprintf(`{"diffID":%q,"digest":%q,"size":4,"image":true,"sum":%q}`, diffID, digest, sum)
	for _, err := range []error{
		say(in, request.Output{Kind: request.OutputLayer}, make([]byte, 8192), diffID),
		say(in, request.Output{Kind: request.OutputStep, Name: stepKey}, []byte(record), ""),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if c := l.find(stepKey); c != (request.CachedStep{}) {
		t.Errorf("found before the run has ended: %+v", c)
	}
	l.keepSteps()
	l.close()
	next := cachingLayers(t, cache)
	if c := next.find(stepKey); c != want {
		t.Errorf("%+v, want %+v", c, want)
	}
	if n, ok := next.in.size(digest); !ok || n != 4 {
		t.Error("the blob is not in the store")
	}
	if files, err := next.use([]string{want.LayerKey()}); err != nil || len(files) != 1 {
		t.Errorf("%q, %v", files, err)
	}
	// What is found stays, whoever removes it meanwhile.
	if r, err := PruneCaches(cache, time.Now().Add(time.Hour)); err != nil || r.Layers != 0 {
		t.Errorf("pruned %+v, %v", r, err)
	}
	next.todo = append(next.todo, notedStep{stepKey, want}) // the note is held by nobody
	next.keepSteps()
	next.close()
	// Without its blob it is an image for other stages, and without that nothing.
	for _, gone := range []struct {
		suffix string
		want   request.CachedStep
	}{{".blob", request.CachedStep{DiffID: diffID, Size: 4, Image: true, Sum: want.Sum}}, {".erofs", request.CachedStep{}}} {
		for _, name := range left(t, cache) {
			if !strings.HasSuffix(name, gone.suffix) {
				continue
			}
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		again := cachingLayers(t, cache)
		if c := again.find(stepKey); c != gone.want {
			t.Errorf("without %s: %+v, want %+v", gone.suffix, c, gone.want)
		}
		again.close()
	}
}

// TestPlantedImage: an image that a build has handed out under the DiffID of another layer
// is not what a later build's step of that layer gets.
func TestPlantedImage(t *testing.T) {
	cache := t.TempDir()
	diffID := "sha256:" + strings.Repeat("d", 64)
	record := []byte(fmt.Sprintf(`{"diffID":%q,"image":true}`, diffID))
	content := func(b byte) []byte { return bytes.Repeat([]byte{b}, 8192) }
	run := func(key string, image []byte) {
		l := cachingLayers(t, cache)
		defer l.close()
		in := &intake{role: request.RoleBuild, store: l.in, layers: l, open: map[uint32]incoming{}}
		if err := errors.Join(
			say(in, request.Output{Kind: request.OutputLayer}, image, diffID),
			say(in, request.Output{Kind: request.OutputStep, Name: key}, record, ""),
		); err != nil {
			t.Fatal(err)
		}
		l.keepSteps()
	}
	other := strings.Repeat("b", 64)
	run(other, content('x'))
	run(stepKey, content('y'))
	l := cachingLayers(t, cache)
	defer l.close()
	for key, want := range map[string]byte{other: 'x', stepKey: 'y'} {
		files, err := l.use([]string{l.find(key).LayerKey()})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(files[0]); err != nil || got[0] != want {
			t.Errorf("step %s has the image %c, %v; want %c", key, got[0], err, want)
		}
	}
}

// left are the files of a cache directory.
func left(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != "lock" {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestTwice: a layer that is there already costs no room.
func TestTwice(t *testing.T) {
	l := cachingLayers(t, t.TempDir())
	defer l.close()
	l.disk = &disk{dir: t.TempDir()}
	in := &intake{role: request.RoleBuild, store: l.in, layers: l, open: map[uint32]incoming{}}
	for range 2 {
		if err := say(in, request.Output{Kind: request.OutputLayer}, make([]byte, 8192), "sha256:"+strings.Repeat("d", 64)); err != nil {
			t.Fatal(err)
		}
		if l.disk.kept != 8192 {
			t.Errorf("%d bytes are taken", l.disk.kept)
		}
	}
}

// TestLost: a damaged image of a base is not offered to fetch if it is likely to be
// needed, and else ends the run with what makes it begin again.
func TestLost(t *testing.T) {
	cache := t.TempDir()
	key := request.LayerKey("sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64))
	l := cachingLayers(t, cache)
	damage := func() {
		in := &intake{role: request.RoleFetch, store: l.in, layers: l, open: map[uint32]incoming{}}
		if err := say(in, request.Output{Kind: request.OutputLayer, Name: key}, make([]byte, 8192), ""); err != nil {
			t.Fatal(err)
		}
		l.close()
		file := filepath.Join(cache, "layers", key+".erofs")
		bad := make([]byte, 8192)
		bad[0] = 1
		if err := errors.Join(os.WriteFile(file+".bad", bad, 0o400), os.Rename(file+".bad", file)); err != nil {
			t.Fatal(err)
		}
	}
	damage()
	l = cachingLayers(t, cache)
	if _, err := l.use([]string{key}); !errors.Is(err, errLost) {
		t.Errorf("a damaged image is used: %v", err)
	}
	l.remember([]string{key})
	damage()
	if l = cachingLayers(t, cache); l.held[key] != nil || len(l.guess()) != 0 {
		t.Error("a damaged image is offered")
	}
	l.close()
}
