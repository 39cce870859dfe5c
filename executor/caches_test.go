package executor

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/insandbox"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/cachedir"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// cacheHost keeps cache mounts for the builds of one test.
type cacheHost struct {
	t     *testing.T
	dir   *cachedir.Dir
	path  string
	limit int64

	mu    sync.Mutex
	texts []string // of events, of one build
}

func newCacheHost(t *testing.T) *cacheHost {
	t.Helper()
	path, err := os.MkdirTemp(insandbox.Workspace, "c")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(path)) })
	const limit = 1 << 20
	dir, err := cachedir.Open(path, limit, 0)
	check(t, err)
	return &cacheHost{t: t, dir: dir, path: path, limit: limit}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *cacheHost) Emit(e request.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.texts = append(h.texts, e.Text+e.Error)
}

func (h *cacheHost) Keep(request.Output) error { return errors.ErrUnsupported }

func (h *cacheHost) Open(what request.Output) (request.Stream, error) {
	if what.Digest == "" {
		return hostLayer{}, h.dir.Touch(cachedir.Key(what.Name), what.Base)
	}
	in, err := h.dir.Create(cachedir.Key(what.Name), cachedir.Layer{Digest: what.Digest, Size: what.Size})
	return hostLayer{in, what.Base}, err
}

type hostLayer struct {
	*cachedir.Incoming
	base string
}

func (l hostLayer) Commit(string) error {
	if l.Incoming == nil {
		return nil
	}
	return l.Incoming.Commit(l.base)
}

func (l hostLayer) Close() error {
	if l.Incoming != nil {
		l.Discard()
	}
	return nil
}

// cacheBuild is a build with nothing but cache mounts.
type cacheBuild struct {
	h   *cacheHost
	c   *caches
	img *image
}

// build runs use as a build, which ends with ended.
func (h *cacheHost) build(ctx context.Context, ended error, use func(*cacheBuild), args ...request.KeyValue) {
	t := h.t
	t.Helper()
	h.texts = nil
	dir, err := os.MkdirTemp(insandbox.Workspace, "b")
	check(t, err)
	space, err := rootfs.New(dir)
	check(t, err)
	req := &request.Build{
		Workspace: request.GuestPath(dir), Caches: request.GuestPath(h.path), CacheSize: h.limit, Args: args,
	}
	c, err := newCaches(req, space, Tools{Outlet: h}, NewSteps(h))
	check(t, err)
	b := &cacheBuild{h: h, c: c, img: &image{stages: map[plan.StageID]*stage{}}}
	use(b)
	b.c.keep(ctx, ended)
	check(t, space.Close())
	check(t, os.RemoveAll(dir))
}

// open opens a cache that starts empty.
func (b *cacheBuild) open(id string) string { return b.openAs(step.Cache{ID: id, Source: "/"}) }

func (b *cacheBuild) openAs(c step.Cache) string {
	b.h.t.Helper()
	if c.Start == nil {
		c.Start = func(context.Context) (string, func() error, error) {
			dir, err := b.c.space.Mkdir()
			return dir, func() error { return nil }, err
		}
	}
	kept, err := b.c.opener(b.img)(b.h.t.Context(), c)
	check(b.h.t, err)
	return kept.Dir()
}

// key is the key of the cache with an id.
func (b *cacheBuild) key(id string) cachedir.Key {
	name, err := b.c.name(b.h.t.Context(), b.img, step.Cache{ID: id, Source: "/"})
	check(b.h.t, err)
	return cachedir.KeyOf(name)
}

