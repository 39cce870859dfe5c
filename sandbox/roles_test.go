package sandbox

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// pushing adds a push to a build, which does what follows @push: that is no part
// of the Dockerfile, which push does not see.
func pushing(c *Config) {
	lines, act, _ := strings.Cut(string(c.DockerfileData), "@push ")
	c.DockerfileData = []byte(lines)
	c.Request.Destinations = append([]string{"x.example/app"}, strings.Fields(act)...)
}

// TestRoles: a role that fails ends the others, and its failure is the build's.
func TestRoles(t *testing.T) {
	for name, tt := range map[string]struct {
		act, failure, err string
		said              []string
	}{
		"all is well":    {act: "@fetch ok\nok\n@push ok", said: []string{"here", "here", "here"}},
		"fetch fails":    {act: "@fetch fail\nok\n@push hang", failure: "no luck"},
		"build fails":    {act: "fail\n@push ok", failure: "no luck"},
		"push fails":     {act: "hang\n@push fail", failure: "no luck"},
		"fetch dies":     {act: "@fetch exit\nok\n@push hang", err: "exit status 7"},
		"fetch lies":     {act: "@fetch oldposture\nok", err: "kernel"},
		"push is early":  {act: "hang\n@push early2", err: "push ended before there was anything to push"},
		"build is ready": {act: "ready", err: "build is not to say that it is ready"},
		"ready twice":    {act: "hang\n@push ready", err: "push is not to say that it is ready, or twice"},
		"push has tars":  {act: "hang\n@push tar", err: `"tar" is not for push to hand out`},
		"fetch has tars": {act: "@fetch tar\nhang", err: `"tar" is not for fetch to hand out`},
		"build has tags": {act: "tags", err: `"tags" is not for build to hand out`},
		"forged image":   {act: "forge", err: "build names what it did not hand out"},
		"two of one tag": {act: "@fetch tags twice\nok", err: "tags come twice"},
	} {
		t.Run(name, func(t *testing.T) {
			res, said, err := run(t, newJob(t, tt.act), pushing)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if (res.Failure == nil) != (tt.failure == "") || res.Failure != nil && res.Failure.Message != tt.failure {
				t.Errorf("failure %+v, want %q", res.Failure, tt.failure)
			}
			if tt.said != nil && !slices.Equal(said, tt.said) {
				t.Errorf("said %q, want %q", said, tt.said)
			}
		})
	}
}

// TestStoreBetweenRoles: what fetch hands out, build and push find, and cannot
// change.
func TestStoreBetweenRoles(t *testing.T) {
	_, said, err := run(t, newJob(t, "@fetch give\nfind\n@push find"), pushing)
	if err != nil {
		t.Fatal(err)
	}
	// sha256 of "blob" and of "image", which every build makes.
	blob := strings.TrimPrefix(guestDigest("blob"), "sha256:")
	image := strings.TrimPrefix(guestDigest("image"), "sha256:")
	both := []string{blob, image}
	slices.Sort(both)
	want := []string{
		"build: blobs " + blob + ", contexts main, index {}, fetched [main], write: read-only file system",
		"push: blobs " + strings.Join(both, " ") + ", contexts main, index {}, fetched [], write: read-only file system",
	}
	if d := cmp.Diff(want, said); d != "" {
		t.Error(d)
	}
}

func guestDigest(data string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(data))) }

