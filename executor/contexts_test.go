package executor

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// entry is a file of an archive: content, or "->" and a link's target.
type entry struct{ name, content string }

var epochOf2001 = time.Unix(981173106, 0)

func tarOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o640, Uid: 12, Gid: 34, ModTime: epochOf2001, Size: int64(len(e.content))}
		if target, ok := strings.CutPrefix(e.content, "->"); ok {
			h.Typeflag, h.Linkname, h.Size, e.content = tar.TypeSymlink, target, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// repositories is a Git that has one file in each repository, which says what
// was asked for.
type repositories struct{}

func (repositories) Checkout(_ context.Context, r buildcontext.Repository, dir string) (buildcontext.Checkout, error) {
	if strings.Contains(r.URL, "none") {
		return buildcontext.Checkout{}, errors.New("repository not found")
	}
	text := fmt.Sprintf("# %+v\nFROM scratch\n", r)
	return buildcontext.Checkout{Time: epochOf2001, Commit: strings.Repeat("0123456789", 4)}, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644)
}

type silence struct{}

func (silence) Emit(request.Event) {}

// opening opens the inputs of requests.
type opening struct {
	t     *testing.T
	dir   string // for files of the caller's
	web   string // URL of a server of files
	space *rootfs.Space
	tools Tools
}

func newOpening(t *testing.T, web map[string][]byte) *opening {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := web[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if !strings.HasPrefix(r.URL.Path, "/new") {
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		}
		w.Write(data)
	}))
	t.Cleanup(server.Close)
	download, err := buildcontext.NewHTTP(buildcontext.HTTPConfig{})
	if err != nil {
		t.Fatal(err)
	}
	space, err := rootfs.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &opening{t, t.TempDir(), server.URL, space, Tools{Download: download, Git: repositories{}}}
}

func (o *opening) open(req request.Build) (*Inputs, error) {
	in := &Inputs{}
	return in, in.open(context.Background(), fetcher{in: in, req: &req, space: o.space, tools: o.tools, steps: NewSteps(silence{})})
}

// openTwice opens what build finds after fetch, which has handed out what it
// fetched.
func (o *opening) openTwice(req request.Build) (*Inputs, error) {
	h := newHost(o.t, o.tools)
	in := &Inputs{}
	err := in.open(o.t.Context(), fetcher{
		in: in, req: h.request(req, request.RoleFetch), space: o.space, tools: o.tools, steps: NewSteps(silence{}), out: h,
	})
	if err != nil {
		return nil, err
	}
	p := &player{req: h.request(req, request.RoleBuild), space: o.space, steps: NewSteps(silence{})}
	times, err := p.useFetched(in.Fetched)
	if err != nil {
		return nil, err
	}
	return &p.in, p.read(o.t.Context(), fetcher{times: times})
}

// file lays out a file of the caller's.
func (o *opening) file(name string, data []byte) request.GuestPath {
	o.t.Helper()
	path := filepath.Join(o.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		o.t.Fatal(err)
	}
	return request.GuestPath(path)
}