// sh runs a shell script in a directory and returns what it prints.
func sh(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("/bin/busybox", "sh", "-ec", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// run is a build whose one command works in the cache "c"; it must print want.
func (h *cacheHost) run(script, want string) (s cachedir.State) {
	h.t.Helper()
	h.build(h.t.Context(), nil, func(b *cacheBuild) {
		if got := sh(h.t, b.open("c"), script); got != want {
			h.t.Errorf("%s: %q, want %q", script, got, want)
		}
		s = h.state(b.key("c"))
	})
	return s
}

func (h *cacheHost) state(key cachedir.Key) cachedir.State {
	h.t.Helper()
	snap, err := h.dir.Take(key)
	check(h.t, err)
	snap.Close()
	return snap.State
}

func TestCacheRoundTrip(t *testing.T) {
	h := newCacheHost(t)
	h.run("mkdir -p d/e gone; echo a > d/f; ln d/f hard; ln -s f d/l; mkfifo p; touch d/e/x gone/y; chmod 4755 d/f; chown 1:2 d/l -h; chmod 1711 .; chown 3:4 .", "")
	h.run("rm -r gone d/e; mkdir d/e; touch d/e/new; echo b >> d/f; chmod 4755 d/f", "")
	look := "find . | sort; stat -c '%a %u:%g' . d/f d/l; [ -p p ]; cat d/f"
	want := ".\n./d\n./d/e\n./d/e/new\n./d/f\n./d/l\n./hard\n./p\n1711 3:4\n4755 0:0\n777 1:2\na\nb\n"
	before := h.run(look, want)
	if after := h.run(look, want); after.Chain() != before.Chain() || len(after.Layers) != 2 || !after.Used.After(before.Used) {
		t.Errorf("%+v, then %+v", before, after)
	}
	if all := strings.Join(h.texts, ""); all != "" {
		t.Errorf("said %q", all)
	}
	h.run("chmod 700 .", "")
	h.run("stat -c '%a %u:%g' .; chown 0:0 .", "700 3:4\n")
	h.run("stat -c '%a %u:%g' .", "700 0:0\n")
}

// TestCacheIsKeptWhole: neither many layers nor large ones on a small one go on
// for ever.
func TestCacheIsKeptWhole(t *testing.T) {
	h := newCacheHost(t)
	most := 0
	h.run("seq 10000 | sha256sum | tee first; head -c 100000 /dev/urandom > base", sh(t, "/", "seq 10000 | sha256sum"))
	for i := range 2*maxDeltas + 3 {
		s := h.run(fmt.Sprintf("ls | wc -l; touch f%d", i), fmt.Sprintln(i+2))
		most = max(most, len(s.Layers))
	}
	if most != maxDeltas+1 {
		t.Errorf("at most %d layers, want %d", most, maxDeltas+1)
	}
	h = newCacheHost(t)
	h.run("touch small", "")
	h.run("head -c 1000 /dev/urandom > large", "")
	h.run("touch more", "")
	if s := h.run("ls", "large\nmore\nsmall\n"); len(s.Layers) != 1 {
		t.Errorf("%d layers", len(s.Layers))
	}
}

// TestCacheThatIsNotKept: nothing of a build that was cancelled or whose walls
// fell; of another whatever can be kept.
func TestCacheThatIsNotKept(t *testing.T) {
	h := newCacheHost(t)
	write := func(b *cacheBuild) { sh(t, b.open("c"), "touch f") }
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	h.build(canceled, nil, write)
	h.build(t.Context(), fmt.Errorf("x: %w", &WallError{Wall: "seccomp"}), write)
	h.run("ls", "")
	h.build(t.Context(), nil, func(b *cacheBuild) {
		sh(t, b.open("bad"), "touch .wh.x")
		sh(t, b.open("large"), "head -c 2000000 /dev/urandom > f")
		write(b)
	})
	said := strings.Join(h.texts, "\n")
	for _, want := range []string{"cache mount bad is not kept: ", "cache mount large is not kept: it has 2"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in %q", want, said)
		}
	}
	h.run("ls", "f\n")
	h.build(t.Context(), errors.New("a step failed"), func(b *cacheBuild) { sh(t, b.open("c"), "touch g") })
	h.run("ls", "f\ng\n")
	if left, err := filepath.Glob(h.path + "/.new-*"); err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
}

// plant puts a layer into the cache "c" that nobody handed out.
func (h *cacheHost) plant(data []byte) {
	h.t.Helper()
	h.build(h.t.Context(), nil, func(b *cacheBuild) {
		w, err := h.Open(request.Output{Name: string(b.key("c")), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(data)), Size: int64(len(data))})
		check(h.t, err)
		_, err = w.Write(data)
		check(h.t, errors.Join(err, w.Commit("")))
	})
}

