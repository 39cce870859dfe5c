package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

func TestFormat(t *testing.T) {
	docker := &plan.Resolved{Manifest: []byte(`{"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}`)}
	oci := &plan.Resolved{Manifest: []byte(`{}`)}
	for _, c := range []struct {
		asked, compression string
		annotations        int
		bases              []*plan.Resolved
		want               format
	}{
		{"", "", 0, []*plan.Resolved{nil}, formatOCI},
		{"", "", 0, []*plan.Resolved{docker}, formatDocker},
		{"", "", 0, []*plan.Resolved{oci}, formatOCI},
		{"", "zstd", 0, []*plan.Resolved{docker}, formatOCI},
		{"docker", "", 0, []*plan.Resolved{oci}, formatDocker},
		{"oci", "", 0, []*plan.Resolved{docker}, formatOCI},
		{"", "", 0, []*plan.Resolved{docker, docker}, formatDocker},
		{"", "", 0, []*plan.Resolved{docker, oci}, formatOCI},
		{"", "", 1, []*plan.Resolved{docker}, formatOCI},
		{"docker", "", 1, []*plan.Resolved{oci}, formatDocker},
	} {
		req := &request.Build{
			Format: c.asked, Compression: request.Compression{Algorithm: c.compression},
			Annotations: make([]request.Annotation, c.annotations),
		}
		var plans []*plan.Plan
		for _, base := range c.bases {
			below := &plan.Stage{Base: plan.Base{Image: base}}
			plans = append(plans, &plan.Plan{Target: &plan.Stage{Base: plan.Base{Stage: below}}})
		}
		if got := chooseFormat(req, plans); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestLayerTypes(t *testing.T) {
	for _, c := range []struct {
		from types.MediaType
		to   format
		want types.MediaType
	}{
		{types.DockerLayer, formatOCI, types.OCILayer},
		{types.OCILayer, formatDocker, types.DockerLayer},
		{types.OCILayer, formatOCI, types.OCILayer},
		{types.DockerUncompressedLayer, formatOCI, types.OCIUncompressedLayer},
		{types.OCIUncompressedLayer, formatDocker, types.DockerUncompressedLayer},
		{types.OCILayerZStd, formatDocker, types.OCILayerZStd},
		{types.DockerForeignLayer, formatOCI, types.DockerForeignLayer},
	} {
		if got := layerType(c.from, c.to); got != c.want {
			t.Errorf("%s as %s: %s, want %s", c.from, c.to, got, c.want)
		}
	}
}

func TestDescribe(t *testing.T) {
	text := []byte("FROM a\nRUN b\nCOPY c d\n")
	req := &request.Build{DockerfileName: "x/Dockerfile"}
	run := &plan.Step{Op: &plan.Run{}, Line: 2, EndLine: 2}
	copying := &plan.Step{Op: &plan.Copy{}, Line: 3, EndLine: 3}
	for name, c := range map[string]struct {
		err     error
		class   request.Class
		line    int
		code    int
		message string
	}{
		"RUN": {&StepError{run, []byte("log"), &step.ExitError{Args: []string{"/bin/sh", "-c", "b"}, Code: 7}},
			request.ClassRun, 2, 7, "exit code: 7"},
		"COPY":     {&StepError{copying, nil, errors.New("no such")}, request.ClassCopy, 3, 0, "no such"},
		"parse":    {&dockerfile.Error{Class: request.ClassParse, Msg: "wrong", Line: 1, EndLine: 1}, request.ClassParse, 1, 0, "wrong"},
		"push":     {fmt.Errorf("push: %w", &registry.Error{Class: request.ClassPush, Msg: "denied"}), request.ClassPush, 0, 0, "denied"},
		"wall":     {&WallError{Wall: "seccomp", Found: "0"}, request.ClassIsolation, 0, 0, "seccomp"},
		"full":     {&StepError{copying, nil, &os.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC}}, request.ClassResource, 3, 0, "space"},
		"canceled": {fmt.Errorf("pull: %w", context.Canceled), request.ClassCanceled, 0, 0, "build canceled"},
		"not lent": {&StepError{run, nil, &step.NotLentError{Msg: "secret q: not found", Flag: "--secret id=q,src=FILE"}}, request.ClassRun, 2, 0, "secret q: not found"},
		"other":    {errors.New("odd"), request.ClassInternal, 0, 0, "odd"},
	} {
		f := Describe(c.err, req, text)
		if f.Class != c.class || f.Line != c.line || f.ExitCode != c.code || !strings.Contains(f.Message, c.message) || f.File != "x/Dockerfile" {
			t.Errorf("%s: %+v", name, f)
		}
		if marked := strings.Contains(f.Excerpt, ">>>"); marked != (c.line > 0) {
			t.Errorf("%s: excerpt %q", name, f.Excerpt)
		}
	}
}

// TestDescribeOfSeveral holds that a failure names the platform where there are
// several, and a program for another one always.
func TestDescribeOfSeveral(t *testing.T) {
	exit := &step.ExitError{Args: []string{"make"}, Code: 2}
	foreign := &step.ExitError{Args: []string{"sh"}, Code: 126, Cause: &step.ForeignError{Program: "/bin/sh", Arch: "arm"}}
	for _, c := range []struct {
		name  string
		err   error
		index bool
		want  string
	}{
		{"[linux/arm/v7 build 2/3] RUN make", exit, true, `[linux/arm/v7 build 2/3] process "make" did not`},
		{"[build 2/3] RUN make", exit, false, `process "make" did not`},
		{"odd", exit, true, `process "make" did not`},
		{"[2/3] RUN <<E\nmore", foreign, false, "[2/3] RUN <<E ...: /bin/sh is a program for arm, and"},
		{"[2/3] " + strings.Repeat("\u00e4", 200), foreign, true, "\u00e4 ...: /bin/sh is a program for arm, and"},
	} {
		f := Describe(&StepError{Step: &plan.Step{Op: &plan.Run{}, Name: c.name}, Err: c.err}, &request.Build{Index: c.index}, nil)
		if i := strings.Index(f.Message, c.want); i < 0 || i > 0 && c.want[0] != "\u00e4"[0] || !utf8.ValidString(f.Message) {
			t.Errorf("%s: %q, want %q", c.name, f.Message, c.want)
		}
		if cross := strings.Contains(f.Hint, "BUILDPLATFORM"); cross != (c.err == foreign) {
			t.Errorf("%s: hint %q", c.name, f.Hint)
		}
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var l tail
	for i := range 3000 {
		l.add(fmt.Appendf(nil, "%d\n", i))
	}
	if got := string(l.bytes()); len(got) < tailSize-10 || len(got) > tailSize || !strings.HasPrefix(got, "2") || strings.Index(got, "\n") != 4 || !strings.HasSuffix(got, "2998\n2999\n") {
		t.Errorf("%d bytes, ending %q", len(got), got[max(0, len(got)-20):])
	}
}
