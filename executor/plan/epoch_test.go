package plan

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// clocks has times for the build context and for what is at /dated; of the
// context "plain" and of every other URL it knows none.
type clocks struct{ asked []string }

func (c *clocks) ContextTime(_ context.Context, name string) (*time.Time, error) {
	c.asked = append(c.asked, "context "+name)
	if name == "plain" {
		return nil, nil
	}
	t := time.Date(2021, 1, 1, 0, 0, 0, 5, time.UTC)
	return &t, nil
}

func (c *clocks) RemoteTime(_ context.Context, r Remote) (*time.Time, error) {
	c.asked = append(c.asked, r.URL+r.Checksum)
	if !strings.HasSuffix(r.URL, "/dated") {
		return nil, nil
	}
	t := time.Date(2022, 1, 1, 0, 0, 0, 0, time.FixedZone("", 3600))
	return &t, nil
}

// TestEpoch holds what each value of SOURCE_DATE_EPOCH means. The text's stage
// has the argument's value in a label.
func TestEpoch(t *testing.T) {
	const (
		end    = "FROM scratch\nARG SOURCE_DATE_EPOCH=unset\nLABEL e=$SOURCE_DATE_EPOCH\n"
		source = "FROM scratch AS src\nARG HOST=h SUM\nADD --checksum=$SUM http://$HOST/%s /\n"
		sum    = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	)
	dated := fmt.Sprintf(source, "dated")
	for _, tc := range []struct {
		name, value, text string
		want              int64 // seconds; -1: none
		asked             string
	}{
		{"a number", "1577836800", end, 1577836800, ""},
		{"before 1970", "-1", end, -1 << 62, ""},
		{"the default of a global ARG", "", "ARG SOURCE_DATE_EPOCH=5\n" + end, 5, ""},
		{"the build argument wins", "6", "ARG SOURCE_DATE_EPOCH=5\n" + end, 6, ""},
		{"the context, in whole seconds", "context", end, 1609459200, "context "},
		{"a named context", "src", dated + end, 1609459200, "context src"},
		{"a named context without a time", "plain", end, -1, "context plain"},
		{"an image of that name has no time", "img", end, -1, ""},
		{"a stage", "SRC2", strings.ReplaceAll(dated, "src", "src2") + end, 1640991600, "http://h/dated" + sum},
		{"a stage without a time", "src2", strings.ReplaceAll(fmt.Sprintf(source, "x"), "src", "src2") + end, -1, "http://h/x" + sum},
		{"a stage named by an ARG", "", "ARG SOURCE_DATE_EPOCH=src2\n" + strings.ReplaceAll(dated, "src", "src2") + end, 1640991600, "http://h/dated" + sum},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &clocks{}
			opt := Options{
				Epochs: c, Args: []request.KeyValue{arg("SUM", sum)},
				Contexts: []NamedContext{{Name: "img", Image: "registry.test/x:1"}, {Name: "src"}, {Name: "plain"}},
			}
			if tc.value != "" {
				opt.Args = append(opt.Args, arg(sourceDateEpoch, tc.value))
			}
			p, err := makePlan(tc.text, opt, testImages())
			if err != nil {
				t.Fatal(err)
			}
			label := p.Target.Image.Config.Labels["e"]
			switch {
			case tc.want == -1:
				if p.Created != nil || label != "unset" {
					t.Errorf("created %v, argument %q, want none", p.Created, label)
				}
			case tc.want == -1<<62:
				if p.Created == nil || p.Created.Unix() != -1 || label != "-1" {
					t.Errorf("created %v, argument %q", p.Created, label)
				}
			case p.Created == nil || !p.Created.Equal(time.Unix(tc.want, 0)) || p.Created.Location() != time.UTC:
				t.Errorf("created %v, want %v", p.Created, time.Unix(tc.want, 0).UTC())
			case label != fmt.Sprint(tc.want) && !strings.HasPrefix(tc.text, "ARG"):
				t.Errorf("argument %q, want %d", label, tc.want)
			}
			if got := strings.Join(c.asked, " "); got != tc.asked {
				t.Errorf("asked %q, want %q", got, tc.asked)
			}
		})
	}
}