// seen are the files of a source that are not hidden.
func seen(t *testing.T, s step.Source) string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(s.Root, func(path string, e os.DirEntry, err error) error {
		rel, _ := filepath.Rel(s.Root, path)
		if err != nil || e.IsDir() {
			return err
		}
		if hidden, err := s.Excluded(rel, false); err != nil || hidden {
			return err
		}
		list = append(list, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// Where the context, the Dockerfile and the ignore file come from.
func TestInputs(t *testing.T) {
	plain := tarOf(t, entry{"Dockerfile", "root"}, entry{"a", "a"}, entry{"b", "b"}, entry{".dockerignore", "a"},
		entry{"sub/Dockerfile", "sub"}, entry{"sub/Dockerfile.dockerignore", "b"}, entry{"sub/.dockerignore", "x"}, entry{"link", "->sub/Dockerfile"})
	o := newOpening(t, map[string][]byte{"/x.tgz": gzipped(t, plain), "/Dockerfile": []byte("web"), "/new.tar": plain})
	archive := o.file("x.tar", gzipped(t, plain))
	text := o.file("text", []byte("FROM text"))
	lower := o.file("lower.tar", tarOf(t, entry{"dockerfile", "lower"}))
	own := o.file("own/Dockerfile", []byte("own"))
	ignore := o.file("own/Dockerfile.dockerignore", []byte("b"))
	o.file("local/.dockerignore", []byte("y"))
	o.file("local/x", nil)
	o.file("local/y", nil)
	local := request.GuestPath(filepath.Join(o.dir, "local"))
	tarred := request.Source{Tar: archive, Text: true}
	const all = ".dockerignore Dockerfile b link sub/.dockerignore sub/Dockerfile sub/Dockerfile.dockerignore"
	const withA = ".dockerignore Dockerfile a link sub/.dockerignore sub/Dockerfile sub/Dockerfile.dockerignore"
	for _, tt := range []struct {
		name             string
		req              request.Build
		dockerfile, seen string
	}{
		{"directory", request.Build{Context: local, Dockerfile: own}, "own", ".dockerignore x y"},
		{"directory with an ignore file", request.Build{Context: local, Dockerfile: own, Ignore: local + "/.dockerignore"}, "own", ".dockerignore x"},
		{"directory, Dockerfile from a server", request.Build{Context: local, DockerfileURL: o.web + "/Dockerfile"}, "web", ".dockerignore x y"},
		{"archive", request.Build{Source: tarred}, "root", all},
		{"archive, a Dockerfile in it with its ignore file", request.Build{Source: tarred, Dockerfile: "sub/Dockerfile"}, "sub", withA},
		{"archive, a Dockerfile through a link", request.Build{Source: tarred, Dockerfile: "link"}, "sub", all},
		{"archive, a directory of it", request.Build{Source: request.Source{Tar: archive, Dir: "sub"}}, "sub", ".dockerignore Dockerfile Dockerfile.dockerignore"},
		{"archive, the user's Dockerfile", request.Build{Source: tarred, Dockerfile: own}, "own", all},
		{"archive, the user's Dockerfile and ignore file", request.Build{Source: tarred, Dockerfile: own, Ignore: ignore}, "own", withA},
		{"archive, Dockerfile from a server", request.Build{Source: tarred, DockerfileURL: o.web + "/Dockerfile"}, "web", all},
		{"archive, Dockerfile in lower case", request.Build{Source: request.Source{Tar: lower}}, "lower", "dockerfile"},
		{"text", request.Build{Source: request.Source{Tar: text, Text: true}}, "FROM text", ""},
		{"archive from a server", request.Build{Source: request.Source{URL: o.web + "/x.tgz", Text: true}}, "root", all},
		{"text from a server", request.Build{Source: request.Source{URL: o.web + "/Dockerfile", Text: true}}, "web", ""},
		{"git", request.Build{Source: request.Source{URL: "https://example.com/x.git#v1:dir"}},
			"# {URL:https://example.com/x.git Ref:v1 Subdir:dir Commit: KeepGitDir:false NoSubmodules:false CommitTime:false FetchByCommit:false}\nFROM scratch\n", "Dockerfile"},
		{"git as Kaniko has it", request.Build{Source: request.Source{URL: "https://example.com/x", Git: &request.Git{Ref: "main", KeepGitDir: true}}},
			"# {URL:https://example.com/x Ref:main Subdir: Commit: KeepGitDir:true NoSubmodules:true CommitTime:false FetchByCommit:false}\nFROM scratch\n", "Dockerfile"},
		{"git with arguments", request.Build{Source: request.Source{URL: "git@example.com:x"}, Args: []request.KeyValue{{Key: "BUILDKIT_CONTEXT_KEEP_GIT_DIR", Value: "1"}, {Key: "SOURCE_DATE_EPOCH", Value: "1"}}},
			"# {URL:git@example.com:x Ref: Subdir: Commit: KeepGitDir:true NoSubmodules:false CommitTime:true FetchByCommit:false}\nFROM scratch\n", "Dockerfile"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, open := range []func(request.Build) (*Inputs, error){o.open, o.openTwice} {
				in, err := open(tt.req)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(tt.dockerfile, string(in.Dockerfile)); d != "" {
					t.Errorf("Dockerfile (-want +got):\n%s", d)
				}
				if got := seen(t, in.Context); got != tt.seen {
					t.Errorf("context %q, want %q", got, tt.seen)
				}
			}
		})
	}
}

// Files keep their modes and times, and are root's.
func TestUnpackedAttributes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changes owners")
	}
	o := newOpening(t, nil)
	in, err := o.open(request.Build{Source: request.Source{Tar: o.file("x.tar", tarOf(t, entry{"Dockerfile", "x"}))}})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(in.Context.Root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o640 || !info.ModTime().Equal(epochOf2001) || ownerOf(info) != [2]uint32{} {
		t.Errorf("mode %v, time %v, owner %v", info.Mode(), info.ModTime(), ownerOf(info))
	}
}

func TestInputErrors(t *testing.T) {
	good := tarOf(t, entry{"Dockerfile", "x"}, entry{"out", "->/etc"}, entry{"up", "->../x"}, entry{"dir/x", ""})
	o := newOpening(t, map[string][]byte{
		"/text": []byte("x"), "/large": make([]byte, dockerfile.MaxSize+1), "/bad.gz": gzipped(t, []byte("x")), "/x.tar": good,
	})
	archive := o.file("x.tar", good)
	src := func(s request.Source) request.Build { return request.Build{Source: s} }
	for _, tt := range []struct {
		name  string
		req   request.Build
		want  string
		class request.Class
	}{
		{"no archive", src(request.Source{Tar: o.file("text", []byte("x"))}), "not a tar archive", request.ClassResolve},
		{"a directory of a text", src(request.Source{Tar: o.file("text", []byte("x")), Text: true, Dir: "d"}), "not a tar archive", request.ClassResolve},
		{"text beside a Dockerfile", request.Build{Source: request.Source{Tar: o.file("text", []byte("x")), Text: true}, Dockerfile: "a", DockerfileName: "a"}, "there is another Dockerfile: a", request.ClassParse},
		{"text beside a downloaded Dockerfile", request.Build{Source: request.Source{URL: o.web + "/text", Text: true}, DockerfileURL: o.web + "/text", DockerfileName: "b"}, "there is another Dockerfile: b", request.ClassParse},
		{"nothing", src(request.Source{Tar: o.file("nothing", nil), Text: true}), "it is empty", request.ClassResolve},
		{"compressed text", src(request.Source{URL: o.web + "/bad.gz", Text: true}), "compressed, but no tar archive", request.ClassResolve},
		{"cut archive", src(request.Source{Tar: o.file("cut", tarOf(t, entry{"Dockerfile", strings.Repeat("x", 1000)})[:700])}), "unexpected EOF", request.ClassResolve},
		{"no Dockerfile", src(request.Source{Tar: o.file("bare.tar", tarOf(t, entry{"a", ""}))}), "failed to read dockerfile: read dockerfile: open Dockerfile: no such file", request.ClassParse},
		{"Dockerfile leads out", request.Build{Source: request.Source{Tar: archive}, Dockerfile: "out/passwd"}, "leads out of the context", request.ClassParse},
		{"Dockerfile is above", request.Build{Source: request.Source{Tar: archive}, Dockerfile: "../x"}, "leads out of the context", request.ClassParse},
		{"Dockerfile is a directory", request.Build{Source: request.Source{Tar: archive}, Dockerfile: "dir"}, "not a regular file", request.ClassParse},
		{"directory leads out", src(request.Source{Tar: archive, Dir: "out"}), "leads out of the context", request.ClassResolve},
		{"directory is missing", src(request.Source{Tar: archive, Dir: "none"}), "no such file", request.ClassResolve},
		{"directory is a file", src(request.Source{Tar: archive, Dir: "Dockerfile"}), "not a directory", request.ClassResolve},
		{"ignore file leads out", src(request.Source{Tar: o.file("i.tar", tarOf(t, entry{"Dockerfile", "x"}, entry{".dockerignore", "->/etc/passwd"}))}), "leads out of the context", ""},
		{"404", src(request.Source{URL: o.web + "/none"}), "load build context from " + o.web + "/none: ", request.ClassResolve},
		{"404 of a Dockerfile", request.Build{Source: request.Source{Tar: archive}, DockerfileURL: o.web + "/none"}, "load Dockerfile from " + o.web + "/none: ", request.ClassResolve},
		{"large Dockerfile", request.Build{Source: request.Source{Tar: archive}, DockerfileURL: o.web + "/large"}, "more than 8388608 bytes are too many", request.ClassResolve},
		{"no repository", src(request.Source{URL: "https://u:secret@example.com/none.git"}), "load build context from https://xxxxx:xxxxx@example.com/none.git: repository not found", request.ClassResolve},
		{"wrong query", src(request.Source{URL: "https://example.com/x.git?what=x"}), `unexpected query "what"`, request.ClassResolve},
		{"no scheme that is known", src(request.Source{URL: "ftp://example.com/x"}), "not supported", request.ClassUnsupported},
		{"named: 404", request.Build{Source: request.Source{Tar: archive}, Contexts: []request.NamedContext{{Name: "a", Source: request.Source{URL: o.web + "/none"}}}}, "context a: ", request.ClassResolve},
		{"named: no reference", request.Build{Source: request.Source{Tar: archive}, Contexts: []request.NamedContext{{Name: "a", Image: "A B"}}}, "context a: invalid reference format", request.ClassResolve},
		{"named: no layout", request.Build{Source: request.Source{Tar: archive}, Contexts: []request.NamedContext{{Name: "a", Layout: request.GuestPath(o.dir)}}}, "context a: open OCI layout", request.ClassResolve},
	} {
		_, err := o.open(tt.req)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: a password is told", tt.name)
		}
		if f := Describe(err, &tt.req, nil); tt.class != "" && f.Class != tt.class {
			t.Errorf("%s: class %s, want %s", tt.name, f.Class, tt.class)
		}
	}
}

