package plan

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

// FuzzPlan plans any bytes. A plan has to hold together; an error has to be one
// of ours, with lines of the file.
func FuzzPlan(f *testing.F) {
	seeds := []string{
		base + "RUN --mount=type=cache,target=/x <<E\n#!a\nE\n",
		"ARG A=b\nFROM --platform=$BUILDPLATFORM ${A:-c} AS x\nONBUILD RUN y\nFROM x\nCOPY --from=0 --chmod=u+x a b\nADD http://x/y /z\n",
		"# escape=`\nFROM scratch\nENV a=${b//c/d} e=${f##*/}\nEXPOSE 1-2/udp\nWORKDIR $a\nUSER x\nCMD y\nHEALTHCHECK CMD z\n",
		"# check=error=true;experimental=all\nfrom scratch as A\ncopy <<a <<-'b' /\n$x\na\n\tb\n",
	}
	if suite := os.Getenv("KBUILD_CONFORMANCE"); suite != "" {
		cases, _ := filepath.Glob(filepath.Join(suite, "cases", "*", "*.txtar"))
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
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := dockerfile.Parse("Dockerfile", data)
		var p *Plan
		if err == nil {
			opt := Options{BuildPlatform: linuxAMD64, Args: []request.KeyValue{arg("A", "$b"), arg("http_proxy", "x")}}
			p, err = Make(context.Background(), file, opt, everything{})
		}
		if err != nil {
			checkError(t, data, err)
			return
		}
		checkPlan(t, p)
	})
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
		for _, n := range s.Needs {
			if !finished[n] {
				t.Fatalf("stage %d comes before %d, which it needs", s.ID, n)
			}
		}
		finished[s.ID] = true
		if s.Image.History != nil && countLayers(s.Image) != countChain(s)+baseLayers(s) {
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

// baseLayers is 1 for a stage on an image: the history of everything has one entry.
func baseLayers(s *Stage) int {
	for s.Base.Stage != nil {
		s = s.Base.Stage
	}
	if s.Base.Image != nil {
		return 1
	}
	return 0
}
