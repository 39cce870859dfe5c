package plan

import (
	"context"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const outlined = `# BASE is what all stages stand on
ARG BASE=registry.test/conformance/base
ARG TAG=1
ARG REF=${BASE}:${TAG}
ARG UNUSED=x
# A is shared
ARG A=all

FROM ${REF} AS tools
ARG TOOLS=${A}
ARG TARGETARCH
RUN --mount=type=secret,id=tool,required=true --mount=type=secret,id=both x

# app is what is shipped
FROM scratch AS app
# A is looked up
ARG A
# B has a default
ARG B=b C
RUN --mount=type=secret,id=both,env=X --mount=type=ssh x
RUN --mount=type=ssh,id=other,required=true --mount=type=ssh x
COPY --from=tools /x /

FROM scratch AS last
ARG LAST=1
`

// outlineText is an outline in words.
func outlineText(o *Outline) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", o.Name, o.Description)
	for _, a := range o.Args {
		fmt.Fprintf(&b, "%d-%d ARG %s=%s # %s\n", a.Line, a.EndLine, a.Name, a.Value, a.Description)
	}
	for kind, list := range map[string][]Parameter{"secret": o.Secrets} {
		for _, p := range list {
			fmt.Fprintf(&b, "%d-%d %s %s %t\n", p.Line, p.EndLine, kind, p.Name, p.Required)
		}
	}
	for _, p := range o.Agents {
		fmt.Fprintf(&b, "%d-%d ssh %s %t\n", p.Line, p.EndLine, p.Name, p.Required)
	}
	return b.String()
}

func TestOutline(t *testing.T) {
	for _, tc := range []struct {
		target string
		args   []request.KeyValue
		want   string
	}{
		{"app", nil, `app: is what is shipped
2-2 ARG BASE=registry.test/conformance/base # is what all stages stand on
3-3 ARG TAG=1 # 
4-4 ARG REF=registry.test/conformance/base:1 # 
7-7 ARG A=all # is shared
10-10 ARG TOOLS= # 
19-19 ARG B=b # has a default
19-19 ARG C= # 
12-12 secret tool true
20-20 secret both false
20-20 ssh default false
21-21 ssh other true
`},
		{"tools", []request.KeyValue{arg("TOOLS", "given"), arg("A", "set"), arg("TAG", "1")}, `tools: 
2-2 ARG BASE=registry.test/conformance/base # is what all stages stand on
3-3 ARG TAG=1 # 
4-4 ARG REF=registry.test/conformance/base:1 # 
10-10 ARG TOOLS=given # 
12-12 secret tool true
12-12 secret both false
`},
		{"", []request.KeyValue{arg("LAST", "2")}, "last: \n25-25 ARG LAST=2 # \n"},
	} {
		file, err := dockerfile.Parse("Dockerfile", []byte(outlined))
		if err != nil {
			t.Fatal(err)
		}
		opt := Options{Target: tc.target, Args: tc.args, BuildPlatform: v1.Platform{OS: "linux", Architecture: "amd64"}}
		o, _, err := MakeOutline(context.Background(), file, opt, testImages())
		if err != nil {
			t.Fatal(err)
		}
		if got := outlineText(o); got != tc.want {
			t.Errorf("%q:\n%s\nwant\n%s", tc.target, got, tc.want)
		}
	}
}

func TestTargets(t *testing.T) {
	const text = "# build makes it\nFROM --platform=$BUILDPLATFORM debian AS build\nFROM build\nFROM ${X}\n"
	file, err := dockerfile.Parse("Dockerfile", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Targets(file)
	want := []Target{
		{Name: "build", Description: "makes it", Base: "debian", Platform: "$BUILDPLATFORM", Line: 2, EndLine: 2},
		{Base: "build", Line: 3, EndLine: 3},
		{Base: "${X}", Default: true, Line: 4, EndLine: 4},
	}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
}
