package plan

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
)

const testPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// registry is a Resolver over configs kept in memory, by repository, tag and
// platform. It counts what it is asked.
type registry struct {
	mu     sync.Mutex
	images map[string][]string // reference -> configs, one a platform
	asked  []string
}

// testImages are the images of the tests; some are like those of the
// conformance suite.
func testImages() *registry {
	plain := `"config":{"Env":["` + testPath + `"],"Cmd":["sh"]%s}`
	image := func(arch, config string, history ...string) string {
		var h, diffs []string
		for i, s := range history {
			diffs = append(diffs, fmt.Sprintf(`"sha256:%064d"`, i))
			h = append(h, fmt.Sprintf(`{"created":"1970-01-01T00:00:00Z","created_by":%q}`, s))
		}
		return fmt.Sprintf(`{"created":"1970-01-01T00:00:00Z","os":"linux",%s,%s,"rootfs":{"type":"layers","diff_ids":[%s]},"history":[%s]}`,
			arch, config, strings.Join(diffs, ","), strings.Join(h, ","))
	}
	amd64, arm64 := `"architecture":"amd64"`, `"architecture":"arm64","variant":"v8"`
	const repo = "registry.test/conformance/"
	const pin = "@sha256:f323cfd59956f6af3de5350530f314ae2f66c34da9f84a55498c7cf328760f89"
	pinned := image(amd64, `"config":{"Env":["`+testPath+`"],"Labels":{"pinned":"yes"}}`, "pinned file")
	meta := `"config":{"Env":["` + testPath + `","META_A=one","META_B=two words"],
		"Labels":{"org.test.a":"1","shared":"base"},"User":"app","WorkingDir":"/srv/app",
		"Entrypoint":["/bin/echo","meta"],"Cmd":["default"],"Volumes":{"/data":{}},"ExposedPorts":{"8080/tcp":{}},
		"StopSignal":"SIGINT","Shell":["/bin/ash","-ec"],
		"Healthcheck":{"Test":["CMD","true"],"Interval":30000000000,"Timeout":5000000000,"Retries":2}}`
	onbuild := fmt.Sprintf(plain, `,"OnBuild":["COPY trigger.txt /onbuild/","RUN echo ran > /onbuild/ran","ENV FROM_ONBUILD=yes"]`)
	base := fmt.Sprintf(plain, "")
	return &registry{images: map[string][]string{
		repo + "base:1":      {image(amd64, base, "base rootfs")},
		repo + "nopath:1":    {image(amd64, `"config":{"Cmd":["sh"]}`, "base rootfs")},
		repo + "onbuild:1":   {image(amd64, onbuild, "base rootfs")},
		repo + "meta:1":      {image(amd64, meta, "base rootfs", "meta files")},
		repo + "multi:1":     {image(amd64, base, "base rootfs", "arch file"), image(arm64, base, "arch file")},
		repo + "layers:1":    {image(amd64, base, "base rootfs", "first data layer", "second data layer")},
		repo + "pin:1":       {pinned},
		repo + "pin" + pin:   {pinned},
		repo + "pin:1" + pin: {pinned},
	}}
}

func (r *registry) Resolve(ctx context.Context, ref string, p v1.Platform) (*Resolved, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, ref)
	configs, ok := r.images[ref]
	if !ok {
		return nil, fmt.Errorf("%s: not found", ref)
	}
	for _, c := range configs {
		var got v1.Platform
		if err := json.Unmarshal([]byte(c), &got); err != nil {
			return nil, err
		}
		// As a registry does, an image that is no index is given whatever is asked.
		if len(configs) == 1 || got.Architecture == p.Architecture {
			return &Resolved{Ref: ref, Config: []byte(c)}, nil
		}
	}
	return nil, fmt.Errorf("no match for platform in manifest: not found")
}

var linuxAMD64 = v1.Platform{OS: "linux", Architecture: "amd64"}

// make parses and plans; it closes over nothing else.
func makePlan(text string, opt Options, images Resolver) (*Plan, error) {
	f, err := dockerfile.Parse("Dockerfile", []byte(text))
	if err != nil {
		return nil, err
	}
	if opt.BuildPlatform.OS == "" {
		opt.BuildPlatform = linuxAMD64
	}
	return Make(context.Background(), f, opt, images)
}

func mustPlan(t *testing.T, text string, opt Options) *Plan {
	t.Helper()
	p, err := makePlan(text, opt, testImages())
	if err != nil {
		t.Fatal(err)
	}
	return p
}