func TestEpochErrors(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"FROM busybox AS s\nADD http://x/y /\n", "SOURCE_DATE_EPOCH stage must use FROM scratch"},
		{"FROM scratch AS s\n", "exactly one remote ADD"},
		{"FROM scratch AS s\nADD http://x/y /\nADD http://x/z /\n", "exactly one remote ADD"},
		{"FROM scratch AS s\nADD http://x/y http://x/z /\n", "exactly one remote ADD source"},
		{"FROM scratch AS s\nADD <<E /\nE\n", "exactly one remote ADD source"},
		{"FROM scratch AS s\nADD file /\n", "must be a single HTTP(S) or Git ADD"},
		{"FROM scratch AS s\nADD http://x/y /\nRUN x\n", "unsupported RUN instruction"},
		{"FROM scratch AS t\nADD http://x/y /\n", "invalid SOURCE_DATE_EPOCH: s"},
	} {
		opt := Options{Epochs: &clocks{}, Args: []request.KeyValue{arg(sourceDateEpoch, "s")}}
		_, err := makePlan(tc.text, opt, testImages())
		var e *dockerfile.Error
		if !errors.As(err, &e) || e.Class != request.ClassParse || !strings.Contains(e.Msg, tc.want) {
			t.Errorf("%s: error %v, want %q", tc.text, err, tc.want)
		}
	}
}

// TestSeveralPlatforms holds what is different where a plan is one of several:
// the names of its steps.
func TestSeveralPlatforms(t *testing.T) {
	const text = `FROM --platform=$BUILDPLATFORM registry.test/conformance/multi:1 AS build
RUN a
ARG TARGETARCH TARGETVARIANT
RUN b
ARG TARGETPLATFORM
RUN c
FROM registry.test/conformance/multi:1
COPY --from=build /x /
`
	for _, tc := range []struct {
		target v1.Platform
		want   string
	}{
		{v1.Platform{OS: "linux", Architecture: "amd64"},
			"[linux/amd64 build 2/4] RUN a|[linux/amd64 build 3/4] RUN b|[linux/amd64 build 4/4] RUN c|[linux/amd64 stage-1 2/2] COPY --from=build /x /"},
		{v1.Platform{OS: "linux", Architecture: "arm64"},
			"[linux/amd64 build 2/4] RUN a|[linux/amd64->arm64 build 3/4] RUN b|[linux/amd64->arm64 build 4/4] RUN c|[linux/arm64 stage-1 2/2] COPY --from=build /x /"},
	} {
		p := mustPlan(t, text, Options{Platform: tc.target, Several: true})
		var names []string
		for _, s := range p.Stages {
			for _, step := range s.Steps {
				names = append(names, step.Name)
			}
		}
		if got := strings.Join(names, "|"); got != tc.want {
			t.Errorf("%s: %s\nwant %s", tc.target, got, tc.want)
		}
	}
}

// TestHistoryFitsTheLayers holds that a base's history has an entry for each
// of its layers, whatever wrote it.
func TestHistoryFitsTheLayers(t *testing.T) {
	layer := func(n int) string {
		return strings.Join(strings.Split(strings.Repeat(`"sha256:`+strings.Repeat("0", 64)+`" `, n), " ")[:n], ",")
	}
	for _, tc := range []struct {
		layers  int
		history string
		want    string // one letter an entry: L of a layer, e empty
	}{
		{0, ``, "L"},
		{2, ``, "LLL"},
		{2, `{"created_by":"a"}`, "LLL"},
		{1, `{"created_by":"a","empty_layer":true},{"created_by":"b"}`, "eLL"},
		{1, `{"created_by":"a"},{"created_by":"b"}`, "LeL"},
		{0, `{"created_by":"a"},{"created_by":"b"}`, "eeL"},
	} {
		images := testImages()
		images.images["registry.test/odd:1"] = []string{fmt.Sprintf(
			`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%s]},"history":[%s]}`, layer(tc.layers), tc.history)}
		p, err := makePlan("FROM registry.test/odd:1\nRUN x\n", Options{}, images)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, h := range p.Target.Image.History {
			if h.EmptyLayer {
				got += "e"
			} else {
				got += "L"
			}
		}
		if got != tc.want {
			t.Errorf("%d layers, history [%s]: %s, want %s", tc.layers, tc.history, got, tc.want)
		}
	}
}
