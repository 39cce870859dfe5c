package flags

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

func TestOutputsWrite(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a1", 32)
	dir := t.TempDir()
	// A file that is there is written in place: it may be a mount.
	inPlace := filepath.Join(dir, "termination-log")
	if err := os.WriteFile(inPlace, []byte(strings.Repeat("old", 100)), 0o644); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(inPlace)
	if err != nil {
		t.Fatal(err)
	}
	o := Outputs{Digest: inPlace, NameDigest: filepath.Join(dir, "new/sub/names"), NameTagDigest: filepath.Join(dir, "tags")}
	res := request.Result{Digest: digest, Names: []string{"reg.example:5000/a/b:1", "index.docker.io/library/c:latest"}}
	if err := o.Write(res); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		o.Digest:        digest,
		o.NameDigest:    "reg.example:5000/a/b@" + digest + "\nindex.docker.io/library/c@" + digest + "\n",
		o.NameTagDigest: "reg.example:5000/a/b:1@" + digest + "\nindex.docker.io/library/c:latest@" + digest + "\n",
	} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	if after, err := os.Stat(inPlace); err != nil || !os.SameFile(before, after) {
		t.Errorf("%s was replaced (%v)", inPlace, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "new")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of a new directory: %v, %v", info, err)
	}
}

// What was measured of the walls is part of the metadata, where there is any.
func TestMetadataPosture(t *testing.T) {
	text, err := metadata(request.Result{})
	if err != nil || strings.Contains(text, "posture") {
		t.Errorf("%s, %v", text, err)
	}
	text, err = metadata(request.Result{Posture: []request.RolePosture{{Role: request.RoleFetch}}})
	if err != nil || !strings.Contains(text, `"kbuild.posture": [`) || !strings.Contains(text, `"kbuild.posture.digest": "sha256:`) {
		t.Errorf("%s, %v", text, err)
	}
}

// TestOutputsFailEarly holds that what cannot be written is found before the
// build, and that nothing is made for it.
func TestOutputsFailEarly(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Outputs{
		{Digest: "file/digest"}, {NameDigest: "file/new/names"}, {NameTagDigest: "file/x"}, {Tar: "file/x.tar"}, {Layout: "file/x/layout"},
	} {
		if _, err := o.resolve(dir, dir); err == nil || !strings.Contains(err.Error(), "not a directory") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := (Outputs{Digest: "new/sub/digest", Tar: "file"}).resolve(dir, dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("a directory was made before the build")
	}
}

func TestOutputsWriteRefuses(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a1", 32)
	for _, res := range []request.Result{
		{},
		{Digest: "sha256:xyz"},
		{Digest: "sha256:abc123"},
		{Digest: "sha512:" + strings.Repeat("a1", 32)},
		{Digest: digest + "\n"},
		{Digest: digest, Names: []string{"a\nb"}},
		{Digest: digest, Names: []string{"a\x1b[31m"}},
	} {
		path := filepath.Join(t.TempDir(), "f")
		if err := (Outputs{Digest: path}).Write(res); err == nil {
			t.Errorf("%+v: no error", res)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%+v: written all the same", res)
		}
	}
}

func TestExitCode(t *testing.T) {
	for _, tt := range []struct {
		f    request.Failure
		want int
	}{
		{request.Failure{Class: request.ClassRun, ExitCode: 42}, 42},
		{request.Failure{Class: request.ClassRun, ExitCode: 137}, 137},
		{request.Failure{Class: request.ClassRun}, 1},
		{request.Failure{Class: request.ClassRun, ExitCode: 256}, 1},
		{request.Failure{Class: request.ClassRun, ExitCode: -1}, 1},
		{request.Failure{Class: request.ClassParse, ExitCode: 42}, 1},
		{request.Failure{Class: request.ClassTimeout}, 124},
		{request.Failure{Class: request.ClassIsolation}, 125},
		{request.Failure{Class: request.ClassCanceled}, 130},
		{request.Failure{Class: request.ClassInternal}, 1},
		{request.Failure{Class: "of tomorrow"}, 1},
	} {
		if got := ExitCode(tt.f); got != tt.want {
			t.Errorf("%+v: %d, want %d", tt.f, got, tt.want)
		}
	}
}

func TestLogOptions(t *testing.T) {
	for _, tt := range []struct {
		line     string
		terminal bool
		env      map[string]string
		mode     string
		color    bool
	}{
		{"", true, nil, "tty", true},
		{"", false, nil, "plain", false},
		{"", true, map[string]string{"TERM": "dumb"}, "plain", false},
		{"", true, map[string]string{"NO_COLOR": "1"}, "tty", false},
		{"", true, map[string]string{"NO_COLOR": ""}, "tty", true},
		{"--log-format=color", false, map[string]string{"NO_COLOR": "1"}, "plain", true},
		{"--log-format=text", true, nil, "tty", false},
		{"--log-format=json", true, nil, "json", false},
		{"--log-format=json --progress=plain", true, nil, "plain", false},
		{"--progress=json", true, nil, "json", true},
		{"--progress=tty", false, nil, "tty", false},
	} {
		opt := logOptions(t, tt.line, tt.terminal, tt.env)
		if string(opt.Mode) != tt.mode || opt.Color != tt.color {
			t.Errorf("%q, terminal %v, %v: %s, colour %v; want %s, %v", tt.line, tt.terminal, tt.env, opt.Mode, opt.Color, tt.mode, tt.color)
		}
	}
}

// TestOutputsStayBelow: a checkout of a stranger's cannot say what is written
// to elsewhere.
func TestOutputsStayBelow(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	context := filepath.Join(dir, "context")
	if err := os.MkdirAll(filepath.Join(context, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"file": filepath.Join(out, "file"), "dir": out, "up": "..", "dangling": filepath.Join(out, "none"), "inside": "sub", "loop": "loop",
	} {
		if err := os.Symlink(target, filepath.Join(context, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(out, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	for path, allowed := range map[string]bool{
		"file": false, "dir/new": false, "dir/sub/new": false, "up/new": false, "dangling": false, "loop": false,
		"inside/new": true, "new": true, "sub/new/x": true,
	} {
		for _, at := range []struct{ dir, context, path string }{
			{context, context, path}, {elsewhere, context, filepath.Join(context, path)}, {context, elsewhere, path},
		} {
			_, err := Outputs{Digest: at.path}.resolve(at.dir, at.context)
			if (err == nil) != allowed {
				t.Errorf("%s in %s: %v", at.path, at.dir, err)
			}
		}
	}
	// What the user's own links do elsewhere is the user's business.
	if _, err := (Outputs{Tar: filepath.Join(context, "file")}).resolve(elsewhere, elsewhere); err != nil {
		t.Error(err)
	}
}
