package flags

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Contexts that are no directories.
func TestSources(t *testing.T) {
	root := tree(t, map[string]string{
		"cwd/Dockerfile":          "x",
		"cwd/ctx.tar":             "x",
		"cwd/out.tar":             "->../secret",
		"cwd/git@host:dir/x":      "a directory that looks like a repository",
		"Dockerfile":              "x",
		"Dockerfile.dockerignore": "x",
		"secret":                  "s",
	})
	cwd := filepath.Join(root, "cwd")
	git := func(url, ref string, submodules bool) request.Source {
		return request.Source{URL: url, Git: &request.Git{Ref: ref, Submodules: submodules, KeepGitDir: true}}
	}
	text := func(url string) request.Source { return request.Source{URL: url, Text: true} }
	tar := func(path string) request.Source { return request.Source{Tar: request.GuestPath(path)} }
	for _, tt := range []struct {
		line string
		env  map[string]string
		want request.Source
		err  string
	}{
		{line: "-", want: request.Source{Tar: "-", Text: true}},
		{line: "-c -", want: request.Source{Tar: "-", Text: true}},
		{line: "-c tar://stdin", want: tar("-")},
		{line: "-c tar://ctx.tar", want: tar(cwd + "/ctx.tar")},
		{line: "-c tar://" + cwd + "/ctx.tar", want: tar(cwd + "/ctx.tar")},
		{line: "-c tar://out.tar", err: "a symbolic link that leads out of"},
		{line: "-c tar://.", err: "not a regular file"},
		{line: "https://example.com/x.tar.gz", want: text("https://example.com/x.tar.gz")},
		{line: "-c http://example.com/x", want: text("http://example.com/x")},
		{line: "https://example.com/x.git#main:dir", want: text("https://example.com/x.git#main:dir")},
		{line: "https://a.blob.core.windows.net/c/x?sig=y", want: text("https://a.blob.core.windows.net/c/x?sig=y")},
		{line: "git://example.com/x#main", want: request.Source{URL: "git://example.com/x#main"}},
		{line: "ssh://git@example.com/x", want: request.Source{URL: "ssh://git@example.com/x"}},
		{line: "git@example.com:a/b.git#v1", want: request.Source{URL: "git@example.com:a/b.git#v1"}},
		{line: "git@host:nodir", want: request.Source{URL: "git@host:nodir"}},
		{line: "github.com/a/b", want: request.Source{URL: "github.com/a/b"}},
		{line: "-c git://example.com/a/b", want: git("https://example.com/a/b", "", false)},
		{line: "-c git://example.com/a/b.git#refs/heads/x", want: git("https://example.com/a/b.git", "refs/heads/x", false)},
		{line: "-c git://example.com/a/b#refs/heads/x#0123456789", want: git("https://example.com/a/b", "0123456789", false)},
		{line: "-c git://token@example.com/a/b", want: git("https://token@example.com/a/b", "", false)},
		{line: "-c git://example.com/a/b", env: map[string]string{"GIT_TOKEN": "t", "GIT_USERNAME": "u"}, want: git("https://t:@example.com/a/b", "", false)},
		{line: "-c git://example.com/a/b", env: map[string]string{"GIT_USERNAME": "u", "GIT_PASSWORD": "p"}, want: git("https://u:p@example.com/a/b", "", false)},
		{line: "-c git://example.com/a/b", env: map[string]string{"GIT_PULL_METHOD": "http"}, want: git("http://example.com/a/b", "", false)},
		{line: "-c git://example.com/a/b#x --git branch=y,recurse-submodules=true,single-branch=true,depth=1", want: git("https://example.com/a/b", "y", true)},
		{line: "--context-sub-path a/b -", want: request.Source{Tar: "-", Text: true, Dir: "a/b"}},
		{line: "--context-sub-path a/b -c git://example.com/a", want: request.Source{URL: "https://example.com/a", Git: &request.Git{KeepGitDir: true}, Dir: "a/b"}},
	} {
		got, _, err := parse(t, cwd, tt.env, "--no-push "+tt.line)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q", tt.line, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.line, err)
			continue
		}
		if d := cmp.Diff(tt.want, got.Source); d != "" || got.Context != "" {
			t.Errorf("%s: context %q, source (-want +got):\n%s", tt.line, got.Context, d)
		}
	}
	// A directory wins over what only looks like a repository.
	got, _, err := parse(t, cwd, nil, "--no-push git@host:dir")
	if err != nil || string(got.Context) != filepath.Join(cwd, "git@host:dir") {
		t.Errorf("context %q, %v", got.Context, err)
	}
}

