package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
)

const (
	baseRef = "registry.test/conformance/base:1"
	metaRef = "registry.test/conformance/meta:1"
)

// reads tells where the target's copies and mounts read from, and what it
// stands on.
func reads(p *Plan) string {
	say := func(f From) string {
		switch f.Kind {
		case FromContext:
			return "context"
		case FromStage:
			return "stage " + f.Stage.Name
		case FromNamed:
			return "named " + f.Name
		}
		return "scratch"
	}
	var list []string
	for s := p.Target; s != nil; s = s.Base.Stage {
		switch {
		case s.Base.Named != "":
			list = append(list, "on named "+s.Base.Named)
		case s.Base.Image != nil:
			list = append(list, "on "+strings.TrimPrefix(s.Base.Image.Ref, "registry.test/conformance/"))
		case s.Base.Stage == nil:
			list = append(list, "on scratch")
		}
	}
	for _, s := range p.Target.Steps {
		switch op := s.Op.(type) {
		case *Copy:
			list = append(list, say(op.From))
		case *Run:
			for _, m := range op.Mounts {
				list = append(list, say(m.From))
			}
		}
	}
	return strings.Join(list, ", ")
}

// What a named context replaces, by BuildKit's rules.
func TestNamedContexts(t *testing.T) {
	type list = []NamedContext
	files := func(names ...string) (l list) {
		for _, n := range names {
			l = append(l, NamedContext{Name: n})
		}
		return l
	}
	image := func(name, ref string) list { return list{{Name: name, Image: ref}} }
	for _, tt := range []struct {
		name, text string
		contexts   list
		want       string
	}{
		{"files for COPY --from", base + "COPY --from=a / /\n", files("a"), "on base:1, named a"},
		{"files for a mount and a cache", base + "RUN --mount=from=a,target=/a --mount=type=cache,from=a,target=/c x\n", files("a"), "on base:1, named a, named a"},
		{"files as base", "FROM a\nCOPY x /\n", files("a"), "on named a, context"},
		{"files below another stage", "FROM a AS b\nFROM b\nCOPY x /\n", files("a"), "on named a, context"},
		{"files for a stage", base[:len(base)-1] + " AS a\nRUN exit 1\n" + base + "COPY --from=a / /\n", files("a"), "on base:1, named a"},
		{"by number", base[:len(base)-1] + " AS a\n" + base + "COPY --from=0 / /\n", files("a"), "on base:1, named a"},
		{"a stage that comes later", base + "COPY --from=z / /\nFROM scratch AS z\n", files("z"), "on named z"},
		{"FROM a replaced stage", "FROM nothing AS a\nRUN exit 1\nFROM a\nCOPY x /\n", files("a"), "on named a, context"},
		{"the target itself", "FROM nothing AS a\nRUN exit 1\n", files("a"), "on named a"},
		{"an image for an image", "FROM placeholder.test/none:1\n", image("placeholder.test/none:1", metaRef), "on meta:1"},
		{"an image for COPY --from", base + "COPY --from=a / /\n", image("a", metaRef), "on base:1, stage a"},
		{"an image for a stage", "FROM nothing AS a\nRUN exit 1\n" + base + "COPY --from=a / /\n", image("a", metaRef), "on base:1, stage a"},
		{"scratch for an image", "FROM a\nCOPY x /\n", image("a", "scratch"), "on scratch, context"},
		{"short for long", "FROM docker.io/library/alpine:latest\n", image("alpine", metaRef), "on meta:1"},
		{"long for short", "FROM alpine\n", image("docker.io/library/alpine:latest", metaRef), "on meta:1"},
		{"latest for none", "FROM alpine\n", image("alpine:latest", metaRef), "on meta:1"},
		{"another tag is another name", base + "COPY --from=alpine:3 / /\n", append(image("alpine", metaRef), image("alpine:3", baseRef)...), "on base:1, stage alpine:3"},
		{"the last of a name wins", "FROM a\n", append(image("a", metaRef), image("docker.io/library/a", baseRef)...), "on base:1"},
		{"by platform", "FROM a\n", append(image("a", metaRef), image("a::linux/amd64", baseRef)...), "on base:1"},
		{"of another platform", "FROM a\n", append(image("a", metaRef), image("a::linux/arm64", baseRef)...), "on meta:1"},
		{"no stage is case-sensitive", "FROM scratch AS Foo\n" + base + "COPY --from=foo / /\n", files("foo"), "on base:1, named foo"},
		{"scratch stays empty", "FROM scratch\nCOPY x /\n", nil, "on scratch, context"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := makePlan(tt.text, Options{Contexts: tt.contexts}, testImages())
			if err != nil {
				t.Fatal(err)
			}
			if got := reads(p); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			// Each stage comes after those that it needs.
			for i, s := range p.Stages {
				for _, id := range needs(s) {
					if !slices.ContainsFunc(p.Stages[:i], func(b *Stage) bool { return b.ID == id }) {
						t.Errorf("stage %s needs %d, which does not come before it", s.Name, id)
					}
				}
			}
		})
	}
}

