package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const sample = `A comment.
-- Dockerfile --
FROM registry.test/conformance/base:1
ADD http://files.test/a.txt /
-- context/a.txt --
a
-- http/a.txt --
served
-- git/repo.git/README --
readme
-- opts.json --
{"pin_mtime":["/a.txt"],"files":[
 {"path":"context/a.txt","mtime":1234567890,"mode":"4640","uid":7,"gid":8},
 {"path":"context/link","symlink":"a.txt"},
 {"path":"context/hard","hardlink":"context/a.txt"},
 {"path":"context/dir","dir":true,"mode":"0700"},
 {"path":"context/fifo","fifo":true},
 {"path":"context/bytes","base64":"/w=="}]}
-- want.json --
{"error":{"class":"run","contains":["exit code: 42"],"line":2,"message":"m"},"exit_code":42}
`

// write makes a suite of one case.
func write(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := writeFile(filepath.Join(dir, "cases", "group", "name.txtar"), []byte(text)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func loadOne(t *testing.T, text string) *testCase {
	t.Helper()
	cases, err := load(write(t, text), func(string) bool { return true })
	if err != nil || len(cases) != 1 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	return cases[0]
}

func TestLoad(t *testing.T) {
	c := loadOne(t, sample)
	if c.Name != "group/name" || c.group() != "group" || c.Opts.Dockerfile != "Dockerfile" || len(c.Files) != 4 {
		t.Errorf("%+v", c)
	}
	bad := strings.Replace(sample, `"pin_mtime"`, `"pinned"`, 1)
	if _, err := load(write(t, bad), func(string) bool { return true }); err == nil {
		t.Error("an unknown option was let go")
	}
}

func TestLayOut(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("sets owners: needs root")
	}
	c := loadOne(t, sample)
	dir := t.TempDir()
	if err := c.layOut(dir, strings.NewReplacer("registry.test", "R", "files.test", "F")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "Dockerfile")); err != nil || string(b) != "FROM R/conformance/base:1\nADD http://F/a.txt /\n" {
		t.Errorf("%q, %v", b, err)
	}
	for _, w := range []struct {
		name     string
		mode     uint32
		uid      uint32
		mtime    int64
		linkedTo uint64
	}{
		{"context", 0o40755, 0, epoch, 3},
		{"context/a.txt", 0o104640, 7, 1234567890, 2},
		{"context/hard", 0o104640, 7, 1234567890, 2},
		{"context/link", 0o120777, 0, epoch, 1},
		{"context/dir", 0o40700, 0, epoch, 2},
		{"context/fifo", 0o10644, 0, epoch, 1},
		{"context/bytes", 0o100644, 0, epoch, 1},
	} {
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(dir, w.name), &st); err != nil {
			t.Errorf("%s: %v", w.name, err)
			continue
		}
		if st.Mode != w.mode || st.Uid != w.uid || st.Mtim.Sec != w.mtime || uint64(st.Nlink) != w.linkedTo {
			t.Errorf("%s: mode %o, uid %d, mtime %d, %d links", w.name, st.Mode, st.Uid, st.Mtim.Sec, st.Nlink)
		}
	}
}

