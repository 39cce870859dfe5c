package executor

import (
	"reflect"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// small is a plan of a tool stage, and a stage that copies from it.
func small(change func(p *plan.Plan, tool, target *plan.Stage)) *plan.Plan {
	img := &plan.Resolved{Digest: v1.Hash{Algorithm: "sha256", Hex: "a"}}
	tool := &plan.Stage{ID: 0, Base: plan.Base{Image: img}, Steps: []*plan.Step{
		{Op: &plan.Run{Args: []string{"a"}, Env: []string{"X=1"}}},
		{Op: &plan.Run{Args: []string{"b"}, Env: []string{"X=1"}}},
	}}
	target := &plan.Stage{ID: 1, Base: plan.Base{Image: img}, Steps: []*plan.Step{
		{Op: &plan.Run{Args: []string{"a"}, Env: []string{"X=1"}}},
		{Op: &plan.Copy{From: plan.From{Kind: plan.FromStage, Stage: tool}, Paths: []string{"x"}, Dest: "/"}},
		{Op: &plan.Run{Args: []string{"c"}, Mounts: []plan.Mount{{Type: "bind", From: plan.From{Kind: plan.FromStage, Stage: tool}}}}},
	}}
	p := &plan.Plan{Stages: []*plan.Stage{tool, target}, Target: target}
	if change != nil {
		change(p, tool, target)
	}
	return p
}

// TestKeys holds which steps of two plans are one and the same: "=" for a base
// and each step that have a key in common, "." for those that have not; first
// those of the tool stage, then those of the target.
func TestKeys(t *testing.T) {
	epoch := time.Unix(1, 0)
	run := func(s *plan.Stage, i int) *plan.Run { return s.Steps[i].Op.(*plan.Run) }
	for _, tc := range []struct {
		name, want string
		change     func(p *plan.Plan, tool, target *plan.Stage)
	}{
		{"the same", "=== ====", nil},
		{"names and lines do not count", "=== ====", func(_ *plan.Plan, tool, _ *plan.Stage) { tool.Steps[0].Name, tool.Steps[0].Line = "n", 7 }},
		{"another base of the target", "=== ....", func(_ *plan.Plan, _, target *plan.Stage) {
			target.Base.Image = &plan.Resolved{Digest: v1.Hash{Algorithm: "sha256", Hex: "b"}}
		}},
		{"an argument from the second step on", "==. ==..", func(_ *plan.Plan, tool, _ *plan.Stage) { run(tool, 1).Env = []string{"X=1", "TARGETARCH=arm64"} }},
		{"a file from the first", "=.. ==..", func(_ *plan.Plan, tool, _ *plan.Stage) {
			run(tool, 0).Files = []plan.File{{Name: "f", Data: []byte{1}}}
		}},
		{"a mount", "=== ===.", func(_ *plan.Plan, _, target *plan.Stage) { run(target, 2).Mounts[0].Source = "/sub" }},
		{"what is read", "=== ==..", func(_ *plan.Plan, _, target *plan.Stage) { target.Steps[1].Op.(*plan.Copy).From = plan.From{} }},
		{"another stage of the same words", "=== ....", func(_ *plan.Plan, _, target *plan.Stage) { target.ID = 2 }},
		{"the time of the image", "... ....", func(p *plan.Plan, _, _ *plan.Stage) { p.Created = &epoch }},
		{"what JSON cannot tell", "=.. ==..", func(_ *plan.Plan, tool, _ *plan.Stage) { run(tool, 0).Args = []string{"\xff"} }},
	} {
		a, b := small(nil), small(tc.change)
		if tc.name == "what JSON cannot tell" {
			a = small(tc.change)
		}
		before, err := keys(a)
		if err != nil {
			t.Fatal(err)
		}
		after, err := keys(b)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for i := range a.Stages {
			if i > 0 {
				got += " "
			}
			for n, k := range before[a.Stages[i]] {
				if k == after[b.Stages[i]][n] {
					got += "="
				} else {
					got += "."
				}
			}
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestKeysSeeEverything holds that JSON shows every field of an operation: one
// that it does not show would not count in a key.
func TestKeysSeeEverything(t *testing.T) {
	seen := map[reflect.Type]bool{reflect.TypeFor[plan.Stage](): true, reflect.TypeFor[time.Time](): true}
	var look func(reflect.Type)
	look = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			look(typ.Elem())
		case reflect.Func, reflect.Chan, reflect.Interface:
			t.Errorf("%s cannot be told in JSON", typ)
		case reflect.Struct:
			if seen[typ] {
				return
			}
			seen[typ] = true
			for f := range typ.Fields() {
				if !f.IsExported() || f.Tag.Get("json") == "-" {
					t.Errorf("%s.%s is not told in JSON", typ, f.Name)
				}
				look(f.Type)
			}
		}
	}
	for _, op := range []plan.Op{&plan.Run{}, &plan.Copy{}, &plan.Workdir{}} {
		look(reflect.TypeOf(op))
	}
}

func TestAnnotated(t *testing.T) {
	note := func(level request.AnnotationLevel, platform, key, value string) request.Annotation {
		return request.Annotation{Level: level, Platform: platform, KeyValue: request.KeyValue{Key: key, Value: value}}
	}
	req := &request.Build{Annotations: []request.Annotation{
		note(request.OnManifest, "linux/arm/v7", "a", "arm"), note(request.OnManifest, "", "a", "all"),
		note(request.OnManifest, "", "b", "1"), note(request.OnManifest, "", "b", "2"), note(request.OnIndex, "", "c", "i"),
	}}
	for _, tc := range []struct {
		level    request.AnnotationLevel
		platform v1.Platform
		want     map[string]string
	}{
		{request.OnManifest, v1.Platform{OS: "linux", Architecture: "amd64"}, map[string]string{"a": "all", "b": "2"}},
		{request.OnManifest, v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, map[string]string{"a": "arm", "b": "2"}},
		{request.OnIndex, v1.Platform{}, map[string]string{"c": "i"}},
		{request.OnIndexDescriptor, v1.Platform{}, nil},
	} {
		if got := annotated(req, tc.level, tc.platform); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s of %s: %v, want %v", tc.level, tc.platform, got, tc.want)
		}
	}
}