func TestNamedContextErrors(t *testing.T) {
	for _, tt := range []struct {
		text     string
		contexts NamedContext
		want     string
	}{
		{base, NamedContext{Name: "A B"}, "invalid context name A B: invalid reference format"},
		{base, NamedContext{Name: "Upper"}, "invalid context name Upper: invalid reference format: repository name"},
		{base, NamedContext{Name: "scratch"}, "invalid context name scratch: the name is reserved"},
		{base, NamedContext{Name: "context"}, "invalid context name context: the name is reserved"},
		{base, NamedContext{Name: "a::b/c/d/e"}, "invalid context name a::b/c/d/e"},
		{"FROM a\n", NamedContext{Name: "a", Image: "registry.test/none:1"}, "context a: registry.test/none:1: not found"},
	} {
		_, err := makePlan(tt.text, Options{Contexts: []NamedContext{tt.contexts}}, testImages())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.contexts.Name, err, tt.want)
		}
	}
}

// A base of files has the config of scratch, and its layer the last place in
// history.
func TestNamedBase(t *testing.T) {
	opt := Options{Contexts: []NamedContext{{Name: "rootfs"}}}
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"FROM rootfs AS r\nCOPY a.txt /a.txt\n", []string{"COPY a.txt /a.txt # buildkit", "[1/2] COPY a.txt /a.txt"}},
		{"FROM rootfs\nENV a=b\n", []string{"- ENV a=b", "[context rootfs] load from client"}},
		{"FROM rootfs AS a\nCOPY a /\nFROM a\nUSER x\n", []string{"COPY a / # buildkit", "- USER x", "[a 1/2] COPY a /"}},
	} {
		p := mustPlan(t, tt.text, opt)
		if got := created(p.Target.Image); !slices.Equal(got, tt.want) {
			t.Errorf("%q: history %q", tt.text, got)
		}
		c := p.Target.Image.Config
		if c.WorkingDir != "/" || fmt.Sprint(c.Env[:1]) != "["+testPath+"]" || p.Target.Image.Architecture != "amd64" {
			t.Errorf("%q: config %+v", tt.text, c)
		}
	}
}

// A replaced stage has the platform of the image that it is now.
func TestReplacedStagePlatform(t *testing.T) {
	const text = "FROM nothing AS a\nFROM a\nRUN x\n"
	images := testImages()
	arm := strings.ReplaceAll(images.images[baseRef][0], `"amd64"`, `"arm64"`)
	images.images["registry.test/arm:1"] = []string{arm}
	p, err := makePlan(text, Options{Contexts: []NamedContext{{Name: "a", Image: "registry.test/arm:1"}}}, images)
	if err != nil {
		t.Fatal(err)
	}
	want := v1.Platform{OS: "linux", Architecture: "arm64"}
	if p.Target.Platform.Architecture != want.Architecture {
		t.Errorf("platform %v", p.Target.Platform)
	}
}

// FuzzNamed plans any Dockerfile with contexts in place of what it may name.
func FuzzNamed(f *testing.F) {
	for _, s := range []string{
		"FROM a AS b\nCOPY --from=b x /\nFROM b\nRUN --mount=from=a,target=/x y\n",
		"FROM c AS a\nFROM a AS c\nONBUILD COPY --from=b . /\nFROM c\n",
		"FROM --platform=linux/arm64 b AS d\nFROM d\nRUN --mount=type=cache,from=c,target=/x y\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := dockerfile.Parse("Dockerfile", data)
		if err != nil {
			return
		}
		p, err := Make(t.Context(), file, Options{BuildPlatform: linuxAMD64, Contexts: []NamedContext{
			{Name: "a"}, {Name: "b", Image: "docker.io/library/b:latest"}, {Name: "c", Image: EmptyImage}, {Name: "d::linux/arm64"},
		}}, everything{})
		if err != nil {
			checkError(t, data, err)
			return
		}
		known := map[StageID]bool{}
		for _, s := range p.Stages {
			for _, id := range needs(s) {
				if !known[id] {
					t.Fatalf("stage %d comes before %d, which it needs", s.ID, id)
				}
			}
			known[s.ID] = true
		}
		if p.Target != p.Stages[len(p.Stages)-1] {
			t.Fatal("the target is not the last stage")
		}
	})
}
