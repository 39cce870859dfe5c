package flags

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// build parses a command line, split at spaces, in a directory with a Dockerfile.
func build(t *testing.T, line string) (*Build, request.Build, Outputs) {
	t.Helper()
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch"})
	fs := pflag.NewFlagSet("build", pflag.ContinueOnError)
	b := Register(fs)
	RegisterLog(fs)
	if err := fs.Parse(strings.Fields(line)); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	r, out, err := b.Request(From{Args: fs.Args(), Dir: dir, Context: ".", KeepsSteps: true, Env: func(string) (string, bool) { return "", false }})
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	for _, p := range []*string{&out.Tar, &out.Layout} {
		*p = strings.TrimPrefix(*p, dir+"/")
	}
	return b, r, out
}

// TestDockerFlags: what flags of docker's mean here.
func TestDockerFlags(t *testing.T) {
	for _, tc := range []struct {
		line string
		want func(*request.Build)
	}{
		{"--no-push --hostname build.example", func(r *request.Build) { r.Run.Hostname = "build.example" }},
		{"--no-push --hostname a --build-arg BUILDKIT_SANDBOX_HOSTNAME=b", func(r *request.Build) {
			r.Run.Hostname, r.Args = "a", []request.KeyValue{{Key: "BUILDKIT_SANDBOX_HOSTNAME", Value: "b"}}
		}},
		{"--no-push --network default", func(*request.Build) {}},
		{"--no-push --network none", func(r *request.Build) { r.Run.Network = "none" }},
		{"--no-push --network=host --allow network.host", func(r *request.Build) {
			r.Run.Network, r.Allow = "host", []string{"network.host"}
		}},
		{"--no-push --allow network.host,network.host --allow network.host", func(r *request.Build) { r.Allow = []string{"network.host"} }},
		{"--no-push --no-cache --no-cache-filter a,b --no-cache-filter c", func(r *request.Build) {
			r.NoCache, r.NoCacheFilter = true, []string{"a", "b", "c"}
		}},
		{"--no-push --pull --provenance=false --sbom=false", func(*request.Build) {}},
		{"--no-push --pull=newer --rm --force-rm", func(*request.Build) {}},
		{"--push -t a", func(r *request.Build) { r.NoPush, r.Destinations = false, []string{"a"} }},
		{"--no-push --skip-push-permission-check", func(r *request.Build) { r.SkipPushCheck = true }},
		{"--no-push --push-ignore-immutable-tag-errors", func(r *request.Build) { r.SkipImmutable = true }},
		{"--no-push --skip-tls-verify-pull --skip-default-registry-fallback", func(r *request.Build) {
			r.Registry.SkipTLSPull, r.Registry.SkipFallback = true, true
		}},
		{"--no-push --image-fs-extract-retry 3 --image-download-retry 2", func(r *request.Build) { r.Registry.PullRetry = 3 }},
		{"--check", func(r *request.Build) { r.Call = request.CallCheck }},
		{"--call=lint,format=json -t a --tar-path x", func(r *request.Build) { r.Call, r.CallJSON = request.CallCheck, true }},
		{"--call=check,ignorestatus=true --check", func(r *request.Build) { r.Call = request.CallCheck }},
		{"--call format=json,outline", func(r *request.Build) { r.Call, r.CallJSON = request.CallOutline, true }},
		{"--no-push --cache", func(r *request.Build) { r.StepCache = true }},
		{"--no-push --cache=false", func(*request.Build) {}},
		{"--call=targets,format=text", func(r *request.Build) { r.Call = request.CallTargets }},
		{"--call=build --no-push", func(*request.Build) {}},
		{"--call=build,format=json --no-push", func(*request.Build) {}},
	} {
		b, got, out := build(t, tc.line)
		want := request.Build{
			Version: request.Version, Context: got.Context, Dockerfile: got.Dockerfile, DockerfileName: "Dockerfile",
			Compression: request.Compression{Level: -1}, NoPush: true,
		}
		tc.want(&want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", tc.line, diff)
		}
		if list := b.Warnings(); len(list) > 0 {
			t.Errorf("%s: warnings %q", tc.line, list)
		}
		if got.Call != "" && out != (Outputs{}) {
			t.Errorf("%s: writes %+v", tc.line, out)
		}
	}
}

