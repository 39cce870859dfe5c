package provenance

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// digest is a SHA-256 that is easy to tell.
func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func image(c, platform string) request.Image {
	return request.Image{Descriptor: request.Descriptor{MediaType: mediaManifest, Digest: digest(c), Size: 500}, Platform: platform}
}

// local is a build of a directory, with all that a command line can say.
func local() Build {
	return Build{
		Request: request.Build{
			Context: "/home/user/app", Dockerfile: "/home/user/app/Dockerfile", DockerfileName: "Dockerfile",
			Target: "release", NoCacheFilter: []string{"test"}, Allow: []string{"network.host"},
			Args:    []request.KeyValue{{Key: "VERSION", Value: "1"}, {Key: "HTTP_PROXY", Value: "http://u:canary@proxy:3128"}},
			Labels:  []request.KeyValue{{Key: "org.opencontainers.image.title", Value: "app"}},
			Secrets: []string{"token", "npm"}, Agents: []string{"default"},
			Run:          request.Run{Network: "none", Hosts: []request.KeyValue{{Key: "db", Value: "10.0.0.1"}}},
			Destinations: []string{"registry.example.com/team/app:1", "user/app"},
			Contexts: []request.NamedContext{
				{Name: "base", Image: "alpine:3.20"}, {Name: "src", Dir: "/home/user/src"},
				{Name: "repo", Source: request.Source{URL: "https://user:canary@git.example.com/x.git?access_token=canary&ref=v1#main"}},
			},
			Registry: request.Registry{
				InsecureHosts: []string{"localhost:5000"}, SkipTLSPull: true,
				Maps: []request.Mirror{{Host: "index.docker.io", Location: "mirror.example.com"}},
			},
		},
		Images: []request.Image{image("a", "linux/amd64")},
		Fetched: []request.Material{
			{Kind: request.MaterialGit, URI: "https://user:canary@git.example.com/x.git#v1", Digest: "sha1:" + strings.Repeat("5", 40)},
			{Kind: request.MaterialImage, URI: "docker.io/library/alpine:3.20", Platform: "linux/amd64", Digest: digest("b")},
		},
		Received: func(d string) bool { return d == digest("b") },
		Network:  map[request.Role]Network{request.RoleFetch: {Flows: 4, Destinations: 2, Recorded: 4}, request.RoleBuild: {}},
		Postures: []request.RolePosture{{Role: request.RoleBuild, Inside: request.Posture{GVisor: true, Kernel: "4.4.0", Executor: "v1", Seccomp: 2}}},
		Egress: map[request.Role]policy.Egress{request.RoleBuild: {
			Mode: policy.EgressAllowlist,
			Allow: []policy.EgressRule{
				{Name: "*.example.com", Port: 443}, {Prefix: netip.MustParsePrefix("10.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128"), Port: 80},
			},
		}},
		InvocationID: "0123456789abcdef", Started: time.Unix(1700000000, 5).In(time.FixedZone("", 3600)), Finished: time.Unix(1700000060, 0),
		Platform: "linux/amd64", Versions: map[string]string{"kbuild-sandbox": "v1.2.3", "gvisor": "v0.0.0"},
	}
}

