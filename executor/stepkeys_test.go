package executor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// hinting is a layer cache that has everything.
type hinting struct{}

func (hinting) Find(_ context.Context, key string) (request.CachedStep, error) {
	some := "sha256:" + strings.Repeat("d", 64)
	return request.CachedStep{Hint: true, Key: key, DiffID: some, Digest: some}, nil
}

const keyed = `FROM BASE AS tool
WORKDIR /src
COPY --chmod=644 a.txt dir/ /src/
ARG USED=1
RUN --mount=type=secret,id=s --mount=type=cache,target=/c make
FROM BASE
LABEL a=b
RUN first
COPY --link linked.txt /linked
COPY --from=tool /src/out /out
ENV E=1
USER 7
RUN last
`

// TestStepKeys changes one thing of a build at a time. "=" is a step whose key stays,
// "." one with another: first those of the tool stage, then those of the target.
func TestStepKeys(t *testing.T) {
	reg := startRegistry(t)
	base := reg.seed(t, "base:1", layered(t, here(), entry{"b", "1"}))
	reg.seed(t, "relabelled:1", labelled(t, layered(t, here(), entry{"b", "1"})))
	reg.seed(t, "other:1", layered(t, here(), entry{"b", "2"}))
	text := func(from, to string) func(*keyedBuild) {
		return func(b *keyedBuild) { b.text = strings.Replace(b.text, from, to, 1) }
	}
	file := func(name, content string) func(*keyedBuild) { return func(b *keyedBuild) { b.files[name] = content } }
	req := func(change func(*request.Build)) func(*keyedBuild) {
		return func(b *keyedBuild) { change(&b.req) }
	}
	arg := func(k, v string) func(*keyedBuild) {
		return req(func(r *request.Build) { r.Args = append(r.Args, request.KeyValue{Key: k, Value: v}) })
	}
	for _, tt := range []struct {
		name, want string
		change     func(*keyedBuild)
	}{
		{"nothing", "=== ====", func(*keyedBuild) {}},
		{"times and places of the context", "=== ====", func(b *keyedBuild) { b.old = true }},
		{"a comment, a name, a label, a health check", "=== ====", text("LABEL a=b", "# x\nLABEL a=c\nHEALTHCHECK CMD x\nEXPOSE 80")},
		{"the name of the stage", "=== ====", func(b *keyedBuild) { b.text = strings.ReplaceAll(b.text, "tool", "other") }},
		{"an argument that nothing uses", "=== ====", arg("NOPE", "2")},
		{"a file that nothing copies", "=== ====", file("unused.txt", "2")},
		{"a file that is ignored", "=== ====", file("dir/ignored.txt", "2")},
		{"a label of the base", "=== ====", func(b *keyedBuild) { b.text = strings.ReplaceAll(b.text, "BASE", reg.addr+"/relabelled:1") }},
		{"a proxy of ENV", "=== ===.", text("ENV E=1", "ENV E=1 http_proxy=http://p:1")},
		{"a proxy", "=== ====", arg("http_proxy", "http://p:1")},
		{"a label of the command line", "=== ====", req(func(r *request.Build) { r.Labels = []request.KeyValue{{Key: "l", Value: "v"}} })},
		{"a destination", "=== ====", req(func(r *request.Build) { r.Destinations = []string{reg.addr + "/x:2"} })},
		{"name servers and shared memory", "=== ====", req(func(r *request.Build) { r.Run.DNS, r.Run.ShmSize = []string{"nameserver 1.1.1.1"}, 1<<20 })},
		{"a limit of time", "=== ====", req(func(r *request.Build) { r.Limits.StepTimeout = time.Hour })},

		{"the base", "... .=..", func(b *keyedBuild) { b.text = strings.ReplaceAll(b.text, "BASE", reg.addr+"/other:1") }},
		{"a file", "=.. ==..", file("a.txt", "2")},
		{"a file in a directory", "=.. ==..", file("dir/f.txt", "2")},
		{"a new file in a directory", "=.. ==..", file("dir/g.txt", "")},
		{"a linked file", "=== =...", file("linked.txt", "2")},
		{"the place of a copy", "=.. ==..", text("/src/\nARG", "/src2/\nARG")},
		{"the mode of a copy", "=.. ==..", text("644", "755")},
		{"the value of an argument", "==. ==..", arg("USED", "2")},
		{"the default of an argument", "==. ==..", text("USED=1", "USED=2")},
		{"a command", "==. ==..", text("make", "make  all")},
		{"a mount", "==. ==..", text("target=/c", "target=/d")},
		{"the id of a secret", "==. ==..", text("id=s", "id=t")},
		{"the working directory", "... ==..", text("/src\nCOPY", "/srcs\nCOPY")},
		{"an earlier command", "=== .=..", text("RUN first", "RUN second")},
		{"what is copied from a stage", "=== ==..", text("/src/out", "/src/in")},
		{"the environment", "=== ===.", text("E=1", "E=2")},
		{"the user", "=== ===.", text("USER 7", "USER 8")},
		{"the shell", "=== ===.", text("RUN last", "SHELL [\"/bin/x\"]\nRUN last")},
		{"a mount of the context", "=== ===.", text("RUN last", "RUN --mount=type=bind,target=/c last")},
		{"the network", "=== ===.", text("RUN last", "RUN --network=none last")},
		{"the host name", "==. .=..", req(func(r *request.Build) { r.Run.Hostname = "h" })},
		{"a line of /etc/hosts", "==. .=..", req(func(r *request.Build) { r.Run.Hosts = []request.KeyValue{{Key: "h", Value: "1.2.3.4"}} })},
		{"the compression", "... ....", req(func(r *request.Build) { r.Compression.Level = 9 })},
		{"times that are rewritten", "... ....", req(func(r *request.Build) { r.RewriteTimestamp, r.Created = true, time.Unix(5, 0) })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := newKeyed(base), newKeyed(base)
			tt.change(b)
			if got := compareKeys(a.keys(t), b.keys(t)); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// keyedBuild is a build whose keys are looked at.
type keyedBuild struct {
	base, text string
	files      map[string]string
	req        request.Build
	old        bool
}

func newKeyed(base string) *keyedBuild {
	return &keyedBuild{base: base, text: keyed, files: map[string]string{
		"a.txt": "1", "dir/f.txt": "1", "dir/ignored.txt": "1", "linked.txt": "1", "unused.txt": "1", ".dockerignore": "dir/ignored.txt\n",
	}}
}

func (b *keyedBuild) keys(t *testing.T) (list []string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range b.files {
		path := filepath.Join(dir, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(content), 0o644))
		if b.old {
			check(t, os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)))
		}
	}
	check(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(strings.ReplaceAll(b.text, "BASE", b.base)), 0o644))
	req := b.req
	req.Context, req.Dockerfile = request.GuestPath(dir), request.GuestPath(dir+"/Dockerfile")
	req.Ignore, req.NoPush = request.GuestPath(dir+"/.dockerignore"), true
	h := newHost(t, Tools{Steps: hinting{}})
	for _, s := range succeed(t, "fetch", h.fetch(req)).Steps {
		list = append(list, s.Plain+s.Key)
	}
	return list
}

func compareKeys(a, b []string) (got string) {
	const tool = 3 // steps
	for i := range max(len(a), len(b)) {
		if i == tool {
			got += " "
		}
		if i < len(a) && i < len(b) && a[i] != "" && a[i] == b[i] {
			got += "="
		} else {
			got += "."
		}
	}
	return got
}

func labelled(t *testing.T, img v1.Image) v1.Image {
	t.Helper()
	cfg, err := img.ConfigFile()
	check(t, err)
	cfg = cfg.DeepCopy()
	cfg.Config.Labels = map[string]string{"of": "the base"}
	img, err = mutate.ConfigFile(img, cfg)
	check(t, err)
	return img
}