func TestServe(t *testing.T) {
	c := loadOne(t, sample)
	dir := t.TempDir()
	for _, f := range c.Files {
		if err := writeFile(filepath.Join(dir, f.Name), f.Data); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.serve(dir, filepath.Join(dir, "served"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	resp, err := http.Get(s.URL + "/a.txt?x=1")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if h := resp.Header; resp.StatusCode != 200 || h.Get("ETag") == "" || h.Get("Last-Modified") != "Wed, 01 Jan 2020 00:00:00 GMT" {
		t.Errorf("%d %v", resp.StatusCode, h)
	}
	if resp, err = http.Get(s.URL + "/none"); err != nil || resp.StatusCode != 404 {
		t.Errorf("%v, %v", resp, err)
	}
	resp.Body.Close()
	clone := filepath.Join(dir, "clone")
	if out, err := exec.Command("git", "clone", "-q", "-b", "v1", s.URL+"/repo.git", clone).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command("git", "-C", clone, "log", "-1", "--format=%an %ae %at %s %P").Output()
	if err != nil || strings.TrimSpace(string(out)) != "t t@example.com 1577836800 one" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestReadEvents(t *testing.T) {
	text, failure := readEvents(`not JSON
{"kind":"start","step":1,"name":"RUN false"}
{"kind":"log","step":1,"data":"b3V0cHV0Cg=="}
{"kind":"result","result":{"failure":{"class":"run","message":"it failed","line":2,"exitCode":1}}}
`)
	if failure == nil || failure.Line != 2 || text != "not JSON\nRUN false\noutput\nit failed\n" {
		t.Errorf("%q, %+v", text, failure)
	}
}

func TestJudgeFailure(t *testing.T) {
	c := loadOne(t, sample)
	p := paths{layout: filepath.Join(t.TempDir(), "out"), back: strings.NewReplacer()}
	good := outcome{exit: 42, known: true, failure: &request.Failure{Class: "run", Line: 2, Message: "exit code: 42", ExitCode: 42}}
	if got := c.judge(good, p, ""); len(got) != 0 {
		t.Errorf("%q", got)
	}
	for want, change := range map[string]func(o *outcome, f *request.Failure){
		"succeeded":  func(o *outcome, _ *request.Failure) { o.exit = 0 },
		"hung":       func(o *outcome, _ *request.Failure) { o.hung = true },
		"class:":     func(_ *outcome, f *request.Failure) { f.Class = "copy" },
		"line:":      func(_ *outcome, f *request.Failure) { f.Line = 3 },
		"message:":   func(_ *outcome, f *request.Failure) { f.Message = "exit" },
		"exit code:": func(_ *outcome, f *request.Failure) { f.ExitCode = 1 },
		"(status 1)": func(o *outcome, _ *request.Failure) { o.exit = 1 },
	} {
		f := *good.failure
		o := good
		o.failure = &f
		change(&o, &f)
		if got := strings.Join(c.judge(o, p, ""), "\n"); !strings.Contains(got, want) {
			t.Errorf("%s: found %q", want, got)
		}
	}
	if err := writeFile(filepath.Join(p.layout, "index.json"), nil); err != nil {
		t.Fatal(err)
	}
	if got := c.judge(good, p, ""); len(got) == 0 || got[0] != "a failed build made an image" {
		t.Errorf("%q", got)
	}
}

func TestJudgeImage(t *testing.T) {
	c := loadOne(t, `x
-- Dockerfile --
FROM scratch
-- want.json --
{"base":"scratch","os":"","architecture":"","config":{},"layers":0,"history":[],"tree":[],"removed":[],"log_contains":["hello"]}
`)
	save := func(layers int64) string {
		dir := t.TempDir()
		img := empty.Image
		if layers > 0 {
			layer, err := random.Layer(10, "application/vnd.oci.image.layer.v1.tar")
			if err != nil {
				t.Fatal(err)
			}
			if img, err = mutate.AppendLayers(img, layer); err != nil {
				t.Fatal(err)
			}
		}
		l, err := layout.Write(dir, empty.Index)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.AppendImage(img); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	judge := func(dir, log string) string {
		return strings.Join(c.judge(outcome{known: true, log: log}, paths{layout: dir, back: strings.NewReplacer()}, ""), "\n")
	}
	if got := judge(save(0), "hello"); got != "" {
		t.Error(got)
	}
	for want, got := range map[string]string{
		"no valid image":      judge(t.TempDir(), "hello"),
		"layers: want 0":      judge(save(1), "hello"),
		"tree: not wanted":    judge(save(1), "hello"),
		`log: "hello" is not`: judge(save(0), "bye"),
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
}

func TestJudgeBuildah(t *testing.T) {
	c := loadOne(t, sample)
	p := paths{layout: filepath.Join(t.TempDir(), "out"), back: strings.NewReplacer()}
	same, differs := outcome{exit: 125}, outcome{}
	for mark, w := range map[string]struct{ same, differs string }{
		"same":       {"", "succeeded"},
		"it is slow": {"its difference is noted: it is slow", ""},
	} {
		c.Marks.Buildah = mark
		for out, want := range map[*outcome]string{&same: w.same, &differs: w.differs} {
			got := strings.Join(buildah{}.judge(c, *out, p, ""), "\n")
			if (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("%s, status %d: %q, want %q", mark, out.exit, got, want)
			}
		}
	}
	for problem, want := range map[string]bool{
		"tree: not wanted /etc/hosts file 0755 0:0 size=0 sha256=e3b0c44298fc": true,
		"tree: not wanted /run dir 0755 0:0":                                   true,
		"tree: not wanted /etc/hosts file 0644 0:0 size=5":                     false,
		"tree: not wanted /run/x dir 0755 0:0":                                 false,
	} {
		if isStub(problem) != want {
			t.Errorf("%s: is a stub: %v", problem, !want)
		}
	}
}

func TestRecordFailure(t *testing.T) {
	c := loadOne(t, sample)
	c.Want.Error.Class, c.Want.Error.Contains = "run", []string{"keep"}
	out := outcome{exit: 1, failure: readFailure(`#5 ERROR: x
Dockerfile:3
--------------------
   2 |     FROM x
   3 | >>> RUN false
--------------------
error: failed to solve: at /a/b/snapshots/12/c of ref ab::cd: exit code: 7`)}
	if err := c.record(out, paths{back: strings.NewReplacer()}, ""); err != nil {
		t.Fatal(err)
	}
	got, err := parse(c.Name, c.Path)
	if err != nil {
		t.Fatal(err)
	}
	want := wantError{Class: "run", Contains: []string{"keep"}, Line: 3, Message: "at /c of ref: exit code: 7"}
	if d := cmp.Diff(&want, got.Want.Error); d != "" || *got.Want.ExitCode != 7 || len(got.Files) != len(c.Files) {
		t.Errorf("%s %v", d, got.Want.ExitCode)
	}
}

func TestEncode(t *testing.T) {
	w := want{
		Base: "b", OS: "linux", Created: "2020-01-01T00:00:00Z", Config: map[string]any{"User": "<&>"}, Layers: 2,
		History: []flat.History{{CreatedBy: "a"}, {CreatedBy: "b", EmptyLayer: true}}, LogContains: []string{"x"},
		Tree: []flat.Entry{{Path: "/a", Type: "dir", Mode: "0755"}}, Removed: []string{"/x"},
	}
	text, err := w.encode()
	if err != nil {
		t.Fatal(err)
	}
	var got want
	if err := decode([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(w, got); d != "" || strings.Contains(text, `\u00`) {
		t.Errorf("%s\n%s", d, text)
	}
}

func TestAllowed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list")
	for _, w := range []struct{ text, fault string }{
		{"# why\na/b\na/c\n\n# because\n# of it\nd/e\n", ""},
		{"a/b\n", "no reason"},
		{"# why\na/b\n\na/c\n", "no reason"},
		{"# why\na/b\na/b\n", "twice"},
	} {
		if err := writeFile(file, []byte(w.text)); err != nil {
			t.Fatal(err)
		}
		got, err := readAllowed(file)
		if w.fault == "" && (err != nil || got["a/c"] != "why" || got["d/e"] != "because of it") {
			t.Errorf("%v, %v", got, err)
		}
		if w.fault != "" && (err == nil || !strings.Contains(err.Error(), w.fault)) {
			t.Errorf("%q: %v", w.text, err)
		}
	}
}

func TestReport(t *testing.T) {
	for _, w := range []struct {
		listed, fails, leftover, ok bool
	}{
		{false, false, false, true}, {true, true, false, true},
		{false, true, false, false}, {true, false, false, false}, {false, false, true, false},
	} {
		allowed := map[string]string{}
		if w.listed {
			allowed["a/b"] = "why"
		}
		var out strings.Builder
		r := newReport(&out, allowed, false, true)
		var problems []string
		if w.fails {
			problems = []string{"x"}
		}
		r.add(&testCase{Name: "a/b"}, problems, time.Second)
		if w.leftover {
			r.leftovers = []string{"1 sleep"}
		}
		if ok := r.print(); ok != w.ok {
			t.Errorf("%+v: %v\n%s", w, ok, &out)
		}
		if !strings.HasSuffix(out.String(), " failed\n") {
			t.Errorf("it ends with %q", out.String())
		}
	}
}