func TestHostileCache(t *testing.T) {
	outside, err := os.MkdirTemp("", "outside")
	check(t, err)
	defer os.RemoveAll(outside)
	archive := func(entries ...*tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, e := range entries {
			check(t, w.WriteHeader(e))
		}
		check(t, w.Close())
		return b.Bytes()
	}
	for name, data := range map[string][]byte{
		"up":       archive(&tar.Header{Name: "../../" + outside + "/x", Typeflag: tar.TypeReg}),
		"link":     archive(&tar.Header{Name: "l", Linkname: outside, Typeflag: tar.TypeSymlink}, &tar.Header{Name: "l/x", Typeflag: tar.TypeReg}),
		"hardlink": archive(&tar.Header{Name: "h", Linkname: "/etc/hostname", Typeflag: tar.TypeLink}),
		"no tar":   []byte(strings.Repeat("?", 5000)),
		"whiteout": archive(&tar.Header{Name: "c", Typeflag: tar.TypeChar}),
		"cut":      archive(&tar.Header{Name: "f", Typeflag: tar.TypeReg})[:700],
	} {
		h := newCacheHost(t)
		h.plant(data)
		h.run("rm -rf l tmp; find . ! -name .; touch new", "")
		if said := strings.Join(h.texts, ""); name != "link" && !strings.Contains(said, "cache mount c: what was kept of it cannot be used, it starts anew: ") {
			t.Errorf("%s: %q", name, said)
		}
		if found, err := os.ReadDir(outside); err != nil || len(found) > 0 {
			t.Fatalf("%s: outside: %v, %v", name, found, err)
		}
		h.run("ls", "new\n")
	}
}

// TestDamagedCache: every byte of a layer counts.
func TestDamagedCache(t *testing.T) {
	h := newCacheHost(t)
	for _, at := range []int64{0, 20, -1} {
		h.run("touch f", "")
		files, err := filepath.Glob(h.path + "/*/" + strings.Repeat("[0-9a-f]", 64))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		b, err := os.ReadFile(files[0])
		check(t, err)
		b[(at+int64(len(b)))%int64(len(b))] ^= 1
		check(t, os.WriteFile(files[0], b, 0o600))
		h.run("ls; touch g", "")
		if said := strings.Join(h.texts, ""); !strings.Contains(said, "it starts anew") {
			t.Errorf("byte %d: %q", at, said)
		}
		h.run("ls; rm g", "g\n")
	}
}

// TestDigestOfCache: a layer that is in order, but not the one that was kept.
func TestDigestOfCache(t *testing.T) {
	h := newCacheHost(t)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	check(t, w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 4, Mode: 0o644}))
	_, err := w.Write([]byte("good"))
	check(t, errors.Join(err, w.Close()))
	h.plant(b.Bytes())
	h.run("cat f", "good")
	files, err := filepath.Glob(h.path + "/*/" + strings.Repeat("[0-9a-f]", 64))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	check(t, os.WriteFile(files[0], bytes.Replace(b.Bytes(), []byte("good"), []byte("evil"), 1), 0o600))
	h.run("ls", "")
	if said := strings.Join(h.texts, ""); !strings.Contains(said, "digest mismatch") {
		t.Errorf("said %q", said)
	}
}

// TestCacheStartsAsStage: with what the stage has, once; later builds do not
// need it.
func TestCacheStartsAsStage(t *testing.T) {
	h := newCacheHost(t)
	starts := 0
	use := func(script, want string) {
		h.build(t.Context(), nil, func(b *cacheBuild) {
			dir := b.openAs(step.Cache{ID: "c", Source: "/s", Start: func(context.Context) (string, func() error, error) {
				starts++
				dir, err := b.c.space.Mkdir()
				check(t, err)
				sh(t, dir, "mkdir s; chmod 750 s; chown 7:8 s; touch s/seed s/other")
				return filepath.Join(dir, "s"), func() error { return nil }, err
			}})
			if got := sh(t, dir, script); got != want {
				t.Errorf("%s: %q, want %q", script, got, want)
			}
		})
	}
	use("ls", "other\nseed\n")
	use("rm seed; touch new; stat -c '%a %u:%g' .", "750 7:8\n")
	use("ls; stat -c '%a %u:%g' .", "new\nother\n750 7:8\n")
	if starts != 2 {
		t.Errorf("started %d times", starts)
	}
}