func TestNamedInputs(t *testing.T) {
	data := tarOf(t, entry{"d/x", "x"}, entry{".dockerignore", "d"})
	o := newOpening(t, map[string][]byte{"/x.tar": data, "/new.tar": data, "/text": []byte("x")})
	o.file("n/.dockerignore", []byte("y"))
	o.file("n/x", nil)
	o.file("n/y", nil)
	url := func(s string) request.Source { return request.Source{URL: s} }
	req := request.Build{
		Source: request.Source{Tar: o.file("c.tar", tarOf(t, entry{"Dockerfile", "x"}))},
		Contexts: []request.NamedContext{
			{Name: "dir", Dir: request.GuestPath(filepath.Join(o.dir, "n"))},
			{Name: "image", Image: "alpine"}, {Name: "empty", Image: "scratch"},
			{Name: "tar", Source: url(o.web + "/x.tar")},
			{Name: "undated", Source: url(o.web + "/new.tar")},
			{Name: "text", Source: url(o.web + "/text")},
			{Name: "git", Source: url("https://example.com/x.git")},
		},
	}
	for _, open := range []func(request.Build) (*Inputs, error){o.open, o.openTwice} {
		in, err := open(req)
		if err != nil {
			t.Fatal(err)
		}
		checkNamed(t, in)
	}
	// A question about the Dockerfile fetches nothing.
	req.Call = request.CallOutline
	if in, err := o.open(req); err != nil || len(in.Named) != 1 || len(in.Contexts) != len(req.Contexts) {
		t.Errorf("%d trees of files, %v", len(in.Named), err)
	}
}