// Where the Dockerfile is, if the context is no directory.
func TestDockerfileWithoutContext(t *testing.T) {
	root := tree(t, map[string]string{
		"cwd/Dockerfile": "x", "own/Dockerfile": "x", "own/Dockerfile.dockerignore": "x", "own/bare": "x", "own/dir/x": "",
		"lower/dockerfile": "x",
	})
	cwd, own := filepath.Join(root, "cwd"), filepath.Join(root, "own")
	for _, tt := range []struct{ line, dockerfile, name, url, ignore, err string }{
		{line: "-", name: "Dockerfile"},
		{line: "-f Dockerfile -", dockerfile: "Dockerfile", name: "Dockerfile"},
		{line: "-f sub/File https://example.com/x", dockerfile: "sub/File", name: "sub/File"},
		{line: "-f " + own + "/Dockerfile -", dockerfile: own + "/Dockerfile", name: own + "/Dockerfile", ignore: own + "/Dockerfile.dockerignore"},
		{line: "-f " + own + "/bare -", dockerfile: own + "/bare", name: own + "/bare"},
		{line: "-f " + own + "/dir -", err: "is a directory"},
		{line: "-f - https://example.com/x", dockerfile: "-", name: "<stdin>"},
		{line: "-f https://u:p@example.com/D -", name: "https://xxxxx:xxxxx@example.com/D", url: "https://u:p@example.com/D"},
		{line: "-f https://example.com/D .", name: "https://example.com/D", url: "https://example.com/D"},
		{line: "../lower", dockerfile: root + "/lower/dockerfile", name: "Dockerfile"},
	} {
		got, _, err := parse(t, cwd, nil, "--no-push "+tt.line)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q", tt.line, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.line, err)
			continue
		}
		have := [...]string{string(got.Dockerfile), got.DockerfileName, got.DockerfileURL, string(got.Ignore)}
		if d := cmp.Diff([...]string{tt.dockerfile, tt.name, tt.url, tt.ignore}, have); d != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.line, d)
		}
	}
}

func TestNamedContexts(t *testing.T) {
	root := tree(t, map[string]string{
		"cwd/Dockerfile":          "x",
		"cwd/assets/x":            "x",
		"cwd/in":                  "->assets",
		"cwd/out":                 "->../other",
		"cwd/app/out":             "->../../other",
		"cwd/layout/oci-layout":   "{}",
		"cwd/layout/index.json":   "{}",
		"other/x":                 "x",
		"other/layout/oci-layout": "{}",
	})
	cwd := filepath.Join(root, "cwd")
	dir := func(name, path string) request.NamedContext {
		return request.NamedContext{Name: name, Dir: request.GuestPath(filepath.Join(cwd, path))}
	}
	layout := func(path, ref string) request.NamedContext {
		return request.NamedContext{Name: "a", Layout: request.GuestPath(filepath.Join(cwd, path)), Ref: ref}
	}
	url := func(s string) request.NamedContext {
		return request.NamedContext{Name: "a", Source: request.Source{URL: s}}
	}
	for _, tt := range []struct {
		line string
		want []request.NamedContext
		err  string
	}{
		{line: "a=assets", want: []request.NamedContext{dir("a", "assets")}},
		{line: "a=in", want: []request.NamedContext{dir("a", "assets")}},
		{line: "a=../other", want: []request.NamedContext{dir("a", "../other")}},
		{line: "a=assets --build-context b=assets --build-context a=in", want: []request.NamedContext{dir("b", "assets"), dir("a", "assets")}},
		{line: "alpine:3=docker-image://registry.example/x:1@sha256:00", want: []request.NamedContext{{Name: "alpine:3", Image: "registry.example/x:1@sha256:00"}}},
		{line: "a=docker-image://scratch", want: []request.NamedContext{{Name: "a", Image: "scratch"}}},
		{line: "a=oci-layout://layout", want: []request.NamedContext{layout("layout", "")}},
		{line: "a=oci-layout://layout:v1", want: []request.NamedContext{layout("layout", "v1")}},
		{line: "a=oci-layout://layout@sha256:00", want: []request.NamedContext{layout("layout", "sha256:00")}},
		{line: "a=oci-layout://../other/layout:v1@sha256:00", want: []request.NamedContext{layout("../other/layout", "sha256:00")}},
		{line: "a=https://example.com/x.tar.gz", want: []request.NamedContext{url("https://example.com/x.tar.gz")}},
		{line: "a=https://example.com/x.git#v1:d", want: []request.NamedContext{url("https://example.com/x.git#v1:d")}},
		{line: "a=git@example.com:x", want: []request.NamedContext{url("git@example.com:x")}},
		{line: "a=git://example.com/x", want: []request.NamedContext{url("git://example.com/x")}},
		{line: "a=out", err: "a symbolic link that leads out of"},
		{line: "a=oci-layout://out/layout", err: "a symbolic link that leads out of"},
		{line: "a=" + cwd + "/app/out app", err: "a symbolic link that leads out of"},
	} {
		got, _, err := parse(t, cwd, nil, "--no-push --build-context "+tt.line)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q", tt.line, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.line, err)
			continue
		}
		if d := cmp.Diff(tt.want, got.Contexts); d != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.line, d)
		}
	}
}

// No message tells what may be a credential.
func TestShown(t *testing.T) {
	for text, want := range map[string]string{
		"dir":                              "dir",
		"a dir?x=y":                        "a dir?x=y",
		"git@example.com:x":                "git@example.com:x",
		"https://example.com/x":            "https://example.com/x",
		"https://token@example.com/x":      "https://xxxxx:xxxxx@example.com/x",
		"git://token@example.com/x#main":   "git://xxxxx:xxxxx@example.com/x#main",
		"ssh://git:secret@example.com/x":   "ssh://git:xxxxx@example.com/x",
		"https://a:%zz@example.com/x":      "https://",
		"https://example.com/x?sig=secret": "https://example.com/x?xxxxx",
		"what?":                            "what?",
	} {
		if got := shown(text); got != want {
			t.Errorf("%s is shown as %s, want %s", text, got, want)
		}
	}
}
