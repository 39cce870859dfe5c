package flat

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// layer makes a tar from lines: "d name mode", "f name content", "l name
// target", "h name target", "w name" (whiteout), "o dir" (opaque).
func layer(t *testing.T, lines ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, line := range lines {
		f := strings.Fields(line)
		h := &tar.Header{Name: f[1], Mode: 0o644, Format: tar.FormatPAX}
		data := ""
		switch f[0] {
		case "d":
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
			if len(f) > 2 {
				h.Mode = 0o700
			}
		case "f":
			h.Typeflag, data = tar.TypeReg, f[2]
		case "l":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f[2]
		case "h":
			h.Typeflag, h.Linkname = tar.TypeLink, f[2]
		case "w":
			h.Name = filepath.Join(filepath.Dir(f[1]), ".wh."+filepath.Base(f[1]))
		case "o":
			h.Name = filepath.Join(f[1], ".wh..wh..opq")
		}
		h.Size = int64(len(data))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// short describes a tree with one word a path.
func short(tr *Tree) map[string]string {
	out := map[string]string{}
	for p, e := range tr.Entries(Options{}) {
		s := e.Type
		switch e.Type {
		case "dir":
			s += " " + e.Mode
		case "file":
			s += " " + e.Text
		case "symlink":
			s += " " + e.Link
		case "hardlink":
			s += " " + e.HardlinkTo
		}
		out[p] = s
	}
	return out
}

func TestApply(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers [][]string
		want   map[string]string
	}{
		{"missing parents", [][]string{{"f a/b/c x"}},
			map[string]string{"/a": "dir 0755", "/a/b": "dir 0755", "/a/b/c": "file x"}},
		{"whiteout before additions of the same layer", [][]string{{"d d", "f d/a 1", "f d/b 1"}, {"f d/a 2", "w d/a"}},
			map[string]string{"/d": "dir 0755", "/d/a": "file 2", "/d/b": "file 1"}},
		{"opaque marker after its entries", [][]string{{"d d", "f d/a 1"}, {"f d/b 2", "o d"}},
			map[string]string{"/d": "dir 0755", "/d/b": "file 2"}},
		{"directory over directory", [][]string{{"d d", "f d/a 1"}, {"d d private"}},
			map[string]string{"/d": "dir 0700", "/d/a": "file 1"}},
		{"file over directory and back", [][]string{{"d d", "f d/a 1"}, {"f d 2"}, {"d d", "f d/b 3"}},
			map[string]string{"/d": "dir 0755", "/d/b": "file 3"}},
		{"directory over link", [][]string{{"d r", "f r/a 1", "l d r"}, {"d d"}},
			map[string]string{"/r": "dir 0755", "/r/a": "file 1", "/d": "dir 0755"}},
		{"parents through links", [][]string{{"d usr/lib", "l lib usr/lib", "l abs /lib"}, {"f lib/x 1", "f abs/y 2"}},
			map[string]string{"/usr": "dir 0755", "/usr/lib": "dir 0755", "/usr/lib/x": "file 1", "/usr/lib/y": "file 2",
				"/lib": "symlink usr/lib", "/abs": "symlink /lib"}},
		{"link out of the root", [][]string{{"l up ../../..", "f up/x 1"}},
			map[string]string{"/up": "symlink ../../..", "/x": "file 1"}},
		{"hard links share until replaced", [][]string{{"f a 1", "h b a", "h c a"}, {"f a 2"}},
			map[string]string{"/a": "file 2", "/b": "file 1", "/c": "hardlink /b"}},
		{"names above the root", [][]string{{"f ../../x 1", "f /y 2"}},
			map[string]string{"/x": "file 1", "/y": "file 2"}},
		{"first path is the one in byte order of whole paths", [][]string{{"f a/x 1", "h a-b a/x"}},
			map[string]string{"/a": "dir 0755", "/a-b": "file 1", "/a/x": "hardlink /a-b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := New()
			for _, l := range c.layers {
				if err := tr.Apply(bytes.NewReader(layer(t, l...))); err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(c.want, short(tr)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestApplyRefuses(t *testing.T) {
	for name, lines := range map[string][]string{
		"twice":                {"f a 1", "f ./a 2"},
		"hard link to nothing": {"h a b"},
		"link in a circle":     {"l a b", "l b a", "f a/x 1"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := New().Apply(bytes.NewReader(layer(t, lines...))); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestDiff(t *testing.T) {
	tree := func(lines ...string) map[string]Entry {
		tr := New()
		if err := tr.Apply(bytes.NewReader(layer(t, lines...))); err != nil {
			t.Fatal(err)
		}
		return tr.Entries(Options{})
	}
	base := tree("d d", "f d/a 1", "d e", "f e/a 1", "f e/b 1", "d g", "f g/x 1", "f same 1")
	img := tree("f d 1", "d e", "f e/a 2", "f same 1", "f new 1")
	changed, removed := Diff(base, img)
	var names []string
	for _, e := range changed {
		names = append(names, e.Path)
	}
	if d := cmp.Diff([]string{"/d", "/e/a", "/new"}, names); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"/e/b", "/g"}, removed); d != "" {
		t.Error(d)
	}
	if got := Compare(changed, changed); len(got) != 0 {
		t.Errorf("equal lists differ: %v", got)
	}
	if got := Compare(changed, changed[1:]); len(got) != 1 || !strings.Contains(got[0], "missing /d") {
		t.Errorf("got %v", got)
	}
}

// TestBases flattens the conformance suite's image with every peculiarity of
// layers; what it must give follows from bases.py.
func TestBases(t *testing.T) {
	suite := os.Getenv("KBUILD_CONFORMANCE")
	if suite == "" {
		t.Skip("KBUILD_CONFORMANCE names no conformance suite")
	}
	dir := t.TempDir()
	out, err := exec.Command("python3", filepath.Join(suite, "bases.py"), "--out", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	img, err := Open(filepath.Join(dir, "layers"), v1.Platform{})
	if err != nil {
		t.Fatal(err)
	}
	base, err := Open(filepath.Join(dir, "base"), v1.Platform{})
	if err != nil {
		t.Fatal(err)
	}
	got := short(img.Tree)
	for p := range short(base.Tree) {
		delete(got, p)
	}
	want := map[string]string{
		"/data": "dir 0755", "/data/keep": "file keep\n", "/data/dir": "dir 0755", "/data/dir/b": "file b\n",
		"/data/opq": "dir 0755", "/data/opq/new": "file new\n", "/data/swap": "file now a file\n",
		"/data/tolink": "symlink keep", "/data/fifo": "fifo", "/data/null": "char",
		"/hl": "dir 0755", "/hl/a": "file linked\n", "/hl/b": "file replaced\n", "/hl/c": "hardlink /hl/a",
		"/usr/lib": "dir 0755", "/usr/lib/libx.so": "file libx\n", "/lib": "symlink usr/lib",
		"/srv": "dir 0755", "/srv/shared": "dir 2775",
		"/usr/bin/suid": "file #!/bin/sh\nid -u\n", "/usr/bin/sgid": "file #!/bin/sh\nid -g\n",
		"/usr/bin/capped": "file capped\n", "/lib64": "dir 0755", "/lib64/libx.so": "symlink ../lib/libx.so",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	all := img.Tree.Entries(Options{})
	if x := all["/usr/bin/capped"].Xattrs["security.capability"]; x != "0100000200040000000000000000000000000000" {
		t.Errorf("security.capability is %q", x)
	}
	if img.Layers != 3 || len(img.Config.History) != 3 {
		t.Errorf("%d layers, %d history entries", img.Layers, len(img.Config.History))
	}
	arm, err := Open(filepath.Join(dir, "multi"), v1.Platform{OS: "linux", Architecture: "arm64"})
	if err != nil {
		t.Fatal(err)
	}
	if e := arm.Tree.Entries(Options{})["/arch"]; e.Text != "arm64\n" {
		t.Errorf("arm64's /arch is %v", e)
	}
}