func checkNamed(t *testing.T, in *Inputs) {
	t.Helper()
	images := map[string]string{}
	for _, c := range in.Contexts {
		images[c.Name] = c.Image
	}
	want := map[string]string{"dir": "", "image": "docker.io/library/alpine:latest", "empty": "scratch", "tar": "", "undated": "", "text": "", "git": ""}
	if d := cmp.Diff(want, images); d != "" {
		t.Errorf("images (-want +got):\n%s", d)
	}
	files := map[string]string{}
	for name, s := range in.Named {
		if s.Excluded == nil {
			s.Excluded = func(string, bool) (bool, error) { return false, nil }
		}
		files[name] = seen(t, s)
	}
	want = map[string]string{"dir": ".dockerignore x", "tar": ".dockerignore d/x", "undated": ".dockerignore d/x", "text": "context", "git": "Dockerfile"}
	if d := cmp.Diff(want, files); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	e := epochs{in: in}
	times := map[string]string{}
	for _, name := range []string{"", "dir", "image", "tar", "undated", "text", "git"} {
		if at, err := e.ContextTime(t.Context(), name); err != nil {
			t.Error(name, err)
		} else if at != nil {
			times[name] = at.UTC().Format("2006")
		}
	}
	want = map[string]string{"": "2001", "tar": "2006", "undated": "2001", "text": "2006", "git": "2001"}
	if d := cmp.Diff(want, times); d != "" {
		t.Errorf("times (-want +got):\n%s", d)
	}
}

// What a pod kept of standard input goes when it is unpacked; the user's own
// archive stays.
func TestKeptArchiveGoes(t *testing.T) {
	o := newOpening(t, nil)
	data := tarOf(t, entry{"Dockerfile", "x"})
	kept := o.file("work/context.tar", data)
	own := o.file("own.tar", data)
	for _, path := range []request.GuestPath{kept, own} {
		if _, err := o.open(request.Build{Workspace: request.GuestPath(filepath.Join(o.dir, "work")), Source: request.Source{Tar: path}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(string(kept)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", kept, err)
	}
	if _, err := os.Stat(string(own)); err != nil {
		t.Error(err)
	}
}

func ownerOf(info os.FileInfo) [2]uint32 {
	st := info.Sys().(*syscall.Stat_t)
	return [2]uint32{st.Uid, st.Gid}
}
