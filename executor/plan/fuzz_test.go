package plan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/rogpeppe/go-internal/txtar"
)

// everything is a Resolver that has every image, with triggers.
type everything struct{}

func (everything) Resolve(ctx context.Context, ref string, p v1.Platform) (*Resolved, error) {
	return &Resolved{Ref: ref, Config: []byte(`{"os":"linux","architecture":"` + p.Architecture + `","config":{"Env":["A=1","PATH=/bin"],
		"OnBuild":["COPY --from=x a b","ENV B=$A"],"WorkingDir":"w"},
		"rootfs":{"type":"layers","diff_ids":["sha256:` + strings.Repeat("0", 64) + `"]},"history":[{"created_by":"x"}]}`)}, nil
}

// FuzzPlan plans any bytes with any options. A plan has to hold together; an
// error has to be one of ours, with lines of the file; neither may take long or
// much memory.
func FuzzPlan(f *testing.F) {
	seeds := []string{
		base + "RUN --mount=type=cache,target=/x <<E\n#!a\nE\n",
		"ARG A=b\nFROM --platform=$BUILDPLATFORM ${A:-c} AS x\nONBUILD RUN y\nFROM x\nCOPY --from=0 --chmod=u+x a b\nADD http://x/y /z\n",
		"# escape=`\nFROM scratch\nENV a=${b//c/d} e=${f##*/}\nEXPOSE 1-2/udp\nWORKDIR $a\nUSER x\nCMD y\nHEALTHCHECK CMD z\n",
		"# check=error=true;experimental=all\nfrom scratch as A\ncopy <<a <<-'b' /\n$x\na\n\tb\n",
	}
	dirs := []string{filepath.Join("..", "..", "e2e", "language")}
	if suite := os.Getenv("KBUILD_CONFORMANCE"); suite != "" {
		dirs = append(dirs, suite)
	}
	for _, dir := range dirs {
		cases, _ := filepath.Glob(filepath.Join(dir, "cases", "*", "*.txtar"))
		for _, path := range cases {
			if a, err := txtar.ParseFile(path); err == nil {
				for _, file := range a.Files {
					if file.Name == "Dockerfile" {
						seeds = append(seeds, string(file.Data))
					}
				}
			}
		}
	}
	for i, s := range seeds {
		f.Add([]byte(s), uint32(i))
	}
	f.Fuzz(func(t *testing.T, data []byte, choice uint32) {
		defer bounded(t, data)()
		file, err := dockerfile.Parse("Dockerfile", data)
		var p *Plan
		if err == nil {
			p, err = Make(context.Background(), file, fuzzOptions(data, choice), everything{})
		}
		if err != nil {
			checkError(t, data, err)
			return
		}
		checkPlan(t, p)
	})
}

const (
	fuzzTime   = 20 * time.Second // far above what any plan takes, on a busy machine too
	fuzzMemory = 1 << 30          // bytes allocated, most of them garbage soon
)

// bounded panics while an input takes too long; what it returns fails the test
// if it took too much memory.
func bounded(t *testing.T, data []byte) func() {
	late := time.AfterFunc(fuzzTime, func() { panic(fmt.Sprintf("more than %s for %q", fuzzTime, data)) })
	before := allocated()
	return func() {
		late.Stop()
		if n := allocated() - before; n > fuzzMemory {
			t.Errorf("%d bytes allocated", n)
		}
	}
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// word is a name in a Dockerfile: of an argument, a stage, an image.
var word = regexp.MustCompile(`[A-Za-z_][\w./:-]*`)

// fuzzOptions makes options of a number, with names that the Dockerfile has.
func fuzzOptions(data []byte, choice uint32) Options {
	words := word.FindAllString(string(data[:min(len(data), 4096)]), 64)
	take := func() uint32 { // a bit
		b := choice & 1
		choice = choice>>1 | b<<31
		return b
	}
	pick := func() string {
		if len(words) == 0 {
			return "x"
		}
		return words[int(choice>>7)%len(words)]
	}
	opt := Options{BuildPlatform: linuxAMD64, Args: []request.KeyValue{arg("A", "$b"), arg("http_proxy", "x")}}
	for range 3 {
		if take() == 1 {
			opt.Args = append(opt.Args, arg(pick(), []string{"", "1", "${A:-b}", "a b\"c", pick()}[choice%5]))
		}
		if take() == 1 {
			opt.Contexts = append(opt.Contexts, NamedContext{Name: pick(), Image: []string{"", "busybox", "oci.test/l@sha256:" + strings.Repeat("1", 64)}[choice%3]})
		}
	}
	if take() == 1 {
		opt.Target = pick()
	}
	if take() == 1 {
		opt.Platform = v1.Platform{OS: "linux", Architecture: pick(), Variant: []string{"", "v7"}[take()]}
	}
	if take() == 1 {
		opt.Args = append(opt.Args, arg(sourceDateEpoch, []string{"0", "context", pick(), "-1"}[choice%4]))
	}
	if take() == 1 {
		opt.Labels = []request.KeyValue{arg(pick(), pick())}
	}
	opt.Several, opt.AllStages = take() == 1, take() == 1
	opt.Network = []string{"", "none", "host"}[choice%3]
	if take() == 1 {
		opt.Ignore = []string{pick(), "**/" + pick(), "!" + pick()}
		opt.Allow = []string{"network.host"}
	}
	return opt
}

func checkError(t *testing.T, data []byte, err error) {
	t.Helper()
	var e *dockerfile.Error
	if !errors.As(err, &e) || e.Class == "" || e.Class == request.ClassInternal || e.Msg == "" {
		t.Fatalf("error %#v", err)
	}
	if e.Line < 0 || e.EndLine < e.Line {
		t.Fatalf("lines %d-%d: %v", e.Line, e.EndLine, e)
	}
	dockerfile.Excerpt(data, e.Line, e.EndLine)
}

func checkPlan(t *testing.T, p *Plan) {
	t.Helper()
	if p.Target != p.Stages[len(p.Stages)-1] {
		t.Fatal("the target is not the last stage")
	}
	finished := map[StageID]bool{}
	for _, s := range p.Stages {
		if finished[s.ID] {
			t.Fatalf("stage %d twice", s.ID)
		}
		for _, n := range needs(s) {
			if !finished[n] {
				t.Fatalf("stage %d comes before %d, which it needs", s.ID, n)
			}
		}
		finished[s.ID] = true
		if s.Image.History != nil && countLayers(s.Image) != countChain(s)+baseLayers(s, s == p.Target) {
			t.Fatalf("stage %d: %d layers in history, %d steps", s.ID, countLayers(s.Image), countChain(s))
		}
		if len(s.Steps) > 0 && !s.NeedsFiles {
			t.Fatalf("stage %d has steps and needs no files", s.ID)
		}
	}
	if _, err := json.Marshal(p.Target.Image); err != nil {
		t.Fatal(err)
	}
}

func countLayers(img *Image) int {
	n := 0
	for _, h := range img.History {
		if !h.EmptyLayer {
			n++
		}
	}
	return n
}

// baseLayers is 1 for a stage on an image, since the history of everything has
// one entry. For one on a tree of files it is 1 in the image that is built.
func baseLayers(s *Stage, built bool) int {
	for s.Base.Stage != nil {
		s = s.Base.Stage
	}
	if s.Base.Image != nil || s.Base.Named != "" && built {
		return 1
	}
	return 0
}