// TestOutputFlag: docker's --output, as the flags that mean the same.
func TestOutputFlag(t *testing.T) {
	for _, tc := range []struct{ output, flags string }{
		{"-o type=registry -t a", "-t a"},
		{"--output type=registry,name=a", "-t a"},
		{`-o type=image,"name=a,b",push=true`, "-t a -t b"},
		{"-o type=image,push=true,name=a -t b", "-t b -t a"},
		{"-o type=image,name=a", "-t a --no-push"},
		{"-o type=image,push=false -t a --push", "-t a"},
		{"-o type=cacheonly", "--no-push"},
		{"-o type=docker,dest=a.tar -t a", "-t a --no-push --tar-path a.tar"},
		{"-o type=docker,dest=a.tar -t a --push", "-t a --tar-path a.tar"},
		{"-o type=oci,dest=l,tar=false", "--no-push --oci-layout-path l"},
		{"-o type=oci,dest=l,tar=false -o type=docker,dest=a.tar,name=n", "-t n --no-push --oci-layout-path l --tar-path a.tar"},
		{"-o type=oci,dest=l,tar=false -o type=registry,name=n", "-t n --oci-layout-path l"},
		{"-o type=registry,name=a,compression=zstd,compression-level=9,oci-mediatypes=true", "-t a --compression=zstd --compression-level=9 --image-format=oci"},
		{"-o type=registry,name=a,oci-mediatypes=false,force-compression=false,store=true", "-t a --image-format=docker"},
		{"-o type=registry,name=a,rewrite-timestamp=true,registry.insecure=true", "-t a --rewrite-timestamp --insecure"},
		{"-o type=registry,name=a,annotation.k=v,annotation-manifest-descriptor.x=y=z", "-t a --annotation manifest:k=v --annotation manifest-descriptor:x=y=z"},
	} {
		_, got, out := build(t, tc.output)
		_, want, wantOut := build(t, tc.flags)
		want.Context, want.Dockerfile = got.Context, got.Dockerfile
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -%s +got:\n%s", tc.output, tc.flags, diff)
		}
		if out != wantOut {
			t.Errorf("%s: %+v, want %+v", tc.output, out, wantOut)
		}
	}
}

// TestNeedlessFlags: each is taken, once, and said to be needless unless it says
// what is done anyway.
func TestNeedlessFlags(t *testing.T) {
	for _, n := range needlessFlags() {
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		Register(fs)
		if _, ok := fs.Lookup(n.name).Value.(needlessValue); !ok {
			t.Errorf("--%s is known otherwise", n.name)
			continue
		}
		if n.silent != "" {
			if b, _, _ := build(t, "--no-push --"+n.name+"="+n.silent); len(b.Warnings()) > 0 {
				t.Errorf("--%s=%s: %q", n.name, n.silent, b.Warnings())
			}
		}
		other := "x"
		if n.silent == "true" {
			other = "false"
		}
		b, _, _ := build(t, "--no-push --"+n.name+"="+other+" --"+n.name+"="+other)
		if want := []string{"--" + n.name + " has no effect: " + n.says}; !slices.Equal(b.Warnings(), want) {
			t.Errorf("--%s: %q, want %q", n.name, b.Warnings(), want)
		}
	}
	b, r, _ := build(t, "--cache --cleanup --snapshot-mode redo --no-push --cache")
	if len(b.Warnings()) != 2 || !r.NoPush {
		t.Errorf("%q, %+v", b.Warnings(), r)
	}
}

// TestEveryDockerFlag holds that no flag of docker buildx build is unknown.
func TestEveryDockerFlag(t *testing.T) {
	const buildx = `add-host allow annotation attest build-arg build-context builder cache-from cache-to call
		cgroup-parent check cpu-period cpu-quota cpu-shares cpuset-cpus cpuset-mems compress file force-rm iidfile
		isolation label load memory memory-swap metadata-file network no-cache no-cache-filter output platform print
		progress provenance pull push quiet rm sbom secret security-opt shm-size squash ssh tag target ulimit`
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	Register(fs)
	RegisterLog(fs)
	for _, name := range strings.Fields(buildx) {
		if fs.Lookup(name) == nil {
			t.Errorf("--%s is unknown", name)
		}
	}
	if _, r, _ := build(t, "--no-push --file=Dockerfile"); r.DockerfileName != "Dockerfile" {
		t.Errorf("--file: %q", r.DockerfileName)
	}
}

func TestReportFiles(t *testing.T) {
	dir := t.TempDir()
	res := request.Result{
		Digest: "sha256:" + strings.Repeat("a", 64), Config: "sha256:" + strings.Repeat("c", 64),
		Size: 7, Media: "application/vnd.oci.image.manifest.v1+json", Names: []string{"r.example/a:1", "r.example/b:2"},
	}
	out := Outputs{ID: filepath.Join(dir, "id"), Metadata: filepath.Join(dir, "meta")}
	if err := out.Write(res); err != nil {
		t.Fatal(err)
	}
	if id, _ := os.ReadFile(out.ID); string(id) != res.Config {
		t.Errorf("id %q", id)
	}
	var got map[string]any
	text, _ := os.ReadFile(out.Metadata)
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"containerimage.config.digest": res.Config, "containerimage.digest": res.Digest,
		"containerimage.descriptor": map[string]any{"mediaType": res.Media, "digest": res.Digest, "size": 7.0},
		"image.name":                "r.example/a:1,r.example/b:2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
	// An index has no config: its own digest is the ID.
	res.Config = ""
	if err := out.Write(res); err != nil {
		t.Fatal(err)
	}
	if id, _ := os.ReadFile(out.ID); string(id) != res.Digest {
		t.Errorf("id of an index %q", id)
	}
	res.Config = "sha256:\nx"
	if err := out.Write(res); err == nil {
		t.Error("a broken digest was written")
	}
}