// TestCacheNames: what makes two caches of one id different.
func TestCacheNames(t *testing.T) {
	h := newCacheHost(t)
	names := map[string]string{}
	add := func(what string, c step.Cache, args ...request.KeyValue) {
		h.build(t.Context(), nil, func(b *cacheBuild) {
			name, err := b.c.name(t.Context(), b.img, c)
			check(t, err)
			if other, ok := names[name]; ok {
				t.Errorf("%s and %s are one cache", what, other)
			}
			names[name] = what
		}, args...)
	}
	add("plain", step.Cache{ID: "a"})
	add("id", step.Cache{ID: "b"})
	add("namespace", step.Cache{ID: "a"}, request.KeyValue{Key: "BUILDKIT_CACHE_MOUNT_NS", Value: "n"})
	add("slash in the namespace", step.Cache{ID: "a"}, request.KeyValue{Key: "BUILDKIT_CACHE_MOUNT_NS", Value: "n/m"})
	add("slash in the id", step.Cache{ID: "m/a"}, request.KeyValue{Key: "BUILDKIT_CACHE_MOUNT_NS", Value: "n"})
	add("owner", step.Cache{ID: "a", Owner: "0755 0:0"})
	add("source", step.Cache{ID: "a", Source: "/s"})
	add("copy", step.Cache{ID: "a", Copy: 1})
}

// TestCacheIdentity: a stage is what its base, its commands and its files are,
// whatever their times.
func TestCacheIdentity(t *testing.T) {
	h := newCacheHost(t)
	type recipe struct{ content, command, heredoc, owner, base string }
	// identity is that of a stage on the one that r makes, and of one that binds it.
	identity := func(r recipe) (ids [2]string) {
		h.build(t.Context(), nil, func(b *cacheBuild) {
			files, err := b.c.space.Mkdir()
			check(t, err)
			made, err := b.c.space.Mkdir()
			check(t, err)
			sh(t, files, fmt.Sprintf("echo %s > f; chown %s f", r.content, r.owner))
			sh(t, made, "date +%N > made") // what a command makes may differ each time
			s := &plan.Stage{Steps: []*plan.Step{
				{Op: &plan.Copy{}}, {Op: &plan.Run{Args: []string{r.command}, Files: []plan.File{{Name: "h", Data: []byte(r.heredoc)}}}},
			}}
			if r.base != "" {
				s.Base.Image = &plan.Resolved{}
				s.Base.Image.Digest.Hex = r.base
			}
			b.img.stages[0] = &stage{Stage: s, work: []*work{{upper: files}, {upper: made}}}
			bind := &plan.Run{Mounts: []plan.Mount{{Type: "bind", From: plan.From{Kind: plan.FromStage, Stage: s}}}}
			for i, on := range []*plan.Stage{{ID: 1, Base: plan.Base{Stage: s}}, {ID: 2, Steps: []*plan.Step{{Op: bind}}}} {
				b.img.stages[on.ID] = &stage{Stage: on, work: []*work{{upper: made}}}
				ids[i], err = b.c.identity(t.Context(), b.img, step.Cache{From: plan.From{Kind: plan.FromStage, Stage: on}})
				check(t, err)
			}
		})
		return ids
	}
	usual := recipe{"a", "make", "text", "1:1", ""}
	first := identity(usual)
	time.Sleep(5 * time.Millisecond)
	if again := identity(usual); again != first || len(first[0]) != 71 {
		t.Errorf("%s, then %s", first, again)
	}
	for _, r := range []recipe{
		{"b", "make", "text", "1:1", ""}, {"a", "make it", "text", "1:1", ""}, {"a", "make", "other", "1:1", ""},
		{"a", "make", "text", "1:2", ""}, {"a", "make", "text", "1:1", "abc"},
	} {
		if other := identity(r); other[0] == first[0] || other[1] == first[1] {
			t.Errorf("%+v is the same as %+v", r, usual)
		}
	}
}

// TestCacheIdentityOfMany: stages that use one another in 2^40 ways take no
// longer than their number says.
func TestCacheIdentityOfMany(t *testing.T) {
	h := newCacheHost(t)
	h.build(t.Context(), nil, func(b *cacheBuild) {
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		defer stop()
		dir, err := b.c.space.Mkdir()
		check(t, err)
		last := &plan.Stage{Steps: []*plan.Step{{Op: &plan.Copy{}}}}
		b.img.stages[0] = &stage{Stage: last, work: []*work{{upper: dir}}}
		for i := plan.StageID(1); i <= 40; i++ {
			bind := plan.Mount{Type: "bind", From: plan.From{Kind: plan.FromStage, Stage: last}}
			last = &plan.Stage{ID: i, Steps: []*plan.Step{{Op: &plan.Run{Mounts: []plan.Mount{bind, bind}}}}}
			b.img.stages[i] = &stage{Stage: last, work: []*work{{upper: dir}}}
		}
		_, err = b.c.identity(ctx, b.img, step.Cache{From: plan.From{Kind: plan.FromStage, Stage: last}})
		check(t, err)
	})
}