// TestPlaying: no role is told more than it needs.
func TestPlaying(t *testing.T) {
	c := Config{Caches: Caches{Dir: "/c"}, Context: "/ctx", Request: request.Build{
		Version: request.Version, Args: []request.KeyValue{{Key: "a", Value: "b"}}, Caches: guestCaches,
		Source:        request.Source{URL: "https://user:password@x.example/a.git", Dir: "d"},
		DockerfileURL: "https://user:password@x.example/D",
		Contexts:      []request.NamedContext{{Name: "n", Source: request.Source{URL: "https://user:password@x.example/"}}},
		Registry:      request.Registry{Insecure: true}, Destinations: []string{"x.example/app"}, Secrets: []string{"s"},
		CacheFrom: []request.CachePlace{{Repository: "x.example/cache"}},
		CacheTo:   []request.CacheTarget{{CachePlace: request.CachePlace{Repository: "x.example/cache"}, Others: true}, {CachePlace: request.CachePlace{Layout: "/l", Called: "l"}}},
	}}
	build, push := c.playing(request.RoleBuild), c.playing(request.RolePush)
	for name, c := range map[string]Config{"build": build, "push": push} {
		if raw, err := json.Marshal(c.Request); err != nil || strings.Contains(string(raw), "password") {
			t.Errorf("%s is told a password: %s, %v", name, raw, err)
		}
	}
	if build.Request.Registry.Insecure || build.Request.Store != guestStore || len(build.Request.Secrets) != 1 {
		t.Errorf("build: %+v", build.Request)
	}
	if push.Context != "" || push.Caches.Dir != "" || push.Request.Args != nil || push.Request.Secrets != nil || len(push.Request.Destinations) != 1 {
		t.Errorf("push: %+v", push)
	}
	if r := build.Request; len(r.CacheFrom) > 0 || r.CacheTo[0].Repository != "" || !r.CacheTo[0].Others || r.CacheTo[1].Layout == "" {
		t.Errorf("build is told where results are: %+v, %+v", r.CacheFrom, r.CacheTo)
	}
	if r := push.Request; r.CacheTo[0].Repository == "" || len(r.CacheFrom) > 0 {
		t.Errorf("push: %+v, %+v", r.CacheFrom, r.CacheTo)
	}
	c.Request.NoPush = true
	if r := c.playing(request.RolePush).Request; len(r.Destinations) > 0 || len(r.CacheTo) != 2 {
		t.Errorf("push, where the image is not pushed: %+v", r)
	}
	if c.Request.Contexts[0].Source.URL == "" || c.Request.CacheTo[0].Repository == "" {
		t.Error("the caller's own request was changed")
	}
}

func TestNumbering(t *testing.T) {
	var got []request.Event
	n := newNumbering(sinkFunc(func(e request.Event) { got = append(got, e) }))
	fetch, build := n.of(request.RoleFetch), n.of(request.RoleBuild)
	fetch.Emit(request.Event{Kind: request.EventStart, Step: 1, Name: "pull"})
	build.Emit(request.Event{Kind: request.EventPlan, Total: 2})
	build.Emit(request.Event{Kind: request.EventStart, Step: 1, Name: "run"})
	fetch.Emit(request.Event{Kind: request.EventDone, Step: 1})
	build.Emit(request.Event{Kind: request.EventLog, Step: 1, Data: []byte("x")})
	build.Emit(request.Event{Kind: request.EventLog, Step: 7, Data: []byte("of none")})
	build.Emit(request.Event{Kind: request.EventWarning, Text: "w"})
	fetch.Emit(request.Event{Kind: request.EventSpan, Name: "of a step", Step: 1, Role: request.RolePush})
	want := []request.Event{
		{Kind: request.EventStart, Step: 1, Name: "pull", Role: request.RoleFetch},
		{Kind: request.EventPlan, Total: 3, Role: request.RoleBuild},
		{Kind: request.EventStart, Step: 2, Name: "run", Role: request.RoleBuild},
		{Kind: request.EventDone, Step: 1, Role: request.RoleFetch},
		{Kind: request.EventLog, Step: 2, Data: []byte("x"), Role: request.RoleBuild},
		{Kind: request.EventWarning, Text: "w", Role: request.RoleBuild},
		{Kind: request.EventSpan, Name: "of a step", Step: 1, Role: request.RoleFetch},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestStoreForms(t *testing.T) {
	s, err := openStore(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	for name, what := range map[string]request.Output{
		"digest":       {Kind: request.OutputStored, Digest: "sha256:../../x"},
		"size":         {Kind: request.OutputStored, Size: -1},
		"context":      {Kind: request.OutputContext, Name: "../x"},
		"no context":   {Kind: request.OutputContext},
		"many":         {Kind: request.OutputContext, Name: "10000"},
		"another name": {Kind: request.OutputContext, Name: "01"},
	} {
		if _, err := s.begin(what); !errors.Is(err, errOutput) {
			t.Errorf("%s: %v", name, err)
		}
	}
	digest, err := s.put([]byte("x"))
	if size, ok := s.size(digest); err != nil || !ok || size != 1 {
		t.Errorf("%s: %d bytes, %v", digest, size, err)
	}
	for _, d := range []string{"", digest[len("sha256:"):], "sha256:" + strings.Repeat("0", 64)} {
		if _, ok := s.size(d); ok {
			t.Errorf("%q is there", d)
		}
	}
}
