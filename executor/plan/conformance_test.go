package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/rogpeppe/go-internal/txtar"
)

// suiteCase is what of a case of the conformance suite a plan decides.
type suiteCase struct {
	dockerfile string
	hasFile    bool
	opts       struct {
		Dockerfile string            `json:"dockerfile"`
		Target     string            `json:"target"`
		BuildArgs  map[string]string `json:"build_args"`
		Platform   string            `json:"platform"`
		Labels     map[string]string `json:"labels"`
		Contexts   map[string]string `json:"contexts"`
		Epoch      *int64            `json:"source_date_epoch"`
		Files      []struct {
			Path string  `json:"path"`
			Text *string `json:"text"`
			B64  []byte  `json:"base64"`
		} `json:"files"`
	}
	want struct {
		Base, OS, Architecture, Variant, Author, Created string
		Config                                           Config
		Layers                                           int
		History                                          []struct {
			CreatedBy string `json:"created_by"`
			Empty     bool   `json:"empty_layer"`
		}
		LogContains []string `json:"log_contains"`
		LogExcludes []string `json:"log_excludes"`
		Error       *struct {
			Class    request.Class
			Contains []string
			Line     int
		}
	}
}

func readCase(t *testing.T, path string) *suiteCase {
	t.Helper()
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range a.Files {
		files[f.Name] = f.Data
	}
	c := &suiteCase{}
	if b := files["opts.json"]; b != nil {
		if err := json.Unmarshal(b, &c.opts); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range c.opts.Files {
		if f.Text != nil {
			files[f.Path] = []byte(*f.Text)
		} else if f.B64 != nil {
			files[f.Path] = f.B64
		}
	}
	if c.opts.Dockerfile == "" {
		c.opts.Dockerfile = "Dockerfile"
	}
	data, ok := files[c.opts.Dockerfile]
	c.dockerfile, c.hasFile = string(data), ok
	if err := json.Unmarshal(files["want.json"], &c.want); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *suiteCase) plan() (*Plan, error) {
	opt := Options{Target: c.opts.Target}
	for _, k := range sortedKeys(c.opts.BuildArgs) {
		opt.Args = append(opt.Args, request.KeyValue{Key: k, Value: c.opts.BuildArgs[k]})
	}
	if c.opts.Epoch != nil {
		opt.Args = append(opt.Args, request.KeyValue{Key: sourceDateEpoch, Value: fmt.Sprint(*c.opts.Epoch)})
	}
	for _, k := range sortedKeys(c.opts.Contexts) {
		image, _ := strings.CutPrefix(c.opts.Contexts[k], "image:")
		if strings.HasPrefix(image, "dir:") {
			image = ""
		}
		opt.Contexts = append(opt.Contexts, NamedContext{Name: k, Image: image})
	}
	for _, k := range sortedKeys(c.opts.Labels) {
		opt.Labels = append(opt.Labels, request.KeyValue{Key: k, Value: c.opts.Labels[k]})
	}
	if c.opts.Platform != "" {
		p, err := v1.ParsePlatform(c.opts.Platform)
		if err != nil {
			return nil, err
		}
		opt.Platform = *p
	}
	return makePlan(c.dockerfile, opt, testImages())
}

// TestConformance compares plans with the golden answers of the suite in
// $KBUILD_CONFORMANCE (a directory of cases/GROUP/NAME.txtar), as far as a plan
// decides them.
func TestConformance(t *testing.T) {
	suite := os.Getenv("KBUILD_CONFORMANCE")
	if suite == "" {
		t.Skip("KBUILD_CONFORMANCE is not set")
	}
	cases, err := filepath.Glob(filepath.Join(suite, "cases", "*", "*.txtar"))
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases in %s: %v", suite, err)
	}
	for _, path := range cases {
		name := filepath.Base(filepath.Dir(path)) + "/" + strings.TrimSuffix(filepath.Base(path), ".txtar")
		t.Run(name, func(t *testing.T) {
			c := readCase(t, path)
			if !c.hasFile {
				t.Skip("no Dockerfile")
			}
			p, err := c.plan()
			var e *dockerfile.Error
			if errors.As(err, &e) && e.Class == request.ClassUnsupported {
				t.Skip(err)
			}
			if c.want.Error != nil {
				c.checkError(t, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c.checkPlan(t, p)
		})
	}
}

// planned are the classes of errors that a plan finds.
var planned = []request.Class{request.ClassParse, request.ClassResolve, request.ClassLint, request.ClassEntitlement}

func (c *suiteCase) checkError(t *testing.T, err error) {
	t.Helper()
	want := c.want.Error
	if !slices.Contains(planned, want.Class) {
		if err != nil {
			t.Fatalf("the plan fails with %v, the failure should come later", err)
		}
		return
	}
	var e *dockerfile.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want class %s", err, want.Class)
	}
	if e.Class != want.Class {
		t.Errorf("class %s (%v), want %s", e.Class, e, want.Class)
	}
	if want.Line != 0 && e.Line != want.Line {
		t.Errorf("line %d (%v), want %d", e.Line, e, want.Line)
	}
	for _, s := range want.Contains {
		if !strings.Contains(e.Error(), s) {
			t.Errorf("%q does not contain %q", e, s)
		}
	}
}

func (c *suiteCase) checkPlan(t *testing.T, p *Plan) {
	t.Helper()
	img, want := p.Target.Image, &c.want
	// By way of JSON, since empty fields do not count.
	var config Config
	if b, err := json.Marshal(img.Config); err != nil || json.Unmarshal(b, &config) != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want.Config, config); d != "" {
		t.Errorf("config (-want +got):\n%s", d)
	}
	created := ""
	if img.Created != nil && c.opts.Epoch != nil {
		created = img.Created.Format("2006-01-02T15:04:05Z07:00")
	}
	got := [...]string{img.OS, img.Architecture, img.Variant, img.Author, created}
	if d := cmp.Diff([...]string{want.OS, want.Architecture, want.Variant, want.Author, want.Created}, got); d != "" {
		t.Errorf("os, architecture, variant, author, created (-want +got):\n%s", d)
	}
	var wantHistory, gotHistory []string
	layers := 0
	for _, h := range want.History {
		wantHistory = append(wantHistory, fmt.Sprint(h.CreatedBy, " empty=", h.Empty))
	}
	for _, h := range img.History {
		if h.Comment == "" {
			continue // of the base image
		}
		gotHistory = append(gotHistory, fmt.Sprint(h.CreatedBy, " empty=", h.EmptyLayer))
		if !h.EmptyLayer {
			layers++
		}
	}
	if d := cmp.Diff(wantHistory, gotHistory); d != "" {
		t.Errorf("history (-want +got):\n%s", d)
	}
	steps := countChain(p.Target)
	for s := p.Target; s != nil; s = s.Base.Stage {
		if s.Base.Named != "" {
			steps++ // its files are a layer
		}
	}
	if layers != want.Layers || steps != want.Layers {
		t.Errorf("%d layers in history, %d steps, want %d", layers, steps, want.Layers)
	}
	c.checkWarnings(t, p)
}

// countChain counts the steps of a stage and of those that it stands on.
func countChain(s *Stage) int {
	n := 0
	for ; s != nil; s = s.Base.Stage {
		n += len(s.Steps)
	}
	return n
}

// checkWarnings looks for the build checks among the texts that the log has to
// have; other texts come from steps.
func (c *suiteCase) checkWarnings(t *testing.T, p *Plan) {
	t.Helper()
	var log strings.Builder
	for _, w := range p.Warnings {
		fmt.Fprintf(&log, "%s: %s\n", w.Rule, w.Text)
	}
	for _, s := range c.want.LogContains {
		if looksLikeRule(s) && !strings.Contains(log.String(), s) {
			t.Errorf("no warning %s in:\n%s", s, log.String())
		}
	}
	for _, s := range c.want.LogExcludes {
		if strings.Contains(log.String(), s) {
			t.Errorf("unwanted warning %s in:\n%s", s, log.String())
		}
	}
}

func looksLikeRule(s string) bool {
	return s != "" && strings.ToLower(s) != s && !strings.ContainsAny(s, " -$")
}
