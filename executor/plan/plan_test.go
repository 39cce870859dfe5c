package plan

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const base = "FROM registry.test/conformance/base:1\n"

func arg(k, v string) request.KeyValue { return request.KeyValue{Key: k, Value: v} }

// needs are the ids of the stages that one stands on and reads, in order.
func needs(s *Stage) (ids []StageID) {
	if s.Base.Stage != nil {
		ids = append(ids, s.Base.Stage.ID)
	}
	for _, st := range s.Steps {
		for _, src := range Sources(st.Op) {
			ids = append(ids, src.ID)
		}
	}
	return ids
}

// created lists the history entries that the Dockerfile added; those without a
// layer start with a dash.
func created(img *Image) []string {
	var list []string
	for _, h := range img.History {
		switch {
		case h.Comment == "":
		case h.EmptyLayer:
			list = append(list, "- "+h.CreatedBy)
		default:
			list = append(list, h.CreatedBy)
		}
	}
	return list
}

func TestHistory(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		opt        Options
		want       []string
	}{
		{"arguments are in front of RUN", base + "ARG A=1 B\nENV A=2\nRUN x\n", Options{},
			[]string{"- ARG A=1 B", "- ENV A=2", "RUN |2 A=2 B= /bin/sh -c x # buildkit"}},
		{"scan arguments are no variables", base + "ARG BUILDKIT_SBOM_SCAN_STAGE=x\nLABEL l=[$BUILDKIT_SBOM_SCAN_STAGE]\n", Options{},
			[]string{"- ARG BUILDKIT_SBOM_SCAN_STAGE=x", "- LABEL l=[]"}},
		{"a global value is not expanded again", "ARG A='$B'\n" + base + "ARG B=no\nARG A\n", Options{},
			[]string{"- ARG B=no", "- ARG A=$B"}},
		{"the root is no step", base + "WORKDIR /\nWORKDIR x\n", Options{}, []string{"- WORKDIR /", "WORKDIR /x"}},
		{"flags of COPY", base + "COPY --link --parents --chown=1:2 --chmod=u+x --exclude=z a b <<E c/\nE\n", Options{},
			[]string{"COPY --parents --chown=1:2 --chmod=u+x a b <<E c/ # buildkit"}},
		{"logins of web servers", base + "ARG T=secret\nADD https://u:$T@h/f@1 HTTP://$T@h/x.git ssh://git@h/y.git /d/\nADD https://h/a@b /d/\n", Options{},
			[]string{"- ARG T=secret", "ADD https://xxxxx:xxxxx@h/f@1 HTTP://xxxxx:xxxxx@h/x.git ssh://git@h/y.git /d/ # buildkit", "ADD https://h/a@b /d/ # buildkit"}},
		{"ranges", base + "EXPOSE 53/UDP 8000-8002\n", Options{}, []string{"- EXPOSE [53/udp 8000/tcp 8001/tcp 8002/tcp]"}},
		{"an argument with several ports", base + "ARG P='1 2/udp'\nEXPOSE $P\n", Options{}, []string{"- ARG P=1 2/udp", "- EXPOSE [1/tcp 2/udp]"}},
		{"ENV of the parent wins over its ARG in the child", base[:len(base)-1] + " AS p\nENV V=env\nARG V=arg\nRUN a\nFROM p\nRUN b\n", Options{},
			[]string{"- ENV V=env", "- ARG V=arg", "RUN |1 V=arg /bin/sh -c a # buildkit", "RUN |1 V=env /bin/sh -c b # buildkit"}},
		{"no time, no argument", base + "ARG SOURCE_DATE_EPOCH\n", Options{Args: []request.KeyValue{arg("SOURCE_DATE_EPOCH", "")}},
			[]string{"- ARG SOURCE_DATE_EPOCH"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := mustPlan(t, tc.text, tc.opt)
			if d := cmp.Diff(tc.want, created(p.Target.Image)); d != "" {
				t.Error(d)
			}
			for _, s := range p.Stages[len(p.Stages)-1].Steps {
				if strings.Contains(s.Name, "secret@") {
					t.Errorf("the name of a step is %q", s.Name)
				}
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		text  string
		class request.Class
		want  string
		line  int
	}{
		{base + "RUN --network=host x\n", request.ClassEntitlement, "network.host is not allowed", 2},
		{base + "RUN --security=insecure x\n", request.ClassEntitlement, "security.insecure is not allowed", 2},
		{base + "RUN --device=nvidia.com/gpu=all x\n", request.ClassUnsupported, "--device is not supported", 2},
		{base + "COPY git@example.test:o/r /x\n", request.ClassParse, "source can't be a git ref for COPY", 2},
		{base + "COPY http://x/y /x\n", request.ClassParse, "source can't be a URL for COPY", 2},
		{base + "ADD --checksum=sha256:0 http://x/y /x\n", request.ClassParse, "invalid checksum digest length", 2},
		{base + "ADD --checksum=sha256:0 http://x/y http://x/z /x\n", request.ClassParse, "multiple sources", 2},
		{base + "COPY --link --chown=app a /x\n", request.ClassParse, "can't be resolved when used with --link", 2},
		{base + "COPY --chmod=8 a /x\n", request.ClassParse, "between 0 and 07777", 2},
		{base + "COPY --chmod=u~x a /x\n", request.ClassParse, "invalid chmod parameter: 'u~x'", 2},
		{base + "COPY --chmod=10000 a /x\n", request.ClassParse, "invalid chmod parameter", 2},
		{base + "COPY <<a/b /x\na/b\n", request.ClassParse, "not a file name", 2},
		{base + "RUN --mount=type=ssh,source=x true\n", request.ClassParse, "ssh does not support source", 2},
		{base + "RUN --mount=type=cache,target=/ true\n", request.ClassParse, `invalid mount target "/"`, 2},
		{base + "RUN --mount=type=cache,target=//. true\n", request.ClassParse, `invalid mount target "/"`, 2},
		{base + "RUN --mount=from=$X,target=/a true\n", request.ClassParse, "doesn't support variable expansion", 2},
		{base + "COPY --from=later a b\n" + base[:len(base)-1] + " AS later\n" + base + "COPY --from=0 a b\n", request.ClassParse,
			`cannot copy from stage "later"`, 2},
		{base[:len(base)-1] + " AS a\nRUN --mount=from=b,target=/x true\nFROM a AS b\nFROM b\n", request.ClassParse, `cannot mount from stage "b"`, 2},
		{base[:len(base)-1] + " AS p\nONBUILD COPY --from=c a b\nFROM p AS c\n", request.ClassParse, "circular dependency detected on stage: c", 3},
		{base[:len(base)-1] + " AS a\nRUN --mount=type=tmpfs,from=b,target=/x true\nFROM a AS b\n", request.ClassParse, `cannot mount from stage "b"`, 2},
		{base + "EXPOSE 1-2:3-5\n", request.ClassParse, "invalid ranges", 2},
		{base + "EXPOSE 1:2:3\n", request.ClassParse, "invalid IP address: 1", 2},
		{base + "EXPOSE 9-8\n", request.ClassParse, "invalid containerPort: 9-8", 2},
		{base + "STOPSIGNAL SIGRTMIN+16\n", request.ClassParse, "invalid signal", 2},
		{base + "STOPSIGNAL 0\n", request.ClassParse, "invalid signal", 2},
		{"FROM --platform=windows/amd64 scratch\nFROM --platform=windows/amd64 registry.test/conformance/base:1\n", request.ClassUnsupported, "windows", 2},
		{"FROM --platform=$X registry.test/conformance/base:1\n", request.ClassParse, "empty platform value", 1},
		{"FROM --platform=$TARGTPLATFORM scratch\n", request.ClassParse, "did you mean TARGETPLATFORM?", 1},
		// Bases of stages that are not needed are looked at, but not asked for.
		{"FROM A/B:c:d\n" + base, request.ClassResolve, "invalid reference format", 1},
		{"FROM registry.test/none\n" + base, "", "", 0},
		{"FROM registry.test/none\n", request.ClassResolve, "registry.test/none: registry.test/none:latest: not found", 1},
		{"FROM debain\n", request.ClassResolve, "(did you mean debian?)", 1},
		{"FROM registry.test/broken:1\n", request.ClassResolve, "failed to parse image config", 1},
		{"ARG A=${B\nFROM scratch\n", request.ClassParse, "failed to process", 1},
		{"ARG SOURCE_DATE_EPOCH=soon\nFROM scratch\n", request.ClassParse, "invalid SOURCE_DATE_EPOCH: soon", 0},
		{"ARG SOURCE_DATE_EPOCH=999999999999999\nFROM scratch\n", request.ClassParse, "invalid SOURCE_DATE_EPOCH", 0},
		{"# check=error=true\nFROM scratch\nWORKDIR x\nCMD a\n", request.ClassLint, "rules: JSONArgsRecommended, WorkdirRelativePath", 3},
	} {
		images := testImages()
		images.images["registry.test/broken:1"] = []string{`{"os":"linux","architecture":"amd64","config":[]}`}
		_, err := makePlan(tc.text, Options{}, images)
		if tc.class == "" {
			if err != nil {
				t.Errorf("%s: %v", tc.text, err)
			}
			continue
		}
		var e *dockerfile.Error
		if !errors.As(err, &e) {
			t.Errorf("%s: error %v", tc.text, err)
			continue
		}
		if e.Class != tc.class || e.Line != tc.line || !strings.Contains(e.Msg, tc.want) {
			t.Errorf("%s: %s at %d: %q\nwant %s at %d: %q", tc.text, e.Class, e.Line, e.Msg, tc.class, tc.line, tc.want)
		}
	}
}

func TestStages(t *testing.T) {
	const text = `FROM registry.test/conformance/base:1 AS unused
RUN x
FROM registry.test/conformance/meta:1 AS config
LABEL a=b
FROM registry.test/conformance/base:1 AS tools
RUN make
FROM config
COPY --from=tools /a /a
COPY --from=registry.test/conformance/pin:1 /b /b
RUN --mount=from=registry.test/conformance/pin:1,target=/p --mount=from=2,target=/t true
FROM scratch
COPY --from=3 / /
`
	images := testImages()
	p, err := makePlan(text, Options{}, images)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		ID    StageID
		Name  string
		Needs []StageID
		Files bool
		Steps int
	}
	var got []row
	for _, s := range p.Stages {
		got = append(got, row{s.ID, s.Name, needs(s), s.NeedsFiles, len(s.Steps)})
	}
	want := []row{
		{5, "registry.test/conformance/pin:1", nil, true, 0},
		{1, "config", nil, true, 0},
		{2, "tools", nil, true, 1},
		{3, "stage-3", []StageID{1, 2, 5, 5, 2}, true, 3},
		{4, "stage-4", []StageID{3}, true, 1},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if p.Target != p.Stages[len(p.Stages)-1] {
		t.Error("the target is not the last stage")
	}
	slices.Sort(images.asked)
	if d := cmp.Diff([]string{"registry.test/conformance/base:1", "registry.test/conformance/meta:1", "registry.test/conformance/pin:1"}, images.asked); d != "" {
		t.Errorf("images asked for: %s", d)
	}
	names := []string{"[stage-3 1/3] COPY --from=tools /a /a", "[stage-3 2/3] COPY --from=registry.test/conformance/pin:1 /b /b"}
	for i, name := range names {
		if got := p.Stages[3].Steps[i].Name; got != name {
			t.Errorf("step %q, want %q", got, name)
		}
	}
}

func TestNeedsFiles(t *testing.T) {
	p := mustPlan(t, base[:len(base)-1]+" AS a\nENV x=y\nFROM a AS b\nUSER app\nWORKDIR /\nCMD [\"x\"]\n", Options{})
	for _, s := range p.Stages {
		if s.NeedsFiles || len(s.Steps) > 0 {
			t.Errorf("stage %s needs files: %v, %d steps", s.Name, s.NeedsFiles, len(s.Steps))
		}
	}
	p = mustPlan(t, base[:len(base)-1]+" AS a\nLABEL x=y\nFROM a AS b\nWORKDIR /x\n", Options{})
	for _, s := range p.Stages {
		if !s.NeedsFiles {
			t.Errorf("stage %s needs files", s.Name)
		}
	}
}

func TestRun(t *testing.T) {
	const text = `FROM registry.test/conformance/meta:1
ARG A=arg
ENV E=env
WORKDIR sub
USER dev:extra
SHELL ["/bin/sh", "-x"]
RUN --network=none \
  --mount=type=cache,target=c/,sharing=locked,mode=0711 \
  --mount=type=secret,id=tok,env=TOK \
  --mount=type=secret,id=f,target=rel,uid=7 \
  --mount=type=ssh --mount=type=ssh,id=two,required \
  --mount=type=tmpfs,target=/t,size=1k \
  --mount=source=$E,target=/b,rw \
  make $A $TOK '$E' $LATER
`
	p := mustPlan(t, text, Options{Args: []request.KeyValue{arg("http_proxy", "http://p"), arg("E", "no")}})
	step := p.Target.Steps[1]
	u := func(n uint32) *uint32 { return &n }
	want := &Run{
		Args:    []string{"/bin/sh", "-x", "make $A $TOK '$E' $LATER"},
		Env:     []string{testPath, "META_A=one", "META_B=two words", "A=arg", "E=env", "HTTP_PROXY=http://p", "http_proxy=http://p"},
		Cwd:     "/srv/app/sub",
		User:    "dev:extra",
		Network: "none",
		Mounts: []Mount{
			{Type: "cache", From: From{Kind: FromScratch}, Source: "/", Target: "/srv/app/sub/c", ID: "c", Sharing: "locked", Mode: u(0o711)},
			{Type: "secret", From: From{Kind: FromScratch}, ReadOnly: true, ID: "tok", Env: "TOK", Mode: u(0o400), UID: u(0), GID: u(0)},
			{Type: "secret", From: From{Kind: FromScratch}, ReadOnly: true, ID: "f", Target: "/srv/app/sub/rel", Mode: u(0o400), UID: u(7), GID: u(0)},
			{Type: "ssh", From: From{Kind: FromScratch}, ReadOnly: true, ID: "default", Target: "/run/buildkit/ssh_agent.0", Env: "SSH_AUTH_SOCK", Mode: u(0o600), UID: u(0), GID: u(0)},
			{Type: "ssh", From: From{Kind: FromScratch}, ReadOnly: true, ID: "two", Target: "/run/buildkit/ssh_agent.1", Required: true, Mode: u(0o600), UID: u(0), GID: u(0)},
			{Type: "tmpfs", From: From{Kind: FromScratch}, Target: "/t", Size: 1024},
			{Type: "bind", From: From{Kind: FromContext}, Source: "/env", Target: "/b"},
		},
	}
	if d := cmp.Diff(want, step.Op); d != "" {
		t.Error(d)
	}
	if !strings.HasSuffix(step.Name, "make arg **** '$E' $LATER") || !strings.HasPrefix(step.Name, "[3/3] RUN --network=none") {
		t.Errorf("name %q", step.Name)
	}
	if step.Line != 7 || step.EndLine != 14 {
		t.Errorf("lines %d-%d", step.Line, step.EndLine)
	}
	if d := cmp.Diff(&Workdir{Path: "/srv/app/sub", User: "app"}, p.Target.Steps[0].Op); d != "" {
		t.Error(d)
	}
}

func TestRunFiles(t *testing.T) {
	p := mustPlan(t, base+"RUN <<-X\n\t#!/bin/awk -f\n\tBEGIN{}\nX\nRUN <<X\n$A\nX\n", Options{})
	run := p.Target.Steps[0].Op.(*Run)
	if d := cmp.Diff([]File{{Name: "X", Data: []byte("#!/bin/awk -f\nBEGIN{}\n"), Mode: 0o755}}, run.Files); d != "" {
		t.Error(d)
	}
	if want := "/dev/pipes/X"; run.Args[2] != want {
		t.Errorf("command %q, want %q", run.Args[2], want)
	}
	if name := p.Target.Steps[0].Name; name != "[2/3] RUN <<-X (#!/bin/awk -f...)" {
		t.Errorf("name %q", name)
	}
	if run = p.Target.Steps[1].Op.(*Run); run.Args[2] != "$A\n" || run.Files != nil {
		t.Errorf("%q, %v", run.Args, run.Files)
	}
}

func TestCopy(t *testing.T) {
	yes := true
	for _, tc := range []struct {
		text string
		want *Copy
	}{
		{"COPY --from=scratch a b", &Copy{From: From{Kind: FromScratch}, Paths: []string{"a"}, Dest: "/w/b"}},
		{"COPY --link --chown=:0 a b", &Copy{Paths: []string{"a"}, Dest: "/w/b", Link: true, Chown: ":0"}},
		{"COPY a .", &Copy{Paths: []string{"a"}, Dest: "/w/"}},
		{"COPY a ./x/.", &Copy{Paths: []string{"a"}, Dest: "/w/x/."}},
		{"COPY a ../x/", &Copy{Paths: []string{"a"}, Dest: "/x/"}},
		{"COPY a /x//y/../z", &Copy{Paths: []string{"a"}, Dest: "/x/z"}},
		{`COPY ["", "$V", "/"]`, &Copy{Paths: []string{"", "v"}, Dest: "/"}},
		{"COPY --link --chown=0:root --chmod=+x,u=g --exclude=$V --exclude=b /../a/./b /", &Copy{
			Paths: []string{"/../a/./b"}, Dest: "/", Chown: "0:root", Chmod: "+x,u=g", Link: true, Exclude: []string{"$V", "b"}}},
		{"COPY <<A <<'B' /x/\n$V \\$V '$V'\nA\n$V\nB\n", &Copy{Dest: "/x/", Files: []File{
			{Name: "A", Data: []byte("v $V 'v'\n"), Mode: 0o644}, {Name: "B", Data: []byte("$V\n"), Mode: 0o644}}}},
		{"ADD --unpack --checksum=sha256:$S http://x/d/f.tgz?q#g /x", &Copy{Add: true, Unpack: &yes, Dest: "/x", Remotes: []Remote{
			{URL: "http://x/d/f.tgz?q#g", Checksum: "sha256:" + strings.Repeat("0", 64), Name: "f.tgz"}}}},
		{"ADD https://x a /x/", &Copy{Add: true, Dest: "/x/", Paths: []string{"a"}, Remotes: []Remote{{URL: "https://x", Name: "__unnamed__"}}}},
		{"ADD github.com/o/r /x", &Copy{Add: true, Dest: "/x", Paths: []string{"github.com/o/r"}}},
	} {
		p := mustPlan(t, base+"WORKDIR /w\nENV V=v S="+strings.Repeat("0", 64)+"\n"+tc.text+"\n", Options{})
		if d := cmp.Diff(tc.want, p.Target.Steps[1].Op); d != "" {
			t.Errorf("%s: %s", tc.text, d)
		}
	}
}

func TestPlatforms(t *testing.T) {
	arm := v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	for _, tc := range []struct {
		text    string
		opt     Options
		arch    string
		variant string
		stage   v1.Platform
	}{
		{base, Options{}, "amd64", "", linuxAMD64},
		{"FROM scratch\n", Options{Platform: v1.Platform{OS: "linux", Architecture: "arm"}}, "arm", "v7", v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}},
		{"FROM registry.test/conformance/multi:1\n", Options{Platform: arm}, "arm64", "", v1.Platform{OS: "linux", Architecture: "arm64"}},
		// An image that is no index is taken as it is; the label says what was asked for.
		{base, Options{Platform: arm}, "arm64", "", v1.Platform{OS: "linux", Architecture: "arm64"}},
		{"FROM --platform=linux/arm64 registry.test/conformance/multi:1\n", Options{}, "arm64", "", v1.Platform{OS: "linux", Architecture: "arm64"}},
		{"FROM --platform=$BUILDPLATFORM registry.test/conformance/multi:1\n", Options{Platform: arm}, "arm64", "", linuxAMD64},
	} {
		p := mustPlan(t, tc.text, tc.opt)
		if img := p.Target.Image; img.Architecture != tc.arch || img.Variant != tc.variant || img.OS != "linux" {
			t.Errorf("%s: %s/%s/%s", tc.text, img.OS, img.Architecture, img.Variant)
		}
		if d := cmp.Diff(tc.stage, p.Target.Platform); d != "" {
			t.Errorf("%s: %s", tc.text, d)
		}
	}
}

func TestBaseConfigIsTakenAsItComes(t *testing.T) {
	images := testImages()
	images.images["registry.test/odd:1"] = []string{`{"os":"linux","architecture":"amd64","x":1,"author":"me","created":"2020-01-01T00:00:00Z",
		"container_config":{"Cmd":["y"]},
		"config":{"Env":["NOVALUE","=odd","A=b=c",""],"Hostname":"h","Domainname":"","Labels":null,"OnBuild":null,"WorkingDir":"","Cmd":null},
		"rootfs":{"type":"layers","diff_ids":["sha256:` + strings.Repeat("0", 64) + `"]},"history":null}`}
	p, err := makePlan("FROM registry.test/odd:1\nENV NOVALUE=now\nRUN x\n", Options{}, images)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(p.Target.Image)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"author":"me","architecture":"amd64","os":"linux","config":{"Env":["NOVALUE=now","=odd","A=b=c","","` + testPath + `"]},` +
		`"rootfs":{"type":"layers","diff_ids":null},"history":[` +
		`{"created":"2020-01-01T00:00:00Z","created_by":"pulled from registry.test/odd:1","comment":"buildkit.exporter.image.v0"},` +
		`{"created_by":"ENV NOVALUE=now","comment":"buildkit.dockerfile.v0","empty_layer":true},` +
		`{"created_by":"RUN /bin/sh -c x # buildkit","comment":"buildkit.dockerfile.v0"}]}`
	if d := cmp.Diff(want, string(b)); d != "" {
		t.Error(d)
	}
	run := p.Target.Steps[0].Op.(*Run)
	if d := cmp.Diff([]string{"A=b=c", "=", testPath, "NOVALUE=now"}, run.Env); d != "" {
		t.Error(d)
	}
	if run.Cwd != "/" {
		t.Errorf("cwd %q", run.Cwd)
	}
}

func TestTimes(t *testing.T) {
	at := time.Date(2024, 5, 6, 7, 8, 9, 0, time.FixedZone("", 3600))
	p := mustPlan(t, base+"WORKDIR /x\n", Options{Created: at})
	img := p.Target.Image
	last := img.History[len(img.History)-1]
	if !p.Created.Equal(at) || !img.Created.Equal(at) || !last.Created.Equal(at) || img.Created.Location() != time.UTC {
		t.Errorf("%v, %v, %v, want %v", p.Created, img.Created, last.Created, at)
	}
	if w := p.Target.Steps[0].Op.(*Workdir); !w.Time.Equal(at) {
		t.Errorf("workdir %v", w.Time)
	}
	p = mustPlan(t, base, Options{Created: at, Args: []request.KeyValue{arg("SOURCE_DATE_EPOCH", "0")}})
	if p.Target.Image.Created.Unix() != 0 {
		t.Errorf("SOURCE_DATE_EPOCH gives %v", p.Target.Image.Created)
	}
	if p := mustPlan(t, base, Options{}); p.Target.Image.Created != nil {
		t.Errorf("created %v without being told", p.Target.Image.Created)
	}
}

func TestIgnoredArguments(t *testing.T) {
	opt := Options{}
	for _, k := range []string{"NOPE", "NOPE", "GLOBAL", "STAGE", "TRIGGER", "https_proxy", "TARGETOS", "SOURCE_DATE_EPOCH", "BUILDKIT_X"} {
		opt.Args = append(opt.Args, arg(k, "1"))
	}
	p := mustPlan(t, "ARG GLOBAL\nFROM scratch AS a\nARG STAGE\nFROM scratch AS b\nONBUILD ARG TRIGGER\nFROM b\n", opt)
	if d := cmp.Diff([]string{"NOPE"}, p.Ignored); d != "" {
		t.Error(d)
	}
}

func TestCanceled(t *testing.T) {
	f, err := dockerfile.Parse("Dockerfile", []byte(base))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Make(ctx, f, Options{BuildPlatform: linuxAMD64}, testImages()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestSamePlanTwice(t *testing.T) {
	const text = `# syntax=other/frontend
FROM registry.test/conformance/base:1 AS a
RUN --mount=from=registry.test/conformance/pin:1,target=/a --mount=from=registry.test/conformance/meta:1,target=/b $X $Y $Z
COPY $X1 $X2 $X3 /
FROM registry.test/conformance/onbuild:1
COPY --from=a / /
`
	f, err := dockerfile.Parse("Dockerfile", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	first, err := Make(context.Background(), f, Options{BuildPlatform: linuxAMD64}, testImages())
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		again, err := Make(context.Background(), f, Options{BuildPlatform: linuxAMD64}, testImages())
		if err != nil || !reflect.DeepEqual(first, again) {
			t.Fatalf("%v: %s", err, cmp.Diff(first, again))
		}
	}
}

// TestAllow: what was granted may be asked for; nothing grants security.insecure.
func TestAllow(t *testing.T) {
	opt := Options{Allow: []string{"network.host", "security.insecure"}}
	p, err := makePlan("FROM scratch\nRUN --network=host x\n", opt, testImages())
	if err != nil {
		t.Fatal(err)
	}
	if run := p.Target.Steps[0].Op.(*Run); run.Network != "host" {
		t.Errorf("network %q", run.Network)
	}
	_, err = makePlan("FROM scratch\nRUN --security=insecure x\n", opt, testImages())
	var known *dockerfile.Error
	if !errors.As(err, &known) || known.Class != request.ClassEntitlement {
		t.Errorf("insecure: %v", err)
	}
}
