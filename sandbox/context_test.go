package sandbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// What the guest is told, and what is mounted for it, for each form of context.
func TestContextForms(t *testing.T) {
	text := strings.NewReader("")
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   request.Build // of it Context, Source, Dockerfile and Ignore
		mounts string
	}{
		{"directory", func(*Config) {},
			request.Build{Context: "/context", Dockerfile: "/in/Dockerfile", Ignore: "/in/dockerignore"}, "/context=/home/user/app"},
		{"archive", func(c *Config) {
			c.Context, c.Ignore, c.Archive, c.Dockerfile, c.DockerfileData = "", "", "/srv/x.tar", "", nil
			c.Request.Source = request.Source{Tar: "/srv/x.tar", Dir: "sub"}
		}, request.Build{Source: request.Source{Tar: "/context.tar", Dir: "sub"}}, "/context.tar=/srv/x.tar"},
		{"standard input", func(c *Config) {
			c.Context, c.Ignore, c.Stdin, c.Dockerfile, c.DockerfileData = "", "", text, "", nil
			c.Request.Source, c.Request.Dockerfile = request.Source{Tar: "-", Text: true}, "sub/Dockerfile"
		}, request.Build{Source: request.Source{Tar: "/context.tar", Text: true}, Dockerfile: "sub/Dockerfile"}, "/context.tar=/run/context.tar"},
		{"URL, with a Dockerfile of the user's", func(c *Config) {
			c.Context, c.Ignore, c.DockerfileData = "", "", nil
			c.Request.Source.URL = "https://example.com/x.git"
		}, request.Build{Source: request.Source{URL: "https://example.com/x.git"}, Dockerfile: "/in/Dockerfile"}, ""},
		{"Dockerfile of a URL", func(c *Config) {
			c.Ignore, c.Dockerfile, c.DockerfileData = "", "", nil
			c.Request.DockerfileURL = "https://example.com/D"
		}, request.Build{Context: "/context", DockerfileURL: "https://example.com/D"}, "/context=/home/user/app"},
	} {
		c := sampleConfig()
		c.Contexts, c.Request.Contexts = nil, nil
		tt.change(&c)
		c, err := c.prepared()
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		r := c.Request
		got := request.Build{Context: r.Context, Source: r.Source, Dockerfile: r.Dockerfile, DockerfileURL: r.DockerfileURL, Ignore: r.Ignore}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: request (-want +got):\n%s", tt.name, d)
		}
		if m := listed(contextMounts(c, homeOf("/run").of(request.RoleFetch))); m != tt.mounts {
			t.Errorf("%s: mounts %q, want %q", tt.name, m, tt.mounts)
		}
	}
}

func listed(mounts []specs.Mount) string {
	var list []string
	for _, m := range mounts {
		list = append(list, m.Destination+"="+m.Source)
	}
	return strings.Join(list, " ")
}

// Named contexts keep their places; the caller's request is not changed.
func TestNamedContextPaths(t *testing.T) {
	c := sampleConfig()
	c.Request.Contexts = []request.NamedContext{{Name: "a", Dir: "/x"}, {Name: "b", Image: "i"}, {Name: "c", Layout: "/y", Ref: "1"}}
	got, err := c.prepared()
	if err != nil {
		t.Fatal(err)
	}
	want := []request.NamedContext{{Name: "a", Dir: "/contexts/0"}, {Name: "b", Image: "i"}, {Name: "c", Layout: "/contexts/2", Ref: "1"}}
	if d := cmp.Diff(want, got.Request.Contexts); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if c.Request.Contexts[0].Dir != "/x" {
		t.Error("the caller's request was changed")
	}
}

func TestContextErrors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		err    string
	}{
		{"no context at all", func(c *Config) { c.Context = "" }, "no context given"},
		{"no Dockerfile", func(c *Config) { c.DockerfileData = nil }, "no Dockerfile given"},
		{"named context is a file", func(c *Config) { named(c, c.Executor) }, "build context 0: "},
		{"named context is missing", func(c *Config) { named(c, "/nowhere") }, "build context 0: lstat /nowhere"},
		{"work directory in a named context", func(c *Config) { named(c, filepath.Dir(c.WorkDir)) }, "lies in the build context"},
		{"archive is missing", func(c *Config) { archive(c, "/nowhere") }, "context: lstat /nowhere"},
		{"archive is a directory", func(c *Config) { archive(c, filepath.Dir(c.Executor)) }, "is not a regular file"},
		{"archive is a device", func(c *Config) { archive(c, "/dev/zero") }, "is not a regular file"},
		{"standard input fails", func(c *Config) { stdin(c, io.MultiReader(strings.NewReader("x"), brokenReader{})) }, "read the context from standard input: torn"},
	} {
		_, _, err := run(t, newJob(t, "ok"), tt.change)
		if err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
		}
	}
}

func named(c *Config, dir string) {
	c.Contexts, c.Request.Contexts = []string{dir}, []request.NamedContext{{Name: "a", Dir: request.GuestPath(dir)}}
}

func archive(c *Config, path string) {
	c.Context, c.Archive, c.Request.Source.Tar = "", path, request.GuestPath(path)
}

func stdin(c *Config, r io.Reader) {
	c.Context, c.Stdin, c.Request.Source.Tar = "", r, "-"
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("torn") }

// Standard input is kept as a file, and a reader that never ends does not hold
// up the end.
func TestTakeStdin(t *testing.T) {
	l := homeOf(t.TempDir())
	data := bytes.Repeat([]byte("context "), 1<<17)
	if err := takeStdin(t.Context(), Config{Stdin: bytes.NewReader(data)}, l); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(l.archive); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	stop := errors.New("stop")
	time.AfterFunc(10*time.Millisecond, func() { cancel(stop) })
	if err := takeStdin(ctx, Config{Stdin: r}, homeOf(t.TempDir())); !errors.Is(err, stop) {
		t.Errorf("error %v", err)
	}
}
