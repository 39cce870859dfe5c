package flags

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/platforms"
	"github.com/google/go-cmp/cmp"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// TestPlatformIsThatOfContainerd holds that our normal form is the one of the
// package that the executor, registries and BuildKit use.
func TestPlatformIsThatOfContainerd(t *testing.T) {
	names := []string{"linux", "wasi/wasm", "linux/", "/amd64", "a/b/c/d", "linux//v7", "", "amd65", "linux/amd 64"}
	for _, arch := range []string{
		"386", "i386", "amd64", "x86_64", "x86-64", "X86_64", "arm64", "aarch64", "AARCH64", "arm", "armhf", "armel", "riscv64",
		"s390x", "ppc64le", "ppc64", "mips64le", "mips", "loong64",
	} {
		names = append(names, arch)
		for _, os := range []string{"linux", "LINUX", "macos", "darwin", "freebsd"} {
			for _, variant := range []string{"", "/v1", "/v2", "/v3", "/5", "/6", "/7", "/8", "/v5", "/v6", "/v7", "/v8", "/v8.0", "/v8.1", "/v9"} {
				names = append(names, os+"/"+arch+variant)
			}
		}
	}
	for _, name := range names {
		got, ok := platform(name)
		p, err := platforms.Parse(name)
		if ok != (err == nil) {
			t.Errorf("%s: taken %t, containerd says %v", name, ok, err)
			continue
		}
		if want := platforms.FormatAll(platforms.Normalize(p)); ok && got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestImages(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch"})
	here := "linux/" + runtime.GOARCH
	note := func(level request.AnnotationLevel, platform, key, value string) request.Annotation {
		return request.Annotation{Level: level, Platform: platform, KeyValue: request.KeyValue{Key: key, Value: value}}
	}
	both := []string{"linux/amd64", "linux/arm64"}
	for _, tt := range []struct {
		name, line string
		want       func(*request.Build)
	}{
		{"several platforms, merged", "--platform linux/amd64,aarch64 --platform x86_64 --custom-platform linux/arm64/v8", func(r *request.Build) {
			r.Platforms, r.Index = both, true
		}},
		{"the same platform twice is one", "--platform linux/arm64,linux/arm64/v8", func(r *request.Build) { r.Platforms = both[1:] }},
		{"local is this machine's", "--platform local", func(r *request.Build) { r.Platforms = []string{here} }},
		{"an index for one", "--build-arg BUILDKIT_MULTI_PLATFORM=1", func(r *request.Build) {
			r.Index, r.Args = true, []request.KeyValue{{Key: "BUILDKIT_MULTI_PLATFORM", Value: "1"}}
		}},
		{"an annotation is the manifest's", "--annotation a.b/c=d=e,f:g", func(r *request.Build) {
			r.Annotations = []request.Annotation{note("manifest", "", "a.b/c", "d=e,f:g")}
		}},
		{"an empty one is none", "--annotation= --annotation a=", func(r *request.Build) {
			r.Annotations = []request.Annotation{note("manifest", "", "a", "")}
		}},
		{"types and platforms", "--platform linux/amd64,linux/arm64 --annotation index,manifest[linux/arm64/v8],manifest-descriptor,index-descriptor[linux/s390x]:k=v", func(r *request.Build) {
			r.Platforms, r.Index = both, true
			r.Annotations = []request.Annotation{
				note("index", "", "k", "v"), note("manifest", "linux/arm64", "k", "v"),
				note("manifest-descriptor", "", "k", "v"), note("index-descriptor", "", "k", "v"),
			}
		}},
		{"this machine's platform without naming one", "--annotation manifest[" + here + "]:k=v", func(r *request.Build) {
			r.Annotations = []request.Annotation{note("manifest", here, "k", "v")}
		}},
		{"of the manifest also in Docker's format", "--image-format docker --annotation k=v", func(r *request.Build) {
			r.Format, r.Annotations = "docker", []request.Annotation{note("manifest", "", "k", "v")}
		}},
		{"clamped times", "--rewrite-timestamp", func(r *request.Build) { r.RewriteTimestamp = true }},
		{"Kaniko's reproducible", "--reproducible", func(r *request.Build) {
			r.RewriteTimestamp, r.Created = true, time.Unix(0, 0).UTC()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := parse(t, dir, nil, "--no-push "+tt.line)
			if err != nil {
				t.Fatal(err)
			}
			want, _, err := parse(t, dir, nil, "--no-push")
			if err != nil {
				t.Fatal(err)
			}
			tt.want(&want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error("-want +got:\n" + diff)
			}
		})
	}
}

func TestImageErrors(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch"})
	for line, want := range map[string]string{
		"--platform linux/amd64,linux/arm64 --tar-path x":                              "--tar-path cannot be used with several platforms",
		"--build-arg BUILDKIT_MULTI_PLATFORM=true --tar-path x":                        "--tar-path cannot be used with several platforms",
		"--build-arg BUILDKIT_MULTI_PLATFORM=no --platform linux/amd64,linux/arm64":    "want true or false",
		"--build-arg BUILDKIT_MULTI_PLATFORM=false --platform linux/amd64,linux/arm64": "cannot be used with several platforms",
		"--annotation k":                                                "want key=value",
		"--annotation =v":                                               "is no key",
		"--annotation manifest:=v":                                      "is no key",
		"--annotation :k=v":                                             "want a type",
		"--annotation layer:k=v":                                        "unknown type",
		"--annotation manifest[]:k=v":                                   "want a type",
		"--annotation manifest[a/b/c/d]:k=v":                            "want os/arch[/variant]",
		"--annotation manifest[linux/amd64:k=v":                         "want a type",
		"--annotation index:k=v":                                        "index annotations need an index",
		"--annotation index-descriptor:k=v":                             "index annotations need an index",
		"--platform linux/arm64 --annotation manifest[linux/s390x]:k=v": "nothing is built for linux/s390x",
		"--image-format docker --annotation manifest-descriptor:k=v":    "cannot be used with --image-format=docker",
	} {
		_, _, err := parse(t, dir, nil, "--no-push "+line)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", line, err, want)
		}
	}
}