// remote is a build of a repository for two platforms, whose steps download.
func remote() Build {
	b := local()
	b.Max = true
	b.Builder = "https://ci.example.com/runners/7"
	b.Request = request.Build{
		Source:         request.Source{URL: "https://oauth2:canary@git.example.com/app.git#main:docker"},
		DockerfileName: "Dockerfile", Platforms: []string{"linux/amd64", "linux/arm/v7"}, Index: true,
		Destinations: []string{"registry.example.com/app:1"},
		Annotations: []request.Annotation{
			{Level: request.OnIndex, KeyValue: request.KeyValue{Key: "title", Value: "app"}},
			{Level: request.OnManifestDescriptor, KeyValue: request.KeyValue{Key: "for", Value: "all"}},
			{Level: request.OnManifestDescriptor, Platform: "linux/arm/v7", KeyValue: request.KeyValue{Key: "for", Value: "arm"}},
		},
	}
	b.Images = []request.Image{image("a", "linux/amd64"), image("c", "linux/arm/v7")}
	b.Fetched = []request.Material{
		{Kind: request.MaterialImage, URI: "alpine", Platform: "linux/amd64", Digest: digest("b")},
		{Kind: request.MaterialImage, URI: "alpine", Platform: "linux/arm/v7", Digest: digest("b")},
		{Kind: request.MaterialImage, URI: "golang@" + digest("f"), Platform: "linux/amd64", Digest: digest("f")},
		{Kind: request.MaterialGit, URI: "https://git.example.com/app.git#main", Digest: "sha1:" + strings.Repeat("5", 40)},
	}
	b.Built = []request.Material{{Kind: request.MaterialHTTP, URI: "https://files.example.com/x.tgz?X-Amz-Signature=canary&v=1", Digest: digest("9")}}
	b.Network[request.RoleBuild] = Network{Flows: 3, Denied: 1, Destinations: 2, Recorded: 3}
	return b
}

// golden compares with a file of testdata.
func golden(t *testing.T, name string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; look at it with: go test -update ./sandbox/provenance && git diff\n%s", path, got)
	}
}

func statements(t *testing.T, b Build) []Statement {
	t.Helper()
	out, err := Statements(b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStatements(t *testing.T) {
	b := local()
	golden(t, "min", statements(t, b))
	b.Max = true
	golden(t, "max", statements(t, b))
	golden(t, "platforms", statements(t, remote()))
}

// TestNoCredential: no password, no token and no value of a secret is in a
// statement, whatever form they came in.
func TestNoCredential(t *testing.T) {
	for _, b := range []Build{local(), remote()} {
		b.Max = true
		b.Request.Args = append(b.Request.Args, request.KeyValue{Key: "TOKEN", Value: "a canary of --secret"})
		b.Mask = func(s string) string { return strings.ReplaceAll(s, "a canary", "***") }
		raw, err := json.Marshal(statements(t, b))
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(raw, []byte("canary")); i >= 0 {
			t.Errorf("a credential: %s", raw[max(0, i-80):i+6])
		}
		if bytes.Contains(raw, []byte("/home/user")) {
			t.Errorf("a path of this machine: %s", raw)
		}
	}
}

// TestSameSource: which commit is that of the context is only said where it is
// plain.
func TestSameSource(t *testing.T) {
	for _, c := range []struct {
		uri, written string
		want         bool
	}{
		{"https://h/x.git#main", "https://xxxxx:xxxxx@h/x.git#main:dir", true},
		{"https://h/x.git", "https://h/x.git?ref=v1", true},
		{"https://h/x.git#v1", "https://h/x.git", true},
		{"https://h/x.git#v1", "https://h/x.git#v2", false},
		{"https://h/x.git", "https://h/y.git", false},
		{"git@h:x.git", "git@h:x.git", true},
	} {
		if got := sameSource(c.uri, c.written); got != c.want {
			t.Errorf("%s, %s: %v", c.uri, c.written, got)
		}
	}
	two := []dependency{{Dependency: Dependency{URI: "https://h/x#a", Digest: Digests{"sha1": "1"}}}, {Dependency: Dependency{URI: "https://h/x#b", Digest: Digests{"sha1": "2"}}}}
	for i := range two {
		two[i].Annotations.ReportedBy = request.RoleFetch
	}
	if got := digestFor(two, "https://h/x"); got != nil {
		t.Errorf("one of two commits: %v", got)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"https://h/x.git#main:sub":                "https://h/x.git#main:sub",
		"https://u:p@h/x":                         "https://xxxxx:xxxxx@h/x",
		"https://token@h/x":                       "https://xxxxx@h/x",
		"https://:p@h":                            "https://xxxxx:xxxxx@h",
		"https://u:p%40q@h/a@b":                   "https://xxxxx:xxxxx@h/a@b",
		"https://u:p/q@h/x":                       "https://xxxxx@h/x",
		"git@github.com:x/y.git":                  "git@github.com:x/y.git",
		"https://h/x?ref=v1&subdir=a":             "https://h/x?ref=v1&subdir=a",
		"https://h/x?a=1&private_token=t#f":       "https://h/x?a=1&private_token=xxxxx#f",
		"https://h/x?X-Amz-Signature=t":           "https://h/x?X-Amz-Signature=xxxxx",
		"https://h/x?%70assword=t&sv=1&sig=a%2Bb": "https://h/x?%70assword=xxxxx&sv=1&sig=xxxxx",
		"https://h/x?AWSAccessKeyId=t":            "https://h/x?AWSAccessKeyId=xxxxx",
		"https://h/x?%zz=t":                       "https://h/x?%zz=xxxxx",
	} {
		if got := redactURL(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	const in, want = "-x http://a:b@c -y ftp://d@e", "-x http://xxxxx:xxxxx@c -y ftp://xxxxx@e"
	if got := redactText(in); got != want {
		t.Errorf("%s: %s, want %s", in, got, want)
	}
}

// TestPackageURL: the names are BuildKit's (util/purl of v0.34.2 gave these).
func TestPackageURL(t *testing.T) {
	const hex = "sha256:e8275b2b76280af67e26f068e5d585eb905f8dfd2f1918b3229db98133cb4862"
	for ref, want := range map[string]string{
		"alpine":                                 "pkg:docker/alpine@latest?platform=linux%2Farm%2Fv7",
		"docker.io/library/alpine:3.17":          "pkg:docker/alpine@3.17?platform=linux%2Farm%2Fv7",
		"index.docker.io/foo/bar:1":              "pkg:docker/foo/bar@1?platform=linux%2Farm%2Fv7",
		"localhost:5000/a/b:tag-1_x":             "pkg:docker/localhost:5000/a/b@tag-1_x?platform=linux%2Farm%2Fv7",
		"127.0.0.1:5000/app":                     "pkg:docker/127.0.0.1:5000/app@latest?platform=linux%2Farm%2Fv7",
		"registry.example.com:443/app@" + hex:    "pkg:docker/registry.example.com:443/app?digest=" + hex + "&platform=linux%2Farm%2Fv7",
		"foo/bar:v1@" + hex:                      "pkg:docker/foo/bar@v1?digest=" + hex + "&platform=linux%2Farm%2Fv7",
		"[::1]:5000/x/y__z:1.0":                  "pkg:docker/%5B::1%5D:5000/x/y__z@1.0?platform=linux%2Farm%2Fv7",
		"registry.example.com/library/alpine:v1": "pkg:docker/registry.example.com/library/alpine@v1?platform=linux%2Farm%2Fv7",
	} {
		if got := packageURL("docker", ref, "linux/arm/v7"); got != want {
			t.Errorf("%s: %s, want %s", ref, got, want)
		}
	}
	if got := packageURL("oci", "alpine", ""); got != "pkg:oci/alpine@latest" {
		t.Error(got)
	}
}

// TestForgedClaims: what an executor says and what has not the form of what it
// claims to be is refused, and nothing that build says can pass as fetch's.
func TestForgedClaims(t *testing.T) {
	for name, change := range map[string]func(*Build){
		"no image":              func(b *Build) { b.Images = nil },
		"too many images":       func(b *Build) { b.Images = append(b.Images, b.Images[0]) },
		"too few images":        func(b *Build) { b.Request.Platforms = []string{"linux/amd64", "linux/arm64"} },
		"image without digest":  func(b *Build) { b.Images[0].Digest = "latest" },
		"image of another hash": func(b *Build) { b.Images[0].Digest = "sha512:" + strings.Repeat("a", 64) },
		"image in upper case":   func(b *Build) { b.Images[0].Digest = digest("A") },
		"image without size":    func(b *Build) { b.Images[0].Size = 0 },
		"image of another type": func(b *Build) { b.Images[0].MediaType = mediaIndex },
		"no platform":           func(b *Build) { b.Images[0].Platform = "" },
		"long platform":         func(b *Build) { b.Images[0].Platform = "a/b/c/d" },
		"odd platform":          func(b *Build) { b.Images[0].Platform = "linux/amd64\n" },
		"unknown kind":          func(b *Build) { b.Built = []request.Material{{Kind: "builder", URI: "x"}} },
		"no URI":                func(b *Build) { b.Built = []request.Material{{Kind: request.MaterialHTTP}} },
		"long URI": func(b *Build) {
			b.Built = []request.Material{{Kind: request.MaterialHTTP, URI: strings.Repeat("x", maxURI+1)}}
		},
		"control bytes": func(b *Build) { b.Built = []request.Material{{Kind: request.MaterialHTTP, URI: "x\x1b[31m"}} },
		"odd digest": func(b *Build) {
			b.Built = []request.Material{{Kind: request.MaterialHTTP, URI: "x", Digest: "sha1:" + strings.Repeat("1", 40)}}
		},
		"odd commit": func(b *Build) {
			b.Built = []request.Material{{Kind: request.MaterialGit, URI: "x", Digest: "sha1:" + strings.Repeat("g", 40)}}
		},
		"odd platform of one": func(b *Build) {
			b.Fetched = []request.Material{{Kind: request.MaterialImage, URI: "x", Platform: "a b"}}
		},
	} {
		b := local()
		change(&b)
		if _, err := Statements(b); !errors.Is(err, ErrClaim) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := remote()
	b.Built = append(b.Built, request.Material{Kind: request.MaterialImage, URI: "scratch/trusted", Digest: digest("b")})
	b.Built = append(b.Built, b.Fetched[3]) // said again
	for _, d := range statements(t, b)[0].Predicate.BuildDefinition.ResolvedDependencies {
		forged := strings.Contains(d.URI, "trusted") || strings.Contains(d.URI, "x.tgz")
		if want := map[bool]request.Role{true: request.RoleBuild, false: request.RoleFetch}[forged]; d.Annotations.ReportedBy != want {
			t.Errorf("%s is reported by %s, want %s", d.URI, d.Annotations.ReportedBy, want)
		}
	}
	if got := statements(t, b)[0].Predicate.BuildDefinition.ExternalParameters.ConfigSource.Digest["sha1"]; got != strings.Repeat("5", 40) {
		t.Errorf("the source's digest is %q", got)
	}
	// The digest of a source is only believed from fetch.
	b.Fetched = nil
	b.Built = []request.Material{{Kind: request.MaterialGit, URI: "https://oauth2:x@git.example.com/app.git", Digest: "sha1:" + strings.Repeat("6", 40)}}
	if got := statements(t, b)[0].Predicate.BuildDefinition.ExternalParameters.ConfigSource.Digest; got != nil {
		t.Errorf("build named the source's digest: %v", got)
	}
}

// TestHermetic: the bit follows from the counts, and from nothing that anybody
// said.
func TestHermetic(t *testing.T) {
	for name, c := range map[string]struct {
		network  map[request.Role]Network
		built    []request.Material
		remote   bool // nothing is local
		hermetic bool
		complete Completeness
	}{
		"nothing was counted": {nil, nil, true, false, Completeness{Request: true}},
		"nothing was tried": {map[request.Role]Network{request.RoleFetch: {Flows: 2, Recorded: 2}, request.RoleBuild: {}}, nil, true, true,
			Completeness{true, true, true}},
		"of local files": {map[request.Role]Network{request.RoleFetch: {}, request.RoleBuild: {}}, nil, false, true,
			Completeness{true, false, true}},
		"a flow": {map[request.Role]Network{request.RoleFetch: {}, request.RoleBuild: {Flows: 1, Recorded: 1}}, nil, true, false,
			Completeness{true, false, true}},
		"a flow that was denied": {map[request.Role]Network{request.RoleFetch: {}, request.RoleBuild: {Flows: 1, Denied: 1, Recorded: 1}}, nil, true, false,
			Completeness{true, false, true}},
		"a flow over a limit": {map[request.Role]Network{request.RoleFetch: {}, request.RoleBuild: {Shed: 1}}, nil, true, false,
			Completeness{true, false, false}},
		"a download that no flow tells of": {map[request.Role]Network{request.RoleFetch: {}, request.RoleBuild: {}},
			[]request.Material{{Kind: request.MaterialHTTP, URI: "x"}}, true, false, Completeness{true, false, true}},
		"a record that was lost": {map[request.Role]Network{request.RoleFetch: {Flows: 2, Recorded: 1}, request.RoleBuild: {}}, nil, true, true,
			Completeness{true, true, false}},
	} {
		b := local()
		b.Max = true
		if c.remote {
			b.Request = request.Build{Source: request.Source{URL: "https://h/x.git"}}
		}
		b.Network, b.Built = c.network, c.built
		m := statements(t, b)[0].Predicate.RunDetails.Metadata
		if m.Hermetic != c.hermetic || m.Completeness != c.complete {
			t.Errorf("%s: hermetic %v, complete %+v", name, m.Hermetic, m.Completeness)
		}
	}
}

// What steps could read of this machine makes a statement incomplete; a Dockerfile
// in a context that was fetched is not of this machine.
func TestLocals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Build)
		want   string
	}{
		"remote":           {func(b *Build) {}, ""},
		"Dockerfile in it": {func(b *Build) { b.Request.Dockerfile = "sub/Dockerfile" }, ""},
		"Dockerfile here":  {func(b *Build) { b.Request.Dockerfile = "/home/user/Dockerfile" }, "dockerfile"},
		"Dockerfile stdin": {func(b *Build) { b.Request.Dockerfile = "-" }, "dockerfile"},
	} {
		b := remote()
		b.Built, b.Network = nil, map[request.Role]Network{request.RoleFetch: {}, request.RoleBuild: {}}
		c.change(&b)
		list, err := Statements(b)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, l := range list[0].Predicate.BuildDefinition.ExternalParameters.Request.Locals {
			names = append(names, l.Name)
		}
		if got := strings.Join(names, " "); got != c.want || list[0].Predicate.RunDetails.Metadata.Completeness.ResolvedDependencies != (c.want == "") {
			t.Errorf("%s: locals %q, %+v", name, got, list[0].Predicate.RunDetails.Metadata.Completeness)
		}
	}
}

// Nobody knows where cache mounts are from that were there: the build had no
// network, and yet its dependencies are not complete.
func TestKeptCaches(t *testing.T) {
	for _, kept := range []bool{false, true} {
		b := remote()
		b.Built, b.Network = nil, map[request.Role]Network{request.RoleFetch: {}, request.RoleBuild: {}}
		b.Caches = kept
		m := statements(t, b)[0].Predicate.RunDetails.Metadata
		if !m.Hermetic || m.Caches != kept || m.Completeness.ResolvedDependencies == kept {
			t.Errorf("kept %v: %+v", kept, m)
		}
	}
}

// No image that was fetched is left out, whatever the platform that it is for: a
// stage of another platform may be copied from.
func TestOtherPlatforms(t *testing.T) {
	for name, c := range map[string]struct {
		targets, fetched []string
	}{
		"build platform, not a target":  {[]string{"linux/arm64"}, []string{"linux/amd64", "linux/arm64"}},
		"build platform, also a target": {[]string{"linux/amd64", "linux/arm64"}, []string{"linux/amd64", "linux/arm64"}},
		"another by name":               {[]string{"linux/amd64", "linux/arm64"}, []string{"linux/386", "linux/amd64", "linux/arm64"}},
	} {
		b := remote()
		b.Request.Platforms, b.Images, b.Fetched, b.Built = c.targets, nil, nil, nil
		for i, p := range c.targets {
			b.Images = append(b.Images, image(string(rune('a'+i)), p))
		}
		for _, p := range c.fetched {
			b.Fetched = append(b.Fetched, request.Material{Kind: request.MaterialImage, URI: "alpine", Platform: p, Digest: digest("b")})
		}
		for i, s := range statements(t, b) {
			if got := s.Predicate.BuildDefinition.ResolvedDependencies; len(got) != len(c.fetched) {
				t.Errorf("%s: for %s: %+v", name, c.targets[i], got)
			}
		}
	}
}

// A tar without a name has the subject that in-toto gives to what has none, and
// build cannot say that an image is for another platform than was asked for.
func TestNamesOfImages(t *testing.T) {
	b := local()
	b.Request.Destinations = []string{unnamed}
	list, err := Statements(b)
	if err != nil || len(list[0].Subject) != 1 || list[0].Subject[0].Name != "_" {
		t.Errorf("%v, %v", list, err)
	}
	for _, claimed := range [][]string{{"linux/amd64", "windows/amd64"}, {"linux/amd64", "linux/arm"}, {"linux/arm/v7", "linux/amd64"}} {
		b := remote()
		for i := range b.Images {
			b.Images[i].Platform = claimed[i]
		}
		if _, err := Statements(b); !errors.Is(err, ErrClaim) {
			t.Errorf("images for %s: %v", claimed, err)
		}
	}
}

// TestIndex: the index and the attestation manifests are BuildKit's in shape.
func TestIndex(t *testing.T) {
	b := remote()
	made := statements(t, b)
	blobs, root, err := Index(b, made)
	if err != nil {
		t.Fatal(err)
	}
	// Statements are stored as they are; config, manifests and index are compared.
	var shown []json.RawMessage
	byDigest := map[string][]byte{}
	for _, raw := range blobs {
		byDigest[digestOf(raw)] = raw
		if !bytes.Contains(raw, []byte(`"_type"`)) {
			shown = append(shown, raw)
		}
	}
	golden(t, "index", shown)
	if last := blobs[len(blobs)-1]; digestOf(last) != root.Digest || int64(len(last)) != root.Size || root.MediaType != mediaIndex {
		t.Errorf("the root %+v is not the last blob", root)
	}
	for i, s := range made {
		raw, err := s.JSON()
		if err != nil || byDigest[digestOf(raw)] == nil {
			t.Errorf("statement %d is not among the blobs: %v", i, err)
		}
	}
	if _, _, err := Index(b, made[:1]); err == nil {
		t.Error("an image without a statement")
	}
}

func TestAttach(t *testing.T) {
	blobs, attached, err := Attach([][]byte{[]byte(`{"payload":"1"}`), []byte(`{"payload":"2"}`)}, []string{digest("a"), digest("b"), digest("a")})
	if err != nil {
		t.Fatal(err)
	}
	var shown []json.RawMessage
	for _, raw := range blobs {
		shown = append(shown, raw)
	}
	golden(t, "attached", struct {
		Blobs    []json.RawMessage
		Attached []request.Attached
	}{shown, attached})
}

// TestAbout: a signed statement is found by the digest of the index, too.
func TestAbout(t *testing.T) {
	s := statements(t, local())[0]
	more := s.About(digest("d"))
	if len(s.Subject) != 2 || len(more.Subject) != 4 {
		t.Fatalf("%d subjects, then %d", len(s.Subject), len(more.Subject))
	}
	if got := more.Subject[2]; got.Name != "pkg:docker/registry.example.com/team/app@1" || got.Digest["sha256"] != strings.Repeat("d", 64) {
		t.Errorf("%+v", got)
	}
	if again := more.About(digest("d")); len(again.Subject) != 4 {
		t.Errorf("%d subjects after the same digest again", len(again.Subject))
	}
}
